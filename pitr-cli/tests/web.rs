//! A service seen from outside, as operators, Prometheus, browsers and systemd meet it.
//!
//! Every test runs the built program on a real database; every process is ended by its own handle, and every wait is bounded.

mod shared;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use rocksdb::DB;
use serde_json::Value;
use shared::{database, json, path, pitr, run, until};

/// A service of ours with the lines of its log; told to end, or killed with its test.
struct Service {
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    first: mpsc::Receiver<SocketAddr>,
}

impl Service {
    /// Starts it with a log of JSON lines, which are checked to be such.
    fn start(command: &mut Command) -> Self {
        let mut child = command.arg("--log-format").arg("json").spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("its log"));
        let (found, first) = mpsc::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event: Option<Value> = serde_json::from_str(&line).ok();
                let address =
                    event.as_ref().and_then(|e| e["address"].as_str()?.strip_prefix("http://")?.strip_suffix('/'));
                if let Some(address) = address.and_then(|a| a.parse().ok()) {
                    let _ = found.send(address);
                }
                lines.lock().expect("the log").push(line);
            }
        });
        Self { child: Some(child), log, first }
    }

    fn address(&self) -> SocketAddr {
        self.first.recv_timeout(Duration::from_secs(30)).expect("an address in the log")
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    fn tell_to_end(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).expect("a signal");
    }

    fn stop(self) -> Vec<String> {
        self.tell_to_end();
        self.ended()
    }

    /// Its log, once it has ended well.
    fn ended(mut self) -> Vec<String> {
        let ended = self.child.take().expect("stopped once").wait().expect("its end");
        let log = self.log.lock().expect("the log").clone();
        assert!(ended.success(), "{log:#?}");
        log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A database that is archived into a directory beside it, with a segment ten times a second.
struct Watched {
    db: DB,
    db_path: String,
    archive: String,
    service: Service,
}

impl Watched {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let db = database(dir, "db");
        let (db_path, archive) = (path(dir, "db"), format!("file:{}", path(dir, "archive")));
        let mut command = pitr(&["run", "--db", &db_path, "--archive", &archive, "--interval", "100ms"]);
        let service = Service::start(command.args(options));
        Self { db, db_path, archive, service }
    }
}

/// One request; status, head and body.
fn request(address: SocketAddr, text: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    stream.write_all(text.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    (status, body)
}

fn status(address: SocketAddr) -> Value {
    let (code, body) = get(address, "/status");
    assert_eq!(code, 200);
    serde_json::from_str(&body).expect("JSON")
}

/// A metric's value: of the only series with this name, or the one that has all of these labels.
fn metric(address: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    let (code, body) = get(address, "/metrics");
    assert!(code == 200 && body.ends_with("# EOF\n"), "{body}");
    let series = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|l| line.contains(l))
    };
    body.lines().find(series).and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse().expect("a number"))
}

