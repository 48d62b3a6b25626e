//! File systems of the tests' own: small ones that fill up, turn read-only, or lose power.
//!
//! Owns: the image, the loop device and the mount, each of which is undone when the value goes, also when the test fails.
//! Needs root: where the machine does not let us mount, [`Mount::disk`] and [`Mount::memory`] say so on stderr and answer
//! `None`, and the test is skipped.

use std::{
    fs::File,
    io::Write as _,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{scratch, services::say_skipped};

/// What is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, with its journal.
    Ext4,
    /// xfs.
    Xfs,
}

impl Kind {
    /// The program that makes one, and the smallest size that it takes, in bytes.
    fn maker(self) -> (&'static [&'static str], u64) {
        match self {
            Self::Ext4 => (&["mkfs.ext4", "-q", "-F"], 96 << 20),
            Self::Xfs => (&["mkfs.xfs", "-q", "-f"], 300 << 20),
        }
    }
}

/// Whether it can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

/// A mounted file system.
pub struct Mount {
    /// Holds the image and the mount point.
    root: tempfile::TempDir,
    at: PathBuf,
    /// The block device; none in memory.
    device: Option<String>,
    mounted: bool,
}

impl Mount {
    /// A disk in a file. `None` where it cannot be had.
    pub fn disk(kind: Kind) -> Option<Self> {
        let (maker, bytes) = kind.maker();
        let [program, options @ ..] = maker else { return None };
        if !is_there(program) {
            say_skipped(&format!("{program} is not installed: nothing was tested on {kind:?}"));
            return None;
        }
        let mut mount = Self::new();
        let image = mount.root.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image file");
        run(Command::new(program).args(options).arg(&image)).expect("making a file system");
        // The device stays while the file system is mounted again and again, as a real disk does.
        let device = match run(Command::new("losetup").args(["--find", "--show"]).arg(&image)) {
            Ok(device) => device.trim().to_owned(),
            Err(why) => {
                say_skipped(&format!("there are no loop devices here ({why}): nothing was tested on {kind:?}"));
                return None;
            }
        };
        mount.device = Some(device.clone());
        match run(Command::new("mount").arg(&device).arg(mount.path())) {
            Ok(_) => mount.mounted = true,
            Err(why) => {
                say_skipped(&format!("nothing can be mounted here ({why}): nothing was tested on {kind:?}"));
                return None;
            }
        }
        Some(mount)
    }

    /// Memory of so many bytes. `None` where it cannot be had.
    pub fn memory(bytes: u64) -> Option<Self> {
        Self::new().with_memory(bytes)
    }

    /// The same over a directory that is there.
    pub fn memory_over(at: &Path, bytes: u64) -> Option<Self> {
        let mut mount = Self::new();
        at.clone_into(&mut mount.at);
        mount.with_memory(bytes)
    }

    fn with_memory(mut self, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        match run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "pitr-test"]).arg(self.path())) {
            Ok(_) => self.mounted = true,
            Err(why) => {
                say_skipped(&format!("nothing can be mounted here ({why}): no small file system was tested"));
                return None;
            }
        }
        Some(self)
    }

    fn new() -> Self {
        let root = scratch::directory();
        let at = root.path().join("mounted");
        std::fs::create_dir(&at).expect("a mount point");
        Self { root, at, device: None, mounted: false }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.at.clone()
    }

    /// What is not on the disk is lost, and every access fails from now on: nothing is flushed, not even the journal.
    pub fn cut_power(&self) {
        // The same number for ext4 and xfs: _IOR('X', 125, __u32), with "do not flush the log".
        const GOING_DOWN: libc::c_ulong = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let root = File::open(self.path()).expect("the mounted directory");
        // SAFETY: the request reads four bytes from a pointer that lives as long as the call.
        let answer = unsafe { libc::ioctl(root.as_raw_fd(), GOING_DOWN, &raw const no_log_flush) };
        assert_eq!(answer, 0, "the file system does not go down: {}", std::io::Error::last_os_error());
    }

    /// The power is back. Whoever had files open there must be gone.
    pub fn start_again(&mut self) {
        self.unmount().expect("unmounting");
        let device = self.device.clone().expect("a disk");
        run(Command::new("mount").arg(&device).arg(self.path())).expect("mounting again");
        self.mounted = true;
    }

    /// The kernel finds an error in it and turns it read-only under those who write there.
    pub fn fails_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(self.path())).expect("remounting");
        let name = self.device.as_deref().and_then(|device| device.rsplit('/').next()).expect("a disk").to_owned();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").expect("an error of the file system");
    }

    /// Turns it read-only, or back.
    pub fn remount(&self, access: Access) {
        let option = match access {
            Access::ReadWrite => "remount,rw",
            Access::ReadOnly => "remount,ro",
        };
        // Refused while a file is open for writing.
        let mut last = String::new();
        for _ in 0..500 {
            match run(Command::new("mount").args(["-o", option]).arg(self.path())) {
                Ok(_) => return,
                Err(why) => last = why,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{option}: {last}");
    }

    /// Fills it with a file of its own; [`Mount::make_room`] takes it away. What others give back meanwhile is filled, too.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a file");
        for _ in 0..10 {
            // Until there is no room for one byte more.
            for size in [1 << 20, 4096, 1] {
                let piece = vec![7; size];
                while file.write_all(&piece).is_ok() {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes away what [`Mount::fill`] put there.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the file that fills the disk");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn unmount(&mut self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..500 {
            match run(Command::new("umount").arg(self.path())) {
                Ok(_) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(why) => last = why,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(last)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && !std::thread::panicking() {
            // Somebody who still uses it is a fault of the test.
            if let Err(why) = self.unmount() {
                eprintln!("{} is still used: {why}", self.path().display());
            }
        }
        if self.mounted {
            // Gone from the tree now, and for good when the last who uses it ends.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
        if let Some(device) = &self.device {
            let _ = run(Command::new("losetup").args(["--detach", device]));
        }
    }
}

/// Whether a program is there.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [Path::new("/usr/sbin"), Path::new("/sbin")].map(Path::to_owned);
    std::env::split_paths(&path).chain(usual).any(|dir| dir.join(program).is_file())
}

/// What it says on stdout, or why it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    let output = command.output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
