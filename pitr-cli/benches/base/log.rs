//! What a busy application writes: orders, sessions, counters and blobs, in small batches.
//!
//! Owns: keys, values and their mixture, which follow from a seed. Texts repeat as texts do; ids, amounts and tokens do not.

use std::fmt::Write as _;

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rocksdb::WriteBatch;

/// Writes in a batch, at most.
const BATCH: u32 = 8;
const ORDERS: u64 = 5_000_000;
const CITIES: [&str; 8] = ["Berlin", "Paris", "Madrid", "Warszawa", "Lisboa", "Wien", "Dublin", "Oslo"];
const STATES: [&str; 5] = ["created", "paid", "packed", "shipped", "returned"];
const WORDS: &str = "please leave the parcel with neighbour at door ring twice gift fragile call before delivery after noon second \
     floor left entrance behind garden house";

/// An endless log.
pub struct Busy {
    rng: StdRng,
    next_order: u64,
    words: Vec<&'static str>,
}

impl Busy {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), next_order: 0, words: WORDS.split(' ').collect() }
    }

    /// What is written at once, and about how many bytes it is in the log.
    pub fn batch(&mut self) -> (WriteBatch, u64) {
        let mut batch = WriteBatch::default();
        for _ in 0..self.rng.random_range(1..=BATCH) {
            match self.rng.random_range(0..100) {
                0..50 => batch.put(self.order_key(), self.order()),
                50..70 => batch.put(format!("session/{:016x}", self.rng.next_u64()), self.session()),
                70..85 => batch.put(format!("counter/{:05}", self.rng.random_range(0..20_000)), self.counter()),
                85..93 => batch.put(format!("blob/{:016x}", self.rng.next_u64()), self.blob()),
                _ => batch.delete(self.order_key()),
            }
        }
        let bytes = batch.size_in_bytes() as u64;
        (batch, bytes)
    }

    /// Mostly the next one, else one that is there.
    fn order_key(&mut self) -> String {
        self.next_order += 1;
        let order = match self.rng.random_ratio(2, 3) {
            true => self.next_order,
            false => self.rng.random_range(0..ORDERS),
        };
        format!("order/{order:012}")
    }

    fn order(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let mut text = format!(
            r#"{{"id":"{:016x}","customer":{},"state":"{}","city":"{}","zip":"{:05}","placed":"2026-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z","items":["#,
            rng.next_u64(),
            rng.random_range(0..400_000),
            STATES[rng.random_range(0..STATES.len())],
            CITIES[rng.random_range(0..CITIES.len())],
            rng.random_range(0..99_999),
            rng.random_range(1..13),
            rng.random_range(1..29),
            rng.random_range(0..24),
            rng.random_range(0..60),
            rng.random_range(0..60),
            rng.random_range(0..1000),
        );
        for n in 0..rng.random_range(1..5) {
            let (sku, quantity, cents) =
                (rng.random_range(0..80_000), rng.random_range(1..4), rng.random_range(99..20_000));
            let comma = if n == 0 { "" } else { "," };
            write!(text, r#"{comma}{{"sku":"P-{sku:06}","quantity":{quantity},"cents":{cents}}}"#).expect("text");
        }
        text.push_str(r#"],"note":""#);
        for n in 0..rng.random_range(0..12) {
            let word = self.words[rng.random_range(0..self.words.len())];
            write!(text, "{}{word}", if n == 0 { "" } else { " " }).expect("text");
        }
        text.push_str("\"}");
        text.into_bytes()
    }

    fn session(&mut self) -> Vec<u8> {
        let mut token = [0; 24];
        self.rng.fill_bytes(&mut token);
        let (user, agent) = (self.rng.random_range(0..400_000), self.rng.random_range(0..40));
        let token = token.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("text");
            text
        });
        format!(r#"{{"user":{user},"token":"{token}","agent":"app/4.{agent} (mobile)","ttl":3600}}"#).into_bytes()
    }

    fn counter(&mut self) -> Vec<u8> {
        self.rng.random_range(0..100_000_u64).to_le_bytes().to_vec()
    }

    /// Compressed by the application already.
    fn blob(&mut self) -> Vec<u8> {
        let mut blob = vec![0; self.rng.random_range(100..600)];
        self.rng.fill_bytes(&mut blob);
        blob
    }
}
