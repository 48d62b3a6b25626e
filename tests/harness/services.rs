//! Object stores to test against, started on a free loopback port and stopped with the value that stands for them.
//!
//! Owns: moto (S3) and Azurite (Azure Blob Storage) as child processes. They are installed by `scripts/tools.sh` below
//! `$PITR_TOOLS` (else `$PITR_CACHE/tools`, else `~/.cache/pitr/tools`); where one is missing, [`s3`] and [`azure`] say
//! so on stderr and return `None`, and the test is skipped. Uses the standard library only: it is included by
//! `#[path]` in the tests of several crates.
#![allow(dead_code)] // every test binary uses another part

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The account and key that every Azurite knows; they are published and protect nothing.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// An account SAS for it, signed once with that key: all rights on blobs and containers until 2199.
pub const AZURE_SAS: &str = "sv=2021-08-06&ss=b&srt=sco&sp=rwdlac&se=2199-01-01T00%3A00%3A00Z&spr=https,http&sig=gHcKLCrN5IAnjt3CJ7p7CyyR6KgP%2F0fkn2k0N4lBZXc%3D";

/// A running object store; dropping it stops the process and removes its files.
pub struct ObjectStore {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Moto,
    Azurite,
}

/// moto looks whether an object is there and creates it without a lock: two of its threads can do both at once. Python then
/// switches between threads only where one of them waits.
const MOTO: &str = "import sys; sys.setswitchinterval(60); from moto.server import main; sys.exit(main())";

/// A running S3, or `None` (said on stderr) where moto is not installed.
pub fn s3() -> Option<ObjectStore> {
    ObjectStore::start(Kind::Moto)
}

/// A running Azure Blob Storage, or `None` (said on stderr) where Azurite is not installed.
pub fn azure() -> Option<ObjectStore> {
    ObjectStore::start(Kind::Azurite)
}

/// Says on stderr that a test does not run. Not by `eprintln!`: the test framework swallows that when a test passes.
pub fn say_skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("stderr");
}

/// Where `scripts/tools.sh` installs programs.
pub fn tools() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("PITR_TOOLS")
        .or_else(|| variable("PITR_CACHE").map(|cache| cache.join("tools")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("pitr/tools")))
        .unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache/pitr/tools"))
}

impl ObjectStore {
    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `?endpoint=` takes.
    pub fn endpoint(&self) -> String {
        match self.kind {
            Kind::Moto => format!("http://{}", self.address),
            Kind::Azurite => format!("http://{}/{AZURE_ACCOUNT}", self.address),
        }
    }

    /// Creates a bucket or container.
    pub fn create(&self, name: &str) {
        let target = match self.kind {
            Kind::Moto => format!("/{name}"),
            Kind::Azurite => format!("/{AZURE_ACCOUNT}/{name}?restype=container&{AZURE_SAS}"),
        };
        let answer = request(self.address, "PUT", &target).expect("the object store answers");
        assert!(answer.starts_with("HTTP/1.1 20"), "creating {name}: {answer}");
    }

    /// The archive URL for a bucket (created before) and prefix.
    pub fn url(&self, bucket: &str, prefix: &str) -> String {
        let endpoint = self.endpoint();
        match self.kind {
            Kind::Moto => format!("s3://{bucket}/{prefix}?region=us-east-1&endpoint={endpoint}"),
            Kind::Azurite => format!("azblob://{bucket}/{prefix}?endpoint={endpoint}"),
        }
    }

    /// The environment variables with which that URL works.
    pub fn variables(&self) -> Vec<(&'static str, &'static str)> {
        match self.kind {
            Kind::Moto => vec![
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "testtest"),
                ("AWS_EC2_METADATA_DISABLED", "true"),
                ("AWS_CONFIG_FILE", "/dev/null"),
            ],
            Kind::Azurite => {
                vec![("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)]
            }
        }
    }

    /// Stops the process; requests fail from now on.
    pub fn stop(&mut self) {
        // Both are servers of our own: they keep nothing that an orderly end would save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn start(kind: Kind) -> Option<Self> {
        let (name, program) = match kind {
            Kind::Moto => ("moto (S3)", tools().join("venv/bin/moto_server")),
            Kind::Azurite => ("Azurite (Azure Blob Storage)", tools().join("node_modules/.bin/azurite-blob")),
        };
        if !program.is_file() {
            say_skipped(&format!("{name} is not installed at {} (make tools installs it)", program.display()));
            return None;
        }
        // Somebody else can take the port between our finding it and the server's binding it: then try another.
        for _ in 0..5 {
            if let Some(started) = Self::try_start(kind, &program) {
                return Some(started);
            }
        }
        panic!("{name} is installed but does not start");
    }

    fn try_start(kind: Kind, program: &PathBuf) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pitr-object-store-{}-{number}", std::process::id()));
        // One of a process of the same id, which was killed.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).ok()?;
        let log = File::create(directory.join("log")).ok()?;
        let mut command = match kind {
            Kind::Moto => Command::new(program.with_file_name("python")),
            Kind::Azurite => Command::new(program),
        };
        match kind {
            Kind::Moto => command.args(["-c", MOTO, "-H", "127.0.0.1", "-p", &port.to_string()]),
            Kind::Azurite => command
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"])
                .arg(&directory)
                .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]),
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().ok()?).stderr(log).spawn().ok()?;
        let mut started = Self { kind, child, address, directory };
        let patience = Instant::now() + Duration::from_secs(120);
        while Instant::now() < patience {
            if started.child.try_wait().ok()?.is_some() {
                return None;
            }
            if request(address, "GET", "/").is_some() {
                return Some(started);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// One HTTP request without a body; the whole answer, or `None` when there was none.
fn request(address: SocketAddr, method: &str, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nx-ms-version: 2021-08-06\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}
