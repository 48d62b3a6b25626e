//! A MariaDB server whose tables are in RocksDB (MyRocks), spoken to through its own client over a Unix socket.
//!
//! Owns: the process, its data directory, and a client that inserts row after row. The binary log is on: every transaction is
//! prepared and committed in RocksDB, as where servers replicate.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{
    counted::CountedWriter,
    pitr::{text, until},
    services,
};

pub struct MyRocks {
    root: PathBuf,
    /// What the server calls its data directory: the tables' definitions, and RocksDB below it.
    pub data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl MyRocks {
    /// A new server's data in `scratch`, not running; `None` (said on stderr) where MariaDB is not installed.
    pub fn install(scratch: &Path) -> Option<Self> {
        let root = services::tools().join("mariadb");
        if !root.join("installed").is_file() {
            services::say_skipped(&format!("MariaDB is not at {} (make tools downloads it)", root.display()));
            return None;
        }
        let [data, socket, log] = ["data", "sock", "mariadb.log"].map(|name| scratch.join(name));
        let server = Self { root, data, socket, log, process: None };
        let mut install = server.command("bin/mariadb-install-db");
        install
            .arg(format!("--basedir={}", text(&server.root.join("usr"))))
            .args(["--skip-test-db", "--skip-name-resolve"]);
        let output = install.args(["--auth-root-authentication-method=normal"]).output().expect("mariadb-install-db");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(server)
    }

    /// RocksDB's directory.
    pub fn database(&self) -> PathBuf {
        self.data.join("#rocksdb")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join("usr").join(program));
        command.env("LD_LIBRARY_PATH", self.root.join("usr/lib/x86_64-linux-gnu")).stdin(Stdio::null());
        command.arg("--no-defaults");
        if program != "bin/mariadb" {
            command.arg(format!("--datadir={}", text(&self.data)));
            if rustix::process::geteuid().is_root() {
                command.arg("--user=root");
            }
        }
        command
    }

    /// Starts it, with more options, and waits until it answers.
    pub fn start(&mut self, more: &[&str]) {
        self.begin(more);
        until("MariaDB's first answer", || {
            let ended = self.process.as_mut().expect("started").try_wait().expect("its state");
            assert!(ended.is_none(), "mariadbd ended: {}", self.said());
            self.try_sql("SELECT 1").ok()
        });
    }

    /// Starts it with options that make it end by itself, and waits for that.
    pub fn start_to_end(&mut self, more: &[&str]) {
        self.begin(more);
        let mut process = self.process.take().expect("it was started");
        until("MariaDB's end", || process.try_wait().expect("its state"));
    }

    fn begin(&mut self, more: &[&str]) {
        let usr = self.root.join("usr");
        let log = File::create(&self.log).expect("a log");
        let mut command = self.command("sbin/mariadbd");
        command
            .arg(format!("--basedir={}", text(&usr)))
            .arg(format!("--socket={}", text(&self.socket)))
            .arg(format!("--plugin-dir={}", text(&usr.join("lib/mysql/plugin"))))
            .arg(format!("--lc-messages-dir={}", text(&usr.join("share/mysql"))))
            .args(["--skip-networking", "--plugin-load-add=ha_rocksdb.so", "--innodb-buffer-pool-size=8M"])
            .args(["--log-bin=binary-log", "--server-id=1", "--default-storage-engine=rocksdb"])
            .args(more);
        self.process = Some(command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("mariadbd"));
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let id = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("SIGTERM");
        until("MariaDB's end", || process.try_wait().expect("its state"));
    }

    /// What it has said since it was started.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn client(&self) -> Command {
        let mut command = self.command("bin/mariadb");
        command.arg(format!("--socket={}", text(&self.socket)));
        command.args(["-uroot", "--batch", "--skip-column-names", "--unbuffered"]);
        command
    }

    /// The client as a shell calls it.
    pub fn client_line(&self) -> String {
        let usr = self.root.join("usr");
        format!(
            "LD_LIBRARY_PATH='{0}/lib/x86_64-linux-gnu' '{0}/bin/mariadb' --no-defaults --socket='{1}' -uroot",
            text(&usr),
            text(&self.socket)
        )
    }

    /// Rows, or what the server says against it.
    pub fn try_sql(&self, statement: &str) -> Result<Vec<String>, String> {
        let output = self.client().args(["-e", statement]).output().expect("the client");
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub fn sql(&self, statement: &str) -> Vec<String> {
        self.try_sql(statement).unwrap_or_else(|e| panic!("{statement}: {e}\n{}", self.said()))
    }

    /// Inserts the rows 0, 1, 2 and so on into a table `(n INT PRIMARY KEY, v ...)`, each in a transaction of its own, until the
    /// server is gone.
    pub fn write_on(&self, table: &str) -> CountedWriter {
        let mut client = self.client().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client");
        let mut statements = client.stdin.take().expect("its input");
        let mut answers = BufReader::new(client.stdout.take().expect("its output"));
        let table = table.to_owned();
        CountedWriter::start(move |n| {
            let mut answer = String::new();
            let asked = writeln!(statements, "INSERT INTO {table} VALUES ({n}, REPEAT('x', 100)); SELECT {n};");
            if asked.is_ok() && answers.read_line(&mut answer).unwrap_or(0) > 0 {
                return Some(());
            }
            let _ = client.wait();
            None
        })
    }
}

impl Drop for MyRocks {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
