//! `pitr inspect segment`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::archive::MAX_SEGMENT,
    error,
    ids::{ArchiveId, Boundary, Epoch, FileNumber, Ordinal, RecordNumber, RunningHash, TimelineId},
    keyring::Keyring,
    layout::Family,
    rocks::describe::{BatchLine, Operations},
    segment::{
        entry::{Entry, Event},
        header::SegmentHeader,
        reader::{Placed, SegmentReader, Wanted},
    },
};
use serde::Serialize;

use super::{Sheet, wal};
use crate::{
    args::{common::ArchiveArgs, tools::InspectArgs},
    context::Context,
    output::{self, Verdict, table, text},
};

/// The first line of JSON.
#[derive(Serialize)]
struct Head {
    kind: &'static str,
    archive: ArchiveId,
    timeline: TimelineId,
    ordinal: Ordinal,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ordinal: Option<Ordinal>,
    epoch: Epoch,
    sealed: bool,
    first: Boundary,
    end: Boundary,
    hash_before: RunningHash,
    hash_after: RunningHash,
    created: DateTime<Utc>,
    entries: u64,
    frames: u32,
    plain_bytes: u64,
    object_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line<'a> {
    Record {
        record: RecordNumber,
        wal: FileNumber,
        start: u64,
        end: u64,
        hash_after: RunningHash,
        batch: &'a BatchLine,
    },
    Event {
        at: Boundary,
        hash_after: RunningHash,
        event: &'a Event,
    },
    Footer {
        footer: &'a pitr_archive::catalog::schema::SegmentFooter,
    },
}

pub async fn run(context: &Context, args: &InspectArgs) -> Result<Verdict> {
    let path = &args.file;
    let size = std::fs::metadata(path).map_err(|e| error::io("examining", path, e))?.len();
    if size > MAX_SEGMENT {
        return Err(Error::new(Code::ObjectTooLarge, "reading").on(path.display()).with("bytes", size));
    }
    let body = Bytes::from(std::fs::read(path).map_err(|e| error::io("reading", path, e))?);
    let mut sheet = Sheet::new(context, args);
    match show(context, args, &mut sheet, body).await {
        Ok(()) => {
            sheet.lines.finish()?;
            Ok(Verdict::Done)
        }
        // A key that is missing or wrong is no damage of the file.
        Err(e)
            if !matches!(
                e.code(),
                Code::SegmentDamaged | Code::ChainBroken | Code::ObjectDamaged | Code::BatchMalformed
            ) =>
        {
            Err(e)
        }
        Err(e) => {
            sheet.lines.finish()?;
            output::error::show(&e, context.output.is_json());
            Ok(Verdict::Damage)
        }
    }
}

async fn show(context: &Context, args: &InspectArgs, sheet: &mut Sheet<'_>, body: Bytes) -> Result<()> {
    let header = SegmentHeader::decode(&body).map_err(|fault| {
        Error::new(fault.code(Family::Segment), "reading the header of").on(args.file.display()).because(fault)
    })?;
    show_header(sheet, &header)?;
    let wanted = Wanted { archive: header.archive, timeline: header.timeline, ordinals: header.ordinals };
    let keyring = keyring(context, args, &header).await?;
    let reader = SegmentReader::open(&wanted, body, &keyring)?;
    if !sheet.out.is_json() {
        sheet.lines.text("")?;
        sheet.lines.text(&sheet.out.heading("    RECORD  ENTRY"))?;
    }
    for placed in reader.entries() {
        let placed = placed?;
        if !sheet.admit() {
            return Ok(());
        }
        show_entry(sheet, &placed)?;
    }
    show_footer(sheet, &reader)
}

fn show_header(sheet: &mut Sheet<'_>, h: &SegmentHeader) -> Result<()> {
    if sheet.out.is_json() {
        return sheet.lines.json(&Head {
            kind: "header",
            archive: h.archive,
            timeline: h.timeline,
            ordinal: h.ordinals.first(),
            last_ordinal: h.ordinals.is_merged().then(|| h.ordinals.last()),
            epoch: h.epoch,
            sealed: h.is_sealed(),
            first: h.first,
            end: h.end,
            hash_before: h.hash_before,
            hash_after: h.hash_after,
            created: h.created.to_datetime(),
            entries: h.entries,
            frames: h.frames,
            plain_bytes: h.plain_bytes,
            object_bytes: h.object_len(),
        });
    }
    let facts = [
        ("segment", format!("{} of timeline {}, archive {}", h.ordinals, h.timeline, h.archive)),
        ("records", format!("boundary {} to {}", h.first, h.end)),
        ("entries", format!("{} in {}", h.entries, text::count(h.frames, "frame"))),
        (
            "size",
            format!(
                "{}, {} plain",
                h.object_len().map_or_else(|| "?".to_owned(), text::bytes),
                text::bytes(h.plain_bytes)
            ),
        ),
        ("written", format!("{} by epoch {}", text::time(h.created), h.epoch)),
        ("sealed", if h.is_sealed() { "AES-256-GCM".to_owned() } else { "no".to_owned() }),
        ("running hash", format!("{} before\n{} after", h.hash_before, h.hash_after)),
    ];
    let text = table::facts(sheet.out, &facts);
    sheet.lines.text(&text)
}

