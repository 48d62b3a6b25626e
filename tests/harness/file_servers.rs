//! Servers of files to test against, started on free loopback ports and stopped with the value that stands for them.
//!
//! Owns: a real HDFS (`NameNode` and `DataNode`) and OpenSSH's sshd as child processes. They are installed by
//! `scripts/tools.sh`; where one is missing, [`hdfs`] and [`ssh`] say so on stderr and return `None`, and the test is
//! skipped. sshd asks for a user of its own when it runs as root; as root it is started as `nobody` instead.
#![allow(dead_code)] // every test binary uses another part

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::services::{say_skipped, tools};

const PATIENCE: Duration = Duration::from_secs(120);
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn logged(command: &mut Command, log: &Path) -> Child {
    let log = File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn stop(child: &mut Child) {
    // Servers of our own: they keep nothing that an orderly end would save.
    let _ = child.kill();
    let _ = child.wait();
}

/// A running HDFS with blocks of 4 MiB.
pub struct Hdfs {
    name_node: Child,
    data_node: Child,
    port: u16,
    directory: tempfile::TempDir,
}

/// A running HDFS, or `None` (said on stderr) where it is not installed.
pub fn hdfs() -> Option<Hdfs> {
    let jars = tools().join("hdfs");
    let java = Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !jars.join("installed").is_file() || !java.is_ok_and(|status| status.success()) {
        say_skipped(&format!("HDFS (or java) is not installed at {} (make tools installs it)", jars.display()));
        return None;
    }
    // Somebody else can take a port between our finding it and the server's binding it: then try another.
    for _ in 0..3 {
        if let Some(started) = Hdfs::try_start(&jars) {
            return Some(started);
        }
    }
    panic!("HDFS is installed but does not start");
}

impl Hdfs {
    /// The archive URL of a directory.
    pub fn url(&self, path: &str) -> String {
        format!("hdfs://127.0.0.1:{}/{path}", self.port)
    }

    /// Requests fail from now on.
    pub fn stop(&mut self) {
        stop(&mut self.data_node);
        stop(&mut self.name_node);
    }

    fn try_start(jars: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let (port, http) = (free_port(), free_port());
        // The servers look for pages to show over HTTP; empty ones will do.
        for pages in ["hdfs", "datanode"] {
            fs::create_dir_all(at.join("conf/webapps").join(pages)).unwrap();
        }
        let properties = |list: &[(&str, String)]| {
            let all = list.iter().map(|(k, v)| format!("<property><name>{k}</name><value>{v}</value></property>"));
            format!("<configuration>{}</configuration>", all.collect::<String>())
        };
        let core = properties(&[("fs.defaultFS", format!("hdfs://127.0.0.1:{port}"))]);
        fs::write(at.join("conf/core-site.xml"), core).unwrap();
        let hdfs = properties(&[
            ("dfs.namenode.name.dir", format!("file:{}", at.join("name").display())),
            ("dfs.datanode.data.dir", format!("file:{}", at.join("data").display())),
            ("dfs.namenode.http-address", format!("127.0.0.1:{http}")),
            ("dfs.datanode.address", "127.0.0.1:0".to_owned()),
            ("dfs.datanode.http.address", "127.0.0.1:0".to_owned()),
            ("dfs.datanode.ipc.address", "127.0.0.1:0".to_owned()),
            ("dfs.replication", "1".to_owned()),
            ("dfs.blocksize", (4 << 20).to_string()),
            ("dfs.webhdfs.enabled", "false".to_owned()),
        ]);
        fs::write(at.join("conf/hdfs-site.xml"), hdfs).unwrap();
        fs::write(
            at.join("conf/log4j.properties"),
            "log4j.rootLogger=INFO,c\nlog4j.appender.c=org.apache.log4j.ConsoleAppender\n\
             log4j.appender.c.layout=org.apache.log4j.PatternLayout\n\
             log4j.appender.c.layout.ConversionPattern=%p %c{1}: %m%n\n",
        )
        .unwrap();
        let java = |arguments: &[&str]| {
            let mut command = Command::new("java");
            command.arg("-Xmx256m");
            for package in ["java.lang", "java.util", "java.net", "java.nio", "java.io", "sun.nio.ch"] {
                command.arg("--add-opens").arg(format!("java.base/{package}=ALL-UNNAMED"));
            }
            let path = format!("{}:{}/*", at.join("conf").display(), jars.display());
            command.arg("-cp").arg(path).args(arguments).current_dir(at);
            command
        };
        let name_node = "org.apache.hadoop.hdfs.server.namenode.NameNode";
        let formatted = logged(&mut java(&[name_node, "-format", "-nonInteractive"]), &at.join("format.log")).wait();
        assert!(formatted.unwrap().success(), "{}", fs::read_to_string(at.join("format.log")).unwrap_or_default());
        let log = at.join("name-node.log");
        let name_node = logged(&mut java(&[name_node]), &log);
        let data_node =
            logged(&mut java(&["org.apache.hadoop.hdfs.server.datanode.DataNode"]), &at.join("data-node.log"));
        let mut started = Self { name_node, data_node, port, directory };
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if started.name_node.try_wait().ok()?.is_some() || started.data_node.try_wait().ok()?.is_some() {
                return None;
            }
            // Files can be written when the DataNode has told what it holds.
            if fs::read_to_string(&log).is_ok_and(|text| text.contains("processReport: from storage")) {
                return Some(started);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Hdfs {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A running SSH server, and a client's configuration for it.
pub struct Ssh {
    server: Child,
    port: u16,
    user: String,
    directory: tempfile::TempDir,
}

/// A running SSH server, or `None` (said on stderr) where there is none.
pub fn ssh() -> Option<Ssh> {
    let unpacked = tools().join("openssh/usr/sbin/sshd");
    let program = [PathBuf::from("/usr/sbin/sshd"), unpacked].into_iter().find(|path| path.is_file());
    let client = Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let (Some(program), true) = (program, client) else {
        say_skipped("sshd (or ssh) is not installed (make tools installs sshd)");
        return None;
    };
    for _ in 0..3 {
        if let Some(started) = Ssh::try_start(&program) {
            return Some(started);
        }
    }
    panic!("sshd is installed but does not start");
}

impl Ssh {
    /// The archive URL of a directory below [`Ssh::files`].
    pub fn url(&self, path: &str) -> String {
        format!("sftp://{}@127.0.0.1:{}{}/{path}", self.user, self.port, self.files().display())
    }

    /// Where the served files are.
    pub fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// A directory with a program `ssh` that is the real one with a configuration of its own: before anything else in
    /// `PATH`, nothing of the user's is read or changed.
    pub fn programs(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// The client's key; another one is not let in.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("client")
    }

    /// From now on the client does not know the server.
    pub fn forget_host(&self) {
        fs::write(self.directory.path().join("known_hosts"), "").unwrap();
    }

    fn try_start(program: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let port = free_port();
        // temp directories are private, and the server may be somebody else.
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for key in ["host", "client"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at.join(key)).status();
            assert!(made.unwrap().success());
        }
        fs::copy(at.join("client.pub"), at.join("authorized_keys")).unwrap();
        let host = fs::read_to_string(at.join("host.pub")).unwrap();
        fs::write(at.join("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        fs::create_dir(at.join("files")).unwrap();
        fs::create_dir(at.join("bin")).unwrap();
        let shown = at.display();
        fs::write(
            at.join("client_config"),
            format!(
                "Host *\nUserKnownHostsFile {shown}/known_hosts\nGlobalKnownHostsFile /dev/null\nIdentityFile {shown}/client\n\
                 IdentitiesOnly yes\nIdentityAgent none\n"
            ),
        )
        .unwrap();
        let real = Command::new("sh").args(["-c", "command -v ssh"]).output().unwrap().stdout;
        let real = String::from_utf8(real).unwrap();
        let wrapper = at.join("bin/ssh");
        fs::write(&wrapper, format!("#!/bin/sh\nexec {} -F {shown}/client_config \"$@\"\n", real.trim())).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(
            at.join("sshd_config"),
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\n\
                 PidFile none\nUsePAM yes\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 MaxStartups 100\nSubsystem sftp internal-sftp\n"
            ),
        )
        .unwrap();
        // An unpacked sshd brings a library, and may lie where the server's user cannot look.
        let program = &if program.starts_with(tools()) {
            let own = at.join("sshd");
            fs::copy(program, &own).unwrap();
            fs::create_dir(at.join("lib")).unwrap();
            let libraries = fs::read_dir(tools().join("openssh/usr/lib")).unwrap().flatten();
            for file in libraries.filter_map(|e| fs::read_dir(e.path()).ok()).flatten().flatten() {
                if file.path().is_file() {
                    fs::copy(file.path(), at.join("lib").join(file.file_name())).unwrap();
                }
            }
            own
        } else {
            program.to_owned()
        };
        let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
        let mut command = if root {
            for owned in ["host", "files"] {
                chown(at.join(owned), Some(NOBODY), Some(NOBODY)).unwrap();
            }
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env("LD_LIBRARY_PATH", at.join("lib"));
        command.args(["-D", "-e", "-f"]).arg(at.join("sshd_config"));
        let user = if root { "nobody".to_owned() } else { std::env::var("USER").unwrap_or_default() };
        let server = logged(&mut command, &at.join("log"));
        let mut started = Self { server, port, user, directory };
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if started.server.try_wait().ok()?.is_some() {
                return None;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(started);
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        stop(&mut self.server);
    }
}
