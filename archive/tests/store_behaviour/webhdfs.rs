//! WebHDFS. A real one cannot be installed here without Hadoop's own distribution, so what is tried is the wire: the server
//! below answers as Hadoop's documentation of the REST interface says, from files in memory, and refuses every request
//! that it does not describe.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use pitr_archive::{
    code::Code,
    store::{
        Put,
        url::{OpenOptions, open},
    },
};

use crate::suite::{self, key};

/// Files by path, and every request line.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    seen: Vec<String>,
    /// Requests with this in their line get this answer instead.
    instead: Option<(&'static str, u16, &'static str)>,
}

fn server() -> (SocketAddr, Arc<Mutex<State>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let state = Arc::clone(&shared);
            thread::spawn(move || serve(client, address, &state));
        }
    });
    (address, state)
}

fn serve(mut client: TcpStream, address: SocketAddr, state: &Mutex<State>) -> Option<()> {
    let mut from = BufReader::new(client.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if from.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|v| v.trim().parse().ok());
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            loop {
                let mut size = String::new();
                from.read_line(&mut size).ok()?;
                let size = u64::from_str_radix(size.trim(), 16).ok()?;
                from.by_ref().take(size).read_to_end(&mut body).ok()?;
                from.read_line(&mut String::new()).ok()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            from.by_ref().take(length.unwrap_or(0)).read_to_end(&mut body).ok()?;
        }
        let line = head.lines().next()?;
        let (status, answer) = respond(line, body, address, &mut *state.lock().ok()?);
        write!(client, "HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n\r\n", answer.len()).ok()?;
        client.write_all(&answer).ok()?;
    }
}

fn exception(status: u16, name: &str) -> (u16, Vec<u8>) {
    let json = format!(
        r#"{{"RemoteException":{{"exception":"{name}","javaClassName":"org.apache.hadoop.fs.{name}","message":"said the server"}}}}"#
    );
    (status, json.into_bytes())
}

fn status_of(suffix: &str, file: Option<&[u8]>) -> String {
    let (kind, length) = file.map_or(("DIRECTORY", 0), |f| ("FILE", f.len()));
    format!(
        r#"{{"accessTime":0,"blockSize":0,"group":"g","length":{length},"modificationTime":1320173277227,"owner":"o","pathSuffix":"{suffix}","permission":"644","replication":1,"type":"{kind}"}}"#
    )
}

