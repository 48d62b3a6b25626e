//! The demo's writing process: a small shop that keeps its data in RocksDB.
//!
//! Owns: what it writes. It knows nothing of archives. Each line on its standard input is an order: `cleanup` deletes
//! every account, as a wrong migration would. It writes until it is killed, or until nobody gives orders any more.

use std::{
    io::BufRead,
    path::Path,
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::Duration,
};

use pitr_archive::{Code, Error, Result, clock::Clock, error};
use rocksdb::{DB, Options, WriteBatch};

use super::journal::{FILE, Note, Op, Writer};

const ACCOUNTS: &str = "accounts";
const ORDERS: &str = "orders";
/// Created while the archiver is already running, so that the archive must bring it back by itself.
const AUDIT: &str = "audit";
const NAMES: u64 = 200;
/// A pause between writes: a server that is busy but not drowning.
const PAUSE: Duration = Duration::from_millis(1);
/// Writes after which `audit` appears.
const AUDIT_FROM: u64 = 300;
/// Writes between flushes, so that logs end and new ones begin.
const FLUSH_EVERY: u64 = 400;

/// Writes into `dir/db` until killed.
pub fn run(dir: &Path, clock: &dyn Clock) -> Result<()> {
    let orders = listen();
    let path = dir.join("db");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let db = DB::open_cf(&options, &path, [ACCOUNTS, ORDERS]).map_err(|e| rocks("creating", &path, e))?;
    let mut notes = Writer::create(&dir.join(FILE))?;
    for number in 1.. {
        let ops = match orders.try_recv() {
            Ok(order) if order == "cleanup" => cleanup(&db, &path)?,
            Ok(order) => return Err(Error::new(Code::Usage, "reading an order").on(order)),
            Err(TryRecvError::Empty) => sale(number),
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        if number == AUDIT_FROM {
            db.create_cf(AUDIT, &Options::default()).map_err(|e| rocks("creating a column family in", &path, e))?;
        }
        let mut batch = WriteBatch::default();
        for op in &ops {
            let family = db
                .cf_handle(&op.family)
                .ok_or_else(|| Error::new(Code::Internal, "finding a column family").on(&op.family))?;
            match &op.value {
                Some(value) => batch.put_cf(&family, &op.key, value),
                None => batch.delete_cf(&family, &op.key),
            }
        }
        notes.note(&Note::Write { number, before: clock.now(), ops })?;
        db.write(batch).map_err(|e| rocks("writing to", &path, e))?;
        let sequence = db.latest_sequence_number();
        notes.note(&Note::Written { number, after: clock.now(), sequence })?;
        if number.is_multiple_of(FLUSH_EVERY) {
            for family in [ACCOUNTS, ORDERS, AUDIT].iter().filter_map(|name| db.cf_handle(name)) {
                db.flush_cf(&family).map_err(|e| rocks("flushing", &path, e))?;
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Somebody buys something: an account changes, an order is added, sometimes an old order is removed.
fn sale(number: u64) -> Vec<Op> {
    // A multiplicative walk over the names: deterministic, and no two neighbours alike.
    let buyer = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let put = |family: &str, key: String, value: String| Op { family: family.to_owned(), key, value: Some(value) };
    let mut ops = vec![
        put(
            ACCOUNTS,
            format!("customer-{:03}", buyer % NAMES),
            format!("{{\"balance\":{},\"write\":{number}}}", buyer % 10_000),
        ),
        put(
            ORDERS,
            format!("order-{number:08}"),
            format!("{{\"buyer\":{},\"items\":{}}}", buyer % NAMES, buyer % 7 + 1),
        ),
    ];
    if number.is_multiple_of(5) {
        ops.push(Op { family: ORDERS.to_owned(), key: format!("order-{:08}", number - 4), value: None });
    }
    if number >= AUDIT_FROM && number.is_multiple_of(10) {
        ops.push(put(AUDIT, format!("day-book-{:04}", number % 500), format!("checked at write {number}")));
    }
    ops
}

/// The mistake: all accounts are deleted, in one write.
fn cleanup(db: &DB, path: &Path) -> Result<Vec<Op>> {
    let family =
        db.cf_handle(ACCOUNTS).ok_or_else(|| Error::new(Code::Internal, "finding a column family").on(ACCOUNTS))?;
    db.iterator_cf(&family, rocksdb::IteratorMode::Start)
        .map(|pair| {
            let (key, _) = pair.map_err(|e| rocks("reading", path, e))?;
            Ok(Op { family: ACCOUNTS.to_owned(), key: String::from_utf8_lossy(&key).into_owned(), value: None })
        })
        .collect()
}

/// Orders as they come in; the channel ends with standard input.
fn listen() -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn rocks(doing: &'static str, path: &Path, e: rocksdb::Error) -> Error {
    match e.kind() {
        rocksdb::ErrorKind::IOError => error::io(doing, path, std::io::Error::other(e)),
        _ => Error::new(Code::DatabaseOpen, doing).on(path.display()).because(e),
    }
}
