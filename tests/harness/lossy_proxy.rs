//! An HTTP proxy on loopback that loses replies: the request reaches the server and has its effect, and the client's
//! connection closes without an answer.
//!
//! Owns: just enough HTTP/1.1 for object stores (heads, bodies with a length or in chunks, connections kept alive).
//! Uses the standard library only: it is included by `#[path]` in the tests of several crates.
#![allow(dead_code)] // every test binary uses another part

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Says of a request line (`PUT /bucket/key?x HTTP/1.1`) whether its reply gets lost.
type Loses = Box<dyn FnMut(&str) -> bool + Send>;

/// A running proxy. Its threads end with the connections.
pub struct LossyProxy {
    address: SocketAddr,
    loses: Arc<Mutex<Loses>>,
    lost: Arc<AtomicU32>,
}

impl LossyProxy {
    /// A proxy before `server` that loses nothing yet.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let loses: Arc<Mutex<Loses>> = Arc::new(Mutex::new(Box::new(|_| false)));
        let lost = Arc::new(AtomicU32::new(0));
        let shared = (Arc::clone(&loses), Arc::clone(&lost));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (loses, lost) = shared.clone();
                thread::spawn(move || serve(client, server, &loses, &lost));
            }
        });
        Self { address, loses, lost }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many replies were lost until now.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::SeqCst)
    }

    /// Loses the next `count` replies to requests whose line contains `part`, and no others.
    pub fn lose(&self, part: &'static str, count: u32) {
        let mut left = count;
        *self.loses.lock().expect("no thread panics with the lock") = Box::new(move |line| {
            let hit = left > 0 && line.contains(part);
            left -= u32::from(hit);
            hit
        });
    }
}

fn serve(client: TcpStream, server: SocketAddr, loses: &Mutex<Loses>, lost: &AtomicU32) -> Option<()> {
    let mut requests = BufReader::new(client.try_clone().ok()?);
    let mut client = client;
    let server = TcpStream::connect(server).ok()?;
    let mut answers = BufReader::new(server.try_clone().ok()?);
    let mut server = server;
    loop {
        let request = read_head(&mut requests).ok()??;
        let line = request.lines().next()?.to_owned();
        server.write_all(request.as_bytes()).ok()?;
        copy_body(&request, false, &mut requests, &mut server).ok()?;
        let answer = read_head(&mut answers).ok()??;
        let mut kept = Vec::new();
        copy_body(&answer, line.starts_with("HEAD "), &mut answers, &mut kept).ok()?;
        if (loses.lock().ok()?)(&line) {
            lost.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        client.write_all(answer.as_bytes()).ok()?;
        client.write_all(&kept).ok()?;
        if header(&answer, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            return None;
        }
    }
}

/// A head with its empty line; `None` at the end of the connection.
fn read_head(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()))
}

fn copy_body(head: &str, bodiless: bool, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    if bodiless {
        return Ok(());
    }
    if header(head, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            to.write_all(size.as_bytes())?;
            let length = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            io::copy(&mut from.take(length + 2), to)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
    let length = header(head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    io::copy(&mut from.take(length), to).map(drop)
}
