//! A program that owns its RocksDB database and archives it itself.
//!
//! ```text
//! cargo run --release -p pitr-archiver --features embedded --example embedded -- /tmp/orders file:/tmp/orders-archive
//! ```
//!
//! It runs the same engine as `pitr run`, which reads the database's files. What being inside adds: the log's buffer can
//! be flushed before a tag (so `manual_wal_flush` is no obstacle), and file deletions can be held while a base is linked.

use std::{error::Error, sync::Arc};

use pitr_archive::store;
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    control::{TagRequest, Unflushed},
    embedded::RocksDbOwner,
    known_archive,
};
use rocksdb::{DB, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(url)) = (args.next(), args.next()) else {
        return Err("usage: embedded DATABASE ARCHIVE-URL".into());
    };
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_manual_wal_flush(true);
    let db = Arc::new(DB::open(&options, &path)?);

    let owner = Arc::new(RocksDbOwner::new(db.clone()));
    let parts = Parts { owner, ..Parts::system() };
    let store = store::url::open(&url, &store::url::OpenOptions::of_process()).await?;
    let config = ArchiverConfig::new(&path);
    // Where an archive was before, no new one is begun: a disk that is not mounted looks like a place without one.
    let archive = known_archive::open_or_create(&config.state, store, None, &*parts.clock, &*parts.random).await?;
    let mut archiver = Archiver::open(config, archive, parts).await?;

    for number in 0..1000 {
        db.put(format!("order-{number:04}"), "paid")?;
    }
    // The writes above may still be in RocksDB's own buffer; the owner flushes it, so the tag names all of them.
    let request = TagRequest {
        name: format!("orders-{}", std::process::id()),
        note: "before the migration".to_owned(),
        unflushed: Unflushed::Refuse,
        expires: None,
        group: None,
    };
    let tag = archiver.tag(&request).await?;
    println!("tag {} names sequence {}", tag.name, tag.position.sequence);
    let base = archiver.take_base().await?;
    println!("base {} serves from sequence {}", base.id, base.floor.sequence);
    archiver.close().await?;
    Ok(())
}
