//! An HTTP proxy on loopback that fails as networks and stores do: above all it loses replies (the request reaches the
//! server and has its effect, and the client's connection closes without an answer); it also refuses, resets, cuts
//! answers, does not answer for a time, and lies about exclusive creation.
//!
//! Owns: just enough HTTP/1.1 for object stores (heads, bodies with a length or in chunks, connections kept alive).
//! Uses little beyond the standard library: it is included by `#[path]` in the tests of several crates.
#![allow(dead_code)] // every test binary uses another part

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It has its effect, and no answer.
    LoseReply,
    /// It has no effect, and is answered by 503.
    Refuse,
    /// The connection is reset before it has an effect.
    Reset,
    /// It has its effect, and half of the answer comes before the connection is reset.
    CutReply,
    /// It has its effect, and the answer comes after this time.
    Stall(Duration),
    /// Its conditions are taken away: what is there already is overwritten, and the answer says that it was created.
    Overwrite,
}

/// Says of a request line (`PUT /bucket/key?x HTTP/1.1`) what is done to it.
type Chooses = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// A running proxy. Its threads end with the connections.
pub struct LossyProxy {
    address: SocketAddr,
    chooses: Arc<Mutex<Chooses>>,
    done: Arc<AtomicU32>,
}

impl LossyProxy {
    /// A proxy before `server` that loses nothing yet.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let chooses: Arc<Mutex<Chooses>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let done = Arc::new(AtomicU32::new(0));
        let shared = (Arc::clone(&chooses), Arc::clone(&done));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (chooses, done) = shared.clone();
                thread::spawn(move || serve(client, server, &chooses, &done));
            }
        });
        Self { address, chooses, done }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many replies were lost, or other faults done, until now.
    pub fn lost(&self) -> u32 {
        self.done.load(Ordering::SeqCst)
    }

    /// Loses the next `count` replies to requests whose line contains `part`, and no others.
    pub fn lose(&self, part: &'static str, count: u32) {
        self.fail(part, count, Fault::LoseReply);
    }

    /// Does this to the next `count` requests whose line contains `part`, and to no others.
    pub fn fail(&self, part: &'static str, count: u32, fault: Fault) {
        let mut left = count;
        self.choose(move |line| {
            let hit = left > 0 && line.contains(part);
            left -= u32::from(hit);
            hit.then_some(fault)
        });
    }

    /// From now on, does to each request what is chosen for its line.
    pub fn choose(&self, chooses: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.chooses.lock().expect("no thread panics with the lock") = Box::new(chooses);
    }
}

fn serve(client: TcpStream, server: SocketAddr, chooses: &Mutex<Chooses>, done: &AtomicU32) -> Option<()> {
    let mut requests = BufReader::new(client.try_clone().ok()?);
    let mut client = client;
    let server = TcpStream::connect(server).ok()?;
    let mut answers = BufReader::new(server.try_clone().ok()?);
    let mut server = server;
    loop {
        let request = read_head(&mut requests).ok()??;
        let line = request.lines().next()?.to_owned();
        let fault = (chooses.lock().ok()?)(&line);
        done.fetch_add(u32::from(fault.is_some()), Ordering::SeqCst);
        let request = match fault {
            Some(Fault::Refuse) => {
                copy_body(&request, false, &mut requests, &mut io::sink()).ok()?;
                let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                client.write_all(answer.as_bytes()).ok()?;
                return None;
            }
            Some(Fault::Reset) => return reset(&client),
            Some(Fault::Overwrite) => without_condition(&request),
            _ => request,
        };
        server.write_all(request.as_bytes()).ok()?;
        copy_body(&request, false, &mut requests, &mut server).ok()?;
        let answer = read_head(&mut answers).ok()??;
        let mut kept = Vec::new();
        copy_body(&answer, line.starts_with("HEAD "), &mut answers, &mut kept).ok()?;
        match fault {
            Some(Fault::LoseReply) => return None,
            Some(Fault::CutReply) => {
                client.write_all(answer.as_bytes()).ok()?;
                client.write_all(&kept[..kept.len() / 2]).ok()?;
                return reset(&client);
            }
            Some(Fault::Stall(time)) => thread::sleep(time),
            _ => {}
        }
        client.write_all(answer.as_bytes()).ok()?;
        client.write_all(&kept).ok()?;
        if header(&answer, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            return None;
        }
    }
}

/// The other end reads an error, not an end.
fn reset(client: &TcpStream) -> Option<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).ok()?;
    None
}

/// A request to create becomes one to write.
fn without_condition(head: &str) -> String {
    let kept = head.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("if-none-match:"));
    kept.collect()
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
