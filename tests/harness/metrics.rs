//! What a running `pitr run --http` tells of itself, read as Prometheus reads it.
//!
//! Owns: one request, and the values of its answer by name and labels. Of a process that does not answer: nothing.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The values of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Asks.
    pub fn scrape(address: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream
            .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let body = answer.strip_prefix("HTTP/1.1 200")?.split_once("\r\n\r\n")?.1;
        let values = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Some(Self { values: values.collect() })
    }

    /// The sum of all values of this name whose labels contain `labels` (`request="put"`, or nothing); `None` where there is
    /// none.
    pub fn sum(&self, name: &str, labels: &str) -> Option<f64> {
        let of = |key: &&String| key.split('{').next() == Some(name) && key.contains(labels);
        let found: Vec<_> = self.values.iter().filter(|(key, _)| of(key)).map(|(_, value)| value).collect();
        (!found.is_empty()).then(|| found.into_iter().sum())
    }

    /// The values of this name by one of its labels.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.values {
            let Some((own, labels)) = key.split_once('{') else { continue };
            let start = format!("{label}=\"");
            if own == name
                && let Some((_, rest)) = labels.split_once(&start)
                && let Some((label, _)) = rest.split_once('"')
            {
                *found.entry(label.to_owned()).or_default() += value;
            }
        }
        found
    }
}

/// A port of loopback that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("a bound listener has an address")
}
