//! An Oxigraph server, spoken to over HTTP.
//!
//! Owns: the process, and the knowledge of what it must contain after the n-th update. Update `n` inserts one triple;
//! every fifth takes the one before the last away again, so that a state is not just a prefix of insertions.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    counted::CountedWriter,
    pitr::{kill_9, text, until},
    services,
};

/// The program, or `None` (said on stderr) where it is not installed.
pub fn program() -> Option<PathBuf> {
    let program = services::tools().join("venv/bin/oxigraph");
    if program.is_file() {
        return Some(program);
    }
    services::say_skipped(&format!("Oxigraph is not installed at {} (make tools installs it)", program.display()));
    None
}

pub struct Oxigraph {
    child: Child,
    address: SocketAddr,
}

impl Oxigraph {
    pub fn start(program: &Path, location: &Path) -> Self {
        let log = location.with_extension("server-log");
        for _ in 0..5 {
            // Somebody may take the port between our finding it and the server's binding it: then the next.
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let log = File::create(&log).expect("a log");
            let mut child = Command::new(program)
                .args(["serve", "--location", text(location), "--bind", &address.to_string()])
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log)
                .spawn()
                .expect("starting Oxigraph");
            let answers = until("Oxigraph's first answer", || match child.try_wait().expect("its state") {
                Some(_) => Some(false),
                None => {
                    post(address, "/update", "application/sparql-update", "INSERT DATA {}").is_some().then_some(true)
                }
            });
            if answers {
                return Self { child, address };
            }
        }
        panic!("Oxigraph does not start: {}", std::fs::read_to_string(log).unwrap_or_default());
    }

    pub fn update(&self, sparql: &str) {
        update(self.address, sparql).expect("an update of a living server");
    }

    /// The bulk loader: it flushes, so that the server goes on in another write-ahead log, here a recycled one.
    pub fn bulk_load(&self, triples: &str) {
        let path = "/store?no_transaction=true&default";
        post(self.address, path, "application/n-triples", triples).expect("a bulk load");
    }

    pub fn count(&self) -> u64 {
        let query = "SELECT (COUNT(*) AS ?n) { ?s ?p ?o }";
        let answer = post(self.address, "/query", "application/sparql-query", query).expect("a query");
        // JSON, XML or CSV: the one number in a quoted or bare form is the count.
        let at = answer.find("\"value\"").unwrap_or_else(|| panic!("no count in {answer}"));
        answer[at + 7..]
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .expect("a count")
    }

    pub fn kill_9(&mut self) {
        kill_9(&mut self.child);
    }

    /// Writes updates one after the other until the server is gone.
    pub fn write_on(&self) -> CountedWriter {
        let address = self.address;
        CountedWriter::start(move |n| update(address, &nth_update(n)))
    }
}

impl Drop for Oxigraph {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nth_update(n: u64) -> String {
    let insert = format!("INSERT DATA {{ <http://example.com/{n}> <http://example.com/is> \"value {n}\" }}");
    match taken_away_by(n) {
        Some(gone) => {
            format!("{insert}; DELETE DATA {{ <http://example.com/{gone}> <http://example.com/is> \"value {gone}\" }}")
        }
        None => insert,
    }
}

fn taken_away_by(n: u64) -> Option<u64> {
    (n % 5 == 4).then(|| n - 2)
}

/// What the database holds of the client's after `updates` updates, as lines of a query's answer.
pub fn model(updates: u64) -> BTreeSet<String> {
    let taken: BTreeSet<u64> = (0..updates).filter_map(taken_away_by).collect();
    (0..updates).filter(|n| !taken.contains(n)).map(|n| format!("http://example.com/{n},value {n}")).collect()
}

/// How many updates a restored directory holds, asked of Oxigraph's own command; their contents must be exactly those.
pub fn updates_in(program: &Path, location: &Path) -> u64 {
    let lines = query(program, location, "SELECT ?s ?o { ?s <http://example.com/is> ?o }");
    // The last update is always there: only a later one takes it away.
    let updates =
        lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).max().map_or(0, |last| last + 1);
    let found: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(found.len(), lines.len(), "a triple twice");
    assert_eq!(found, model(updates), "not a state that the database ever had");
    updates
}

pub fn query(program: &Path, location: &Path, query: &str) -> Vec<String> {
    let output = Command::new(program)
        .args(["query", "--location", text(location), "--query", query, "--results-format", "csv"])
        .stdin(Stdio::null())
        .output()
        .expect("running oxigraph query");
    assert!(output.status.success(), "oxigraph query: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().skip(1).map(str::to_owned).collect()
}

fn update(address: SocketAddr, sparql: &str) -> Option<()> {
    post(address, "/update", "application/sparql-update", sparql).map(|_| ())
}

/// One request, the body of the answer; `None` where the server is not there or did not say 2xx.
fn post(address: SocketAddr, path: &str, kind: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nAccept: application/sparql-results+json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.starts_with("HTTP/1.1 2").then(|| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))?
}