fn reasons(body: &str) -> Vec<String> {
    let verdict: Value = serde_json::from_str(body).expect("JSON");
    let all = verdict["reasons"].as_array().cloned().unwrap_or_default();
    all.iter().map(|r| r["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A document without a loose end: every element is closed by its own name, every attribute quoted.
fn well_formed(document: &str) {
    let mut reader = quick_xml::Reader::from_str(document);
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => return,
            Ok(quick_xml::events::Event::Start(e) | quick_xml::events::Event::Empty(e)) => {
                assert!(e.attributes().all(|a| a.is_ok()), "{e:?}");
            }
            Ok(_) => {}
            Err(e) => panic!("at {}: {e}", reader.buffer_position()),
        }
    }
}

#[test]
fn metrics_json_and_page_say_what_the_archiver_does_and_what_can_be_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    let Watched { db, db_path, archive, service } =
        Watched::start(dir.path(), &["--http", "0", "--ready-max-lag", "30s"]);
    let address = service.address();
    assert!(address.ip().is_loopback(), "a port alone is one of loopback");
    assert_eq!(get(address, "/healthz").0, 200);
    until("readiness", || (get(address, "/readyz").0 == 200).then_some(()));

    for n in 0..50 {
        db.put(format!("key-{n}"), "value").expect("a write");
    }
    let flushed = json(&run(&["flush", "--json", "--db", &db_path]));
    json(&run(&["tag", "create", "before", "--json", "--db", &db_path, "--note", "<b>&\"'"]));
    let asked = json(&run(&["base", "--json", "--db", &db_path]));
    let base = asked["id"].as_str().expect("a name");

    // What was counted is what pitr status says.
    let sequence = flushed["position"]["sequence"].as_f64().expect("a number");
    let own = until("the picture with it", || {
        (metric(address, "pitr_acknowledged_sequence", &[]) >= Some(sequence)).then(|| status(address))
    });
    let told = json(&run(&["status", "--json", "--db", &db_path, "--archive", &archive]));
    let one = &own["archivers"][0];
    assert_eq!(one["archiver"]["acknowledged"], told["archiver"]["acknowledged"]);
    assert_eq!((&one["database"], &one["state"]), (&db_path.as_str().into(), &"running".into()));
    assert_eq!(metric(address, "pitr_archiver_state", &["state=\"running\""]), Some(1.0));
    assert_eq!(
        metric(address, "pitr_archived_records_total", &[]),
        told["archiver"]["acknowledged"]["boundary"].as_f64()
    );
    assert_eq!(metric(address, "pitr_tags_created_total", &[]), Some(1.0));
    assert!(
        metric(address, "pitr_bases_published_total", &[]) >= Some(2.0),
        "the first, and the one that was asked for"
    );
    assert!(metric(address, "pitr_base_age_seconds", &[]).is_some_and(|age| age < 600.0));
    assert!(metric(address, "pitr_store_requests_total", &["request=\"put\""]) > Some(2.0));
    assert!(metric(address, "pitr_store_request_duration_seconds_count", &["request=\"put\""]) > Some(2.0));
    assert!(metric(address, "pitr_delivery_duration_seconds_count", &[]) >= Some(1.0));
    assert_eq!(metric(address, "pitr_ready", &[]), Some(1.0));

    // The page has them as soon as the catalog has been read again.
    let page = until("the base and the tag on the page", || {
        let (code, page) = get(address, "/");
        assert_eq!(code, 200);
        (page.contains(base) && page.contains("<title>tag before")).then_some(page)
    });
    well_formed(&page);
    assert!(page.contains("&lt;b&gt;&amp;&quot;&#39;") && !page.contains("<b>&"), "{page}");
    let listed = json(&run(&["list", "--json", "--archive", &archive]));
    let bases = listed["bases"].as_array().map_or(0, Vec::len);
    assert_eq!(page.matches("<g class=\"base\"><title>").count(), bases);
    assert_eq!(metric(address, "pitr_archive_tags", &[]), Some(1.0));
    assert!(metric(address, "pitr_restorable_window_seconds", &[]).is_some());

    // Nobody's reading asks the store for anything.
    let lists = || metric(address, "pitr_store_requests_total", &["request=\"list\""]);
    let before = until("quiet", || {
        let one = lists();
        std::thread::sleep(Duration::from_millis(2_500));
        (lists() == one).then_some(one)
    });
    for _ in 0..50 {
        get(address, "/");
    }
    assert_eq!(lists(), before);

    let (code, head, _) = request(address, "POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(code == 405 && head.contains("allow: get, head"), "{head}");
    let (code, head, body) = request(address, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(code == 200 && head.contains("openmetrics-text") && body.is_empty(), "{head}{body}");
    let log = service.stop();
    assert!(log.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("\"database\":")), "each line says whose it is: {log:#?}");
}

#[test]
fn a_service_is_not_ready_while_its_store_is_away_and_ready_again_behind_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let Watched { db, db_path, service, .. } =
        Watched::start(dir.path(), &["--http", "localhost:0", "--ready-max-lag", "1s"]);
    let address = service.address();
    until("readiness", || (get(address, "/readyz").0 == 200).then_some(()));

    fs::rename(dir.path().join("archive"), dir.path().join("away")).expect("the store goes");
    db.put("second", "while it is away").expect("a write");
    until("both reasons", || {
        let (code, body) = get(address, "/readyz");
        let reasons = reasons(&body);
        (code == 503 && reasons.iter().any(|r| r == "store") && reasons.iter().any(|r| r == "lag")).then_some(())
    });
    assert_eq!(get(address, "/healthz").0, 200, "a new process would not bring the store back");
    assert!(metric(address, "pitr_store_errors_total", &["request=\"put\""]) >= Some(1.0));
    assert!(metric(address, "pitr_lag_seconds", &[]) > Some(1.0));
    assert!(get(address, "/").1.contains("class=\"verdict bad\""));

    // Somebody waits for the store with a tag: what is seen stays true meanwhile.
    let mut waiting = pitr(&["tag", "create", "patient", "--db", &db_path]).spawn().expect("the program starts");
    let lag = metric(address, "pitr_lag_seconds", &[]);
    until("a lag that grows", || (metric(address, "pitr_lag_seconds", &[]) > lag.map(|lag| lag + 1.0)).then_some(()));
    until("a loop that turns", || (metric(address, "pitr_archiver_loop_age_seconds", &[]) < Some(5.0)).then_some(()));

    fs::rename(dir.path().join("away"), dir.path().join("archive")).expect("the store comes back");
    until("readiness", || (get(address, "/readyz").0 == 200).then_some(()));
    assert!(waiting.wait().expect("its end").success(), "the tag was made when the store was back");
    assert_eq!(metric(address, "pitr_lag_seconds", &[]), Some(0.0));
    service.stop();
}

