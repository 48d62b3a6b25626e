//! An archiver that is opened where another one was a moment ago.

use std::time::Duration;

use pitr_archive::{Code, Result};
use pitr_archiver::Archiver;

/// Opens it when the state directory is free. A process that another test of this program is just starting holds the lock of
/// the one before, too, until it has become that process.
pub async fn when_unlocked(mut open: impl AsyncFnMut() -> Result<Archiver>) -> Archiver {
    for _ in 0..1000 {
        match open().await {
            Err(e) if e.code() == Code::StateLocked => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the state directory stays locked");
}