fn show_entry(sheet: &mut Sheet<'_>, placed: &Placed) -> Result<()> {
    match &placed.entry {
        Entry::Record(record) => {
            let batch = BatchLine::new(record.start, record.end, &record.payload, Operations::Shown);
            let number = placed.at.next_record();
            if sheet.out.is_json() {
                let (wal, start, end, hash_after) = (record.wal, record.start, record.end, placed.hash_after);
                return sheet.lines.json(&Line::Record { record: number, wal, start, end, hash_after, batch: &batch });
            }
            let sequence = batch.sequence.map_or_else(|| "?".to_owned(), |s| s.to_string());
            let count = batch.count.map_or_else(|| "?".to_owned(), |n| n.to_string());
            sheet.lines.text(&format!(
                "{number:>10}  sequence {sequence}, count {count}, {} B, WAL {:06} at {}",
                batch.byte_size,
                record.wal.get(),
                record.start
            ))?;
            for op in &batch.ops {
                let line = format!("            {}", wal::operation(sheet, op));
                sheet.lines.text(&line)?;
            }
            match batch.error {
                None => Ok(()),
                Some(error) => Err(Error::new(Code::BatchMalformed, "decoding record").on(number).because(error)),
            }
        }
        Entry::Event(event) if sheet.out.is_json() => {
            sheet.lines.json(&Line::Event { at: placed.at, hash_after: placed.hash_after, event })
        }
        Entry::Event(event) => {
            let said = serde_json::to_string(event).map_err(|e| Error::new(Code::Internal, "encoding").because(e))?;
            let said = if sheet.full { said } else { text::shortened(&said, 200) };
            sheet.lines.text(&format!("         -  event at boundary {}: {said}", placed.at))
        }
    }
}

fn show_footer(sheet: &mut Sheet<'_>, reader: &SegmentReader) -> Result<()> {
    let footer = reader.footer();
    if sheet.out.is_json() {
        return sheet.lines.json(&Line::Footer { footer });
    }
    let s = &footer.summary;
    let observed = s.observed.map_or_else(
        || "no look at the log's end".to_owned(),
        |(first, last)| {
            format!(
                "{} to {}, {}",
                text::time(first.at),
                text::time(last.at),
                text::count(footer.samples.len() as u64, "look")
            )
        },
    );
    let mut facts = vec![("last sequence", s.last_sequence.to_string()), ("seen", observed)];
    if let Some(at) = s.observed_through {
        facts.push(("nothing more until", text::time(at)));
    }
    if let Some(m) = &footer.manifest {
        facts.push((
            "MANIFEST read to",
            format!("{:06} at {}, session {}", m.point.file.get(), m.point.offset, m.session),
        ));
    }
    if let Some(merged) = s.merged {
        let (first, before) = (text::bytes(merged.original_bytes), text::bytes(merged.written_bytes));
        facts.push(("merged from", format!("{first} as archivers wrote it; {before} were written before this")));
    }
    let text = table::facts(sheet.out, &facts);
    sheet.lines.text("")?;
    sheet.lines.text(&text)
}

/// The keys for a segment: none for a clear one; for a sealed one those of the archive that it lies in.
async fn keyring(context: &Context, args: &InspectArgs, header: &SegmentHeader) -> Result<Arc<Keyring>> {
    if !header.is_sealed() {
        return Ok(Arc::new(Keyring::none()));
    }
    let root = archive_of(&args.file).ok_or_else(|| {
        Error::new(Code::KeyRequired, "opening the segment")
            .on(args.file.display())
            .hint("a sealed segment is opened where it lies in its archive (.../segments/<timeline>/<ordinal>.seg): its key is wrapped in the archive's other objects")
    })?;
    let archive = ArchiveArgs { archive: root.display().to_string(), key_file: args.key_file.clone() };
    let archive = context.archive(&archive).await?;
    archive.admit_epoch(header.epoch).await?;
    Ok(Arc::clone(archive.keyring()))
}

/// The directory three above a segment, if it is an archive's.
fn archive_of(segment: &Path) -> Option<PathBuf> {
    let segment = std::fs::canonicalize(segment).ok()?;
    let root = segment.ancestors().nth(3)?;
    root.join("archive.json").exists().then(|| root.to_owned())
}