#[test]
fn one_page_shows_all_databases_of_a_configuration_and_the_one_that_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(["one", "two"].map(|name| database(dir.path(), name)));
    let entry = |name: &str, more: &str| {
        let (db, archive) = (path(dir.path(), name), path(dir.path(), &format!("{name}-archive")));
        format!("[databases.{name}]\ndb = \"{db}\"\narchive.url = \"file:{archive}\"\n{more}")
    };
    // The second archive is there, without a key.
    let two = format!("file:{}", path(dir.path(), "two-archive"));
    json(&run(&["run", "--once", "--json", "--db", &path(dir.path(), "two"), "--archive", &two]));
    let file = path(dir.path(), "pitr.toml");
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n{}{}",
        entry("one", ""),
        entry("two", "archive.key = \"env:KEY_OF_TWO\"\n")
    );
    fs::write(&file, text).expect("a file");
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let service = Service::start(pitr(&["run", "--config", &file]).env("KEY_OF_TWO", key));
    let address = service.address();
    until("both databases' fates", || {
        let state = |name: &str, state: &str| {
            let labels = [format!("database=\"{name}\""), format!("state=\"{state}\"")];
            metric(address, "pitr_archiver_state", &[&labels[0], &labels[1]]) == Some(1.0)
        };
        (state("one", "running") && state("two", "given-up")).then_some(())
    });
    let (code, body) = get(address, "/readyz");
    assert!(code == 503 && body.contains("key.unexpected") && body.contains("\"two\""), "{body}");
    let page = get(address, "/").1;
    well_formed(&page);
    assert!(page.contains("<h2>one<") && page.contains("<h2>two<") && !page.contains(key), "{page}");
    assert_eq!(status(address)["archivers"][1]["error"]["code"], "key.unexpected");
    assert!(
        service.log.lock().expect("the log").iter().any(|line| line.contains("\"DEBUG\"")),
        "[log] level is followed"
    );
}

#[test]
fn an_address_that_is_taken_is_an_error_before_anything_is_archived() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(database(dir.path(), "db"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (db_path, archive) = (path(dir.path(), "db"), format!("file:{}", path(dir.path(), "archive")));
    let output =
        run(&["run", "--json", "--log-level", "error", "--db", &db_path, "--archive", &archive, "--http", &address]);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((output.status.code(), &error["code"]), (Some(2), &"http.listen".into()), "{error}");
    assert!(!dir.path().join("archive").exists());
}

#[test]
fn clients_that_say_nothing_hold_up_neither_others_nor_the_archiver() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "db");
    let (db_path, archive) = (path(dir.path(), "db"), format!("file:{}", path(dir.path(), "archive")));
    let service = Service::start(&mut pitr(&["run", "--db", &db_path, "--archive", &archive, "--http", "0"]));
    let address = service.address();
    until("the archiver", || run(&["flush", "--db", &db_path]).status.success().then_some(()));
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    db.put("second", "write").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &db_path]));
    assert_eq!(flushed["position"]["sequence"], db.latest_sequence_number());
    // They are told to go after some seconds.
    assert_eq!(get(address, "/healthz").0, 200);
    drop(silent);
    service.stop();
}

