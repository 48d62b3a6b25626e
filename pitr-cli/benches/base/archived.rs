//! How small a log is in the archive, against `zstd` on the same log as one file.
//!
//! A database is written at a steady pace while two archivers follow it, one into an encrypted archive and one into one that is
//! not; both cut segments by size only. Nothing of the log is deleted meanwhile, so that it can be compressed as a whole: the
//! database does not flush.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use pitr_archive::{
    ids::TimelineId,
    object_key::prefix,
    segment::{
        envelope::overhead,
        frame::{FRAME_HEADER_LEN, FRAME_PLAIN},
        header::{HEADER_LEN, SegmentHeader, TRAILER_LEN},
    },
};
use rocksdb::{DB, Options};

use crate::{
    MEMORY, Settings,
    beside::{Archiver, archive, place, state},
    cache,
    harness::command::{self, pitr, text, url},
    log::Busy,
    measure,
    sealed::Sealed,
    table::{Line, Table},
};

/// Bytes a second: busy, and no race.
const PACE: f64 = 20e6;
const MIB: f64 = 1024.0 * 1024.0;

/// A writer that counts and forgets.
#[derive(Default)]
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The segments of an archive, in bytes, and what of them is not compressed log.
#[derive(Default)]
struct Segments {
    objects: u64,
    bytes: u64,
    footers: u64,
    fixed: u64,
    frames: u64,
}

impl Segments {
    fn read(archive: &Path) -> Self {
        let mut all = Self::default();
        for path in cache::files(&archive.join(prefix::segments(TimelineId::FIRST))) {
            let body = std::fs::read(&path).expect("a segment");
            let header = SegmentHeader::decode(&body).expect("a segment's header");
            let frame = FRAME_HEADER_LEN + overhead(header.is_sealed());
            all.objects += 1;
            all.bytes += body.len() as u64;
            all.footers += u64::from(header.footer_len);
            all.fixed += (HEADER_LEN + TRAILER_LEN) as u64;
            all.frames += u64::from(header.frames) * frame as u64;
        }
        all
    }
}

/// Everything that the database has logged, in its order.
fn wals(dir: &Path) -> Box<dyn Read> {
    let mut paths = cache::files(dir);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let nothing: Box<dyn Read> = Box::new(std::io::empty());
    paths.iter().fold(nothing, |before, path| Box::new(before.chain(File::open(path).expect("a log"))))
}

/// As one file.
fn compressed(dir: &Path, level: i32) -> u64 {
    let mut count = Count::default();
    zstd::stream::copy_encode(wals(dir), &mut count, level).expect("a compressed log");
    count.0
}

/// In pieces as long as a frame, each by itself: what random access costs without anything else.
fn compressed_in_pieces(dir: &Path, level: i32) -> u64 {
    let (mut log, mut bytes) = (wals(dir), 0);
    loop {
        let mut piece = Vec::with_capacity(FRAME_PLAIN);
        let read = log.by_ref().take(FRAME_PLAIN as u64).read_to_end(&mut piece).expect("a log");
        if read == 0 {
            return bytes;
        }
        bytes += zstd::bulk::compress(&piece, level).expect("a compressed piece").len() as u64;
    }
}

/// At a steady pace.
fn write(db: &DB, bytes: u64) {
    let (mut busy, mut written, start) = (Busy::new(4), 0, Instant::now());
    while written < bytes {
        let (batch, length) = busy.batch();
        db.write(batch).expect("a write");
        written += length;
        let due = Duration::from_secs_f64(written as f64 / PACE);
        if let Some(early) = due.checked_sub(start.elapsed()).filter(|early| *early > Duration::from_millis(1)) {
            std::thread::sleep(early);
        }
    }
}

pub fn run(settings: &Settings) -> Vec<Table> {
    let root = place();
    let dir = root.path().join("db");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(usize::try_from(settings.archived * 4).expect("a size"));
    let db = DB::open(&options, &dir).expect("a new database");
    let [sealed, clear] = ["sealed", "clear"].map(|name| root.path().join(name));
    for place in [&sealed, &clear] {
        std::fs::create_dir(place).expect("a directory");
    }
    let level = settings.level.to_string();
    let (states, clear_url) = ([state(&sealed), state(&clear)], url(&archive(&clear)));
    let [first, second] = [&states[0], &states[1]].map(|state| {
        let cuts = ["--segment-size", "8MiB", "--interval", "1h", "--compression-level", &level];
        ["run", "--db", text(&dir), "--state", text(state)].into_iter().chain(cuts)
    });
    let first = Archiver::answering(Sealed::new(&sealed).pitr(first), &dir, &states[0]);
    let second = pitr(second.chain(["--archive", clear_url.as_str()]));
    let second = Archiver::answering(second, &dir, &states[1]);
    write(&db, settings.archived);
    for state in &states {
        command::succeed(&mut pitr(["flush", "--db", text(&dir), "--state", text(state)]));
    }
    let peak = measure::peak(first.id()).expect("a running archiver") as f64 / MIB;
    first.stop();
    second.stop();

    let log = std::io::copy(&mut wals(&dir), &mut std::io::sink()).expect("a log");
    let [sealed, clear] = [&sealed, &clear].map(|place| Segments::read(&archive(place)));
    let whole = compressed(&dir, settings.level);
    let mib = |bytes: u64| bytes as f64 / MIB;
    let mut table = Table::new(format!(
        "{:.0} MiB of a busy database's log in segments of 8 MiB, zstd level {level}: text, ids, counters and blobs",
        mib(log)
    ));
    table.row("zstd, all of it as one file", mib(whole), "MiB", Line::None);
    table.row("in pieces of 256 KiB", mib(compressed_in_pieces(&dir, settings.level)), "MiB", Line::None);
    table.row("segments, encrypted", mib(sealed.bytes), "MiB", Line::None);
    table.row("  of these: footers", mib(sealed.footers), "MiB", Line::None);
    table.row("  of these: headers and trailers", mib(sealed.fixed), "MiB", Line::None);
    table.row("  of these: headers, checksums and seals of frames", mib(sealed.frames), "MiB", Line::None);
    table.row("segments, not encrypted", mib(clear.bytes), "MiB", Line::None);
    table.row("encrypted segments, of the one file", sealed.bytes as f64 / whole as f64, "", Line::AtMost(1.1));
    table.row("segments that are not, of the one file", clear.bytes as f64 / whole as f64, "", Line::None);
    table.row("the one file, of the log", whole as f64 / log as f64, "", Line::None);
    table.row("peak memory of pitr run", peak, "MiB", Line::AtMost(MEMORY));
    table.note(format!("{} segments, not encrypted {}", sealed.objects, clear.objects));
    vec![table]
}
