//! Google Cloud Storage. No emulator honours conditional creation there, so the promises cannot be tried; what can is
//! the wire: that every creation carries the condition, and what we make of the documented answers. The server below
//! answers what each test tells it and stores nothing.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use bytes::Bytes;
use pitr_archive::{
    code::Code,
    store::{
        Put, Store,
        url::{OpenOptions, open},
    },
};

use crate::suite::{key, pattern};

/// A request as it was received: its line, and its headers in lower case.
struct Request {
    line: String,
    headers: String,
}

/// Status, further header lines, body.
type Answer = (u16, String, String);

/// Answers every request with what `answer` says of it.
fn server(
    answer: impl Fn(&Request, SocketAddr) -> Answer + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel();
    let (answer, seen) = (Arc::new(answer), Arc::new(Mutex::new(seen)));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            thread::spawn(move || {
                let respond = |request: &Request| answer(request, address);
                let note = |request| drop(seen.lock().map(|seen| seen.send(request)));
                serve(client, &respond, &note)
            });
        }
    });
    (address, requests)
}

fn serve(mut client: TcpStream, respond: &dyn Fn(&Request) -> Answer, note: &dyn Fn(Request)) -> Option<()> {
    let mut from = BufReader::new(client.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if from.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let (line, headers) = head.split_once("\r\n")?;
        let headers = headers.to_ascii_lowercase();
        let length =
            headers.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|v| v.trim().parse().ok());
        std::io::copy(&mut from.by_ref().take(length.unwrap_or(0)), &mut std::io::sink()).ok()?;
        let request = Request { line: line.to_owned(), headers };
        let (status, header, body) = respond(&request);
        note(request);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nContent-Type: application/json\r\n{header}\r\n"
        );
        client.write_all(head.as_bytes()).ok()?;
        client.write_all(body.as_bytes()).ok()?;
    }
}

async fn store_at(address: SocketAddr) -> Arc<dyn Store> {
    let url = format!("gs://bucket1/some/prefix?endpoint=http://{address}&skip_signature=true");
    open(&url, &OpenOptions::of_process()).await.unwrap()
}

fn object() -> String {
    let object = r#"{"kind":"storage#object","name":"x","bucket":"bucket1","generation":"1","etag":"e","size":"4","#;
    format!(r#"{object}"md5Hash":"","updated":"2026-01-01T00:00:00.000Z","contentType":"application/octet-stream"}}"#)
}

const TAKEN: &str = r#"{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold.","errors":[{"message":"x","domain":"global","reason":"conditionNotMet","locationType":"header","location":"If-Match"}]}}"#;
const NO_BUCKET: &str = r#"{"error":{"code":404,"message":"The specified bucket does not exist.","errors":[{"message":"The specified bucket does not exist.","domain":"global","reason":"notFound"}]}}"#;

fn conditional(request: &Request) -> bool {
    request.line.contains("ifGenerationMatch=0") || request.headers.contains("x-goog-if-generation-match: 0")
}

/// The documented course of a resumable upload: a POST that opens a session, then the bytes to the session's address.
fn takes_uploads(request: &Request, address: SocketAddr) -> Answer {
    match request.line.starts_with("POST") {
        true => (200, format!("Location: http://{address}/session\r\n"), String::new()),
        false => (200, String::new(), object()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_creation_on_gcs_carries_the_condition_and_its_refusal_means_exists() {
    for expected in [Put::Created, Put::Exists] {
        let (address, requests) = server(move |request, address| match expected {
            Put::Created => takes_uploads(request, address),
            Put::Exists => (412, String::new(), TAKEN.to_owned()),
        });
        let store = store_at(address).await;
        assert_eq!(store.put(&key("segments/1/a.seg"), Bytes::from_static(b"body")).await.unwrap(), expected);
        let request = requests.recv().unwrap();
        assert!(conditional(&request), "{}", request.line);
        assert!(
            request.line.contains("bucket1") && request.line.contains("some%2Fprefix%2Fsegments%2F1%2Fa.seg"),
            "{}",
            request.line
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_gcs_carries_the_condition_and_learns_of_a_taken_name_when_it_begins() {
    let (address, requests) = server(|_, _| (412, String::new(), TAKEN.to_owned()));
    let store = store_at(address).await;
    let mut upload = store.upload(&key("files/a.dat"), 40 << 20).await.unwrap();
    for _ in 0..5 {
        upload.write(pattern(8 << 20)).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), Put::Exists);
    assert!(conditional(&requests.recv().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_gcs_bucket_is_never_an_empty_archive() {
    let (address, _requests) = server(|_, _| (404, String::new(), NO_BUCKET.to_owned()));
    let store = store_at(address).await;
    for error in [
        store.get(&key("archive.json"), 10).await.map(drop).unwrap_err(),
        store.size(&key("archive.json")).await.map(drop).unwrap_err(),
        store.list("", None).await.map(drop).unwrap_err(),
        store.put(&key("archive.json"), Bytes::from_static(b"x")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::StoreNotFound, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_denied_on_gcs() {
    let (address, _requests) =
        server(|_, _| (401, String::new(), r#"{"error":{"code":401,"message":"Invalid Credentials"}}"#.to_owned()));
    let error = store_at(address).await.list("", None).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreDenied, "{error}");
}