fn respond(line: &str, body: Vec<u8>, address: SocketAddr, state: &mut State) -> (u16, Vec<u8>) {
    state.seen.push(line.to_owned());
    if let Some((words, status, name)) = state.instead
        && line.contains(words)
    {
        return exception(status, name);
    }
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return exception(400, "IllegalRequest") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix("/webhdfs/v1").unwrap_or(path).replace("//", "/");
    let path = path.trim_end_matches('/').to_owned();
    let options: BTreeMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let get = |name: &str| options.get(name).copied().unwrap_or_default();
    let below = format!("{path}/");
    let is_directory = |state: &State, path: &str| {
        let below = format!("{path}/");
        path.is_empty() || state.files.keys().any(|file| file.starts_with(&below))
    };
    let ok = |json: &str| (200, json.as_bytes().to_vec());
    let location = || ok(&format!(r#"{{"Location":"http://{address}/webhdfs/v1{path}?op={}&data=true"}}"#, get("op")));
    match (method, get("op"), get("data")) {
        ("GET", "GETFILESTATUS", _) => match state.files.get(&path) {
            Some(file) => ok(&format!(r#"{{"FileStatus":{}}}"#, status_of("", Some(file)))),
            None if is_directory(state, &path) => ok(&format!(r#"{{"FileStatus":{}}}"#, status_of("", None))),
            None => exception(404, "FileNotFoundException"),
        },
        ("GET", "LISTSTATUS", _) if is_directory(state, &path) => {
            let mut entries = BTreeMap::new();
            for (name, file) in state.files.iter().filter_map(|(k, f)| Some((k.strip_prefix(&below)?, f))) {
                match name.split_once('/') {
                    Some((directory, _)) => entries.insert(directory.to_owned(), status_of(directory, None)),
                    None => entries.insert(name.to_owned(), status_of(name, Some(file))),
                };
            }
            let all: Vec<_> = entries.into_values().filter(|e| !e.contains(r#""pathSuffix":".d""#)).collect();
            ok(&format!(r#"{{"FileStatuses":{{"FileStatus":[{}]}}}}"#, all.join(",")))
        }
        ("GET", "LISTSTATUS", _) => exception(404, "FileNotFoundException"),
        ("GET", "OPEN", _) => match state.files.get(&path) {
            None => exception(404, "FileNotFoundException"),
            Some(file) => {
                let offset: usize = get("offset").parse().unwrap_or(0);
                let length: usize = get("length").parse().unwrap_or(usize::MAX);
                if offset > file.len() {
                    return exception(403, "IOException");
                }
                (200, file[offset..offset.saturating_add(length).min(file.len())].to_vec())
            }
        },
        ("PUT", "MKDIRS", _) => {
            // A directory is there when something is below it.
            state.files.insert(format!("{path}/.d"), Vec::new());
            ok(r#"{"boolean": true}"#)
        }
        ("PUT", "CREATE", "") | ("POST", "APPEND", "") if get("noredirect") == "true" => location(),
        ("PUT", "CREATE", "true") => {
            state.files.insert(path, body);
            (201, Vec::new())
        }
        ("POST", "APPEND", "true") => match state.files.get_mut(&path) {
            Some(file) => {
                file.extend(body);
                ok("")
            }
            None => exception(404, "FileNotFoundException"),
        },
        ("PUT", "RENAME", _) if get("renameoptions") == "NONE" => {
            let to = get("destination").replace("//", "/");
            let parent = to.rsplit_once('/').map_or("", |(parent, _)| parent);
            if state.files.contains_key(&to) {
                return exception(403, "FileAlreadyExistsException");
            }
            if !is_directory(state, parent) {
                return exception(404, "FileNotFoundException");
            }
            match state.files.remove(&path) {
                Some(file) => {
                    state.files.insert(to, file);
                    ok("")
                }
                None => exception(404, "FileNotFoundException"),
            }
        }
        ("DELETE", "DELETE", _) => {
            let there = state.files.remove(&path).is_some();
            ok(&format!(r#"{{"boolean": {there}}}"#))
        }
        _ => exception(400, "IllegalArgumentException"),
    }
}

fn url(address: SocketAddr) -> String {
    format!("webhdfs://127.0.0.1:{}/some/archive?user_name=backup", address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_answers_of_webhdfs_keep_every_promise() {
    let (address, state) = server();
    suite::all(open(&url(address), &OpenOptions::of_process()).await.unwrap()).await;
    let state = state.lock().unwrap();
    assert!(state.seen.iter().all(|line| line.contains("user.name=backup") || line.contains("data=true")));
    assert!(
        !state.files.keys().any(|f| f.contains(".pitr-unfinished/") && !f.ends_with("/.d")),
        "nothing is left over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_webhdfs_have_the_code_that_a_person_can_act_on() {
    let (address, state) = server();
    let store = open(&url(address), &OpenOptions::of_process()).await.unwrap();
    for (words, status, name, code) in [
        ("op=RENAME", 403, "AccessControlException", Code::StoreDenied),
        ("op=CREATE", 403, "AccessControlException", Code::StoreDenied),
        ("op=RENAME", 400, "IllegalArgumentException", Code::StoreRefused),
    ] {
        state.lock().unwrap().instead = Some((words, status, name));
        let error = store.put(&key("tags/a.doc"), Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.code(), code, "{words} {name}: {error}");
    }
    state.lock().unwrap().instead = None;
    assert_eq!(store.put(&key("tags/a.doc"), Bytes::from_static(b"x")).await.unwrap(), Put::Created);
}
