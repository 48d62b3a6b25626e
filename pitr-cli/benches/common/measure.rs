//! How long something takes until it is durable, and the memory and processor time that a process takes.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How often is looked what a process takes. What it takes in the very last of these goes unseen.
const LOOK: Duration = Duration::from_millis(10);

/// Seconds until `deed` is done and everything on the disk of `place` is durable: what a side leaves to be written is in its
/// time. Where it left nothing, asking costs next to nothing.
pub fn durable<T>(place: &Path, deed: impl FnOnce() -> T) -> (f64, T) {
    let disk = File::open(place).expect("a directory");
    let begun = Instant::now();
    let done = deed();
    rustix::fs::syncfs(&disk).expect("a sync");
    (begun.elapsed().as_secs_f64(), done)
}

/// A command that went well.
pub struct Ran {
    /// The largest resident size, in bytes.
    pub peak: u64,
    /// Of all its threads.
    pub processor: Duration,
    /// What it said.
    pub answer: String,
}

impl Ran {
    /// [`Self::peak`], as it is told.
    pub fn peak_mib(&self) -> f64 {
        self.peak as f64 / f64::from(1 << 20)
    }
}

/// Runs a command to its end, which must be a good one. Without a limit in time: what takes long is what is measured.
pub fn run(command: &mut Command) -> Ran {
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let to = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
    let mut child = command.stdout(to(&out)).stderr(to(&err)).spawn().expect("starting it");
    let (id, ended) = (child.id(), AtomicBool::new(false));
    // Not the kernel's account of ended processes: that begins with what whoever started the process had.
    let (status, (most, processor)) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let (mut most, mut processor) = (0, Duration::ZERO);
            while !ended.load(Ordering::SeqCst) {
                most = most.max(peak(id).unwrap_or(0));
                processor = processor.max(processor_time(id).unwrap_or_default());
                std::thread::sleep(LOOK);
            }
            (most, processor)
        });
        let status = child.wait().expect("waiting for it");
        ended.store(true, Ordering::SeqCst);
        (status, looking.join().expect("whoever looks"))
    });
    let [answer, complaints] = [&mut out, &mut err].map(|file| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("what it said");
        text
    });
    assert!(status.success(), "{command:?}: {status}\n{answer}{complaints}");
    Ran { peak: most, processor, answer }
}

/// The largest resident size of a process until now, in bytes; `None` when it has ended.
pub fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor time of a process, all threads, also those that ended; `None` when it has ended itself.
pub fn processor_time(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