/// A service with somebody who listens like a service manager, and wants to hear from it every four seconds.
fn managed(dir: &Path, options: &[&str]) -> (UnixDatagram, Service) {
    drop(database(dir, "db"));
    let (db_path, archive) = (path(dir, "db"), format!("file:{}", path(dir, "archive")));
    let place = dir.join("notify");
    let socket = UnixDatagram::bind(&place).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    let mut command = pitr(&["run", "--db", &db_path, "--archive", &archive]);
    command.args(options).env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "4000000");
    (socket, Service::start(&mut command))
}

/// What a service manager hears, message by message.
fn hear(socket: &UnixDatagram, until: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    for _ in 0..2_000 {
        let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{until}: {e}; heard {all:?}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        all.extend(message.lines().map(ToOwned::to_owned));
        if all.iter().any(|line| line.starts_with(until)) {
            return all;
        }
    }
    panic!("{until}: {all:?}");
}

#[test]
fn systemd_hears_that_it_is_ready_that_it_turns_and_that_it_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, service) = managed(dir.path(), &[]);
    hear(&socket, "READY=1");
    hear(&socket, "WATCHDOG=1");
    service.tell_to_end();
    let heard = hear(&socket, "STOPPING=1");
    assert!(!heard.contains(&"READY=1".to_owned()), "once is enough: {heard:?}");
    service.ended();
}

#[test]
fn a_loop_that_hangs_feeds_no_watchdog_although_the_process_lives() {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, service) = managed(dir.path(), &["--http", "0"]);
    let address = service.address();
    hear(&socket, "WATCHDOG=1");
    // What would be the next log is a pipe into which nobody writes: opening it waits for ever.
    let pipe = dir.path().join("db/999999.log");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .expect("a pipe");
    until("a loop that does not turn", || {
        (metric(address, "pitr_archiver_loop_age_seconds", &[]) > Some(6.0)).then_some(())
    });
    let mut buffer = [0; 4096];
    socket.set_nonblocking(true).expect("no waiting");
    while socket.recv(&mut buffer).is_ok() {}
    until("a loop that does not turn for longer", || {
        (metric(address, "pitr_archiver_loop_age_seconds", &[]) > Some(10.0)).then_some(())
    });
    while let Ok(length) = socket.recv(&mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        assert!(!message.contains("WATCHDOG=1"), "{message}");
    }
    assert!(metric(address, "pitr_lag_seconds", &[]) > Some(6.0), "nobody knows what was written since");
}

#[test]
fn the_unit_file_is_one_that_systemd_takes_and_its_configuration_one_that_pitr_takes() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let dir = tempfile::tempdir().expect("a directory");
    let unit = fs::read_to_string(packaging.join("pitr.service")).expect("the unit file");
    for line in ["Type=notify", "WatchdogSec=", "ReadWritePaths=/var/lib/orders", "User=rocksdb"] {
        assert!(unit.contains(line), "{line}");
    }
    // As it is shipped, with the program that was built.
    let here = unit.replace("/usr/bin/pitr", env!("CARGO_BIN_EXE_pitr"));
    let place = dir.path().join("pitr.service");
    fs::write(&place, here).expect("a file");
    match Command::new("systemd-analyze").arg("verify").arg(&place).output() {
        Ok(verified) => {
            let words = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success() && words.trim().is_empty(), "{words}");
        }
        Err(e) => eprintln!("SKIPPED: the unit file is not verified: systemd-analyze: {e}"),
    }
    // Its database and key are not on this machine; everything before that is right.
    let shown = json(&run(&["config", "show", "--json", &packaging.join("pitr.toml").display().to_string()]));
    assert_eq!(shown["config"]["http"]["listen"], "127.0.0.1:9598");
    assert_eq!(shown["config"]["log"]["format"], "json");
}
