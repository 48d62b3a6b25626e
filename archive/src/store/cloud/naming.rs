//! How an object comes to be where the service cannot create it whole and exclusively in one request.
//!
//! Owns: the temporary names below `.pitr-unfinished/`, which no listing of ours shows, and the interface of the last
//! step ([`Naming`]), which each such service has in its own file: one operation *of the server* that gives a finished
//! file its name and fails when the name is taken. The order is that of a directory on this machine
//! ([`super::super::local`]): write, make durable, name, remove what is left over.
//! What a crash leaves behind is removed a day later, by the first creation of a later process.
//! Refuses: naming what has not arrived whole. Drivers repeat requests, and a repeated append arrives twice.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use opendal::{ErrorKind, Operator};

use crate::{
    clock::Micros,
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
    store::Put,
};

/// Where objects are written before they have a name. The directory store uses the same.
pub(super) const UNFINISHED: &str = ".pitr-unfinished/";
/// No upload takes that long.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// The last step of a creation.
#[async_trait]
pub(super) trait Naming: Send + Sync {
    /// Makes the file durable, as far as the server offers that, and gives it the object's name, in one operation of
    /// the server that fails when the name is taken. The temporary file may stay.
    async fn name(&self, temporary: &str, key: &ObjectKey) -> opendal::Result<Put>;
}

/// A name that nobody else uses.
pub(super) fn temporary() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| Error::new(Code::Internal, "naming a temporary object").because(e))?;
    Ok(random.iter().fold(UNFINISHED.to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

/// The server has as many bytes as were sent.
pub(super) async fn check_whole(operator: &Operator, temporary: &str, key: &ObjectKey, sent: u64) -> Result<()> {
    let whole = match operator.stat(temporary).await {
        Ok(meta) if meta.content_length() == sent => return Ok(()),
        Ok(meta) => {
            Error::new(Code::StoreUnavailable, "checking what was sent").with("received", meta.content_length())
        }
        Err(e) => Error::new(Code::StoreUnavailable, "checking what was sent").because(super::short(&e)),
    };
    Err(whole.on(key).with("sent", sent).hint("the upload was disturbed on the way: it has to be started again"))
}

/// Removes a temporary file; failing to is no reason to fail what is already done.
pub(super) async fn remove(operator: &Operator, temporary: &str) {
    match operator.delete(temporary).await {
        Err(e) if e.kind() != ErrorKind::NotFound => tracing::warn!(
            object = temporary, cause = %super::short(&e),
            "a temporary object could not be removed; a later pitr removes it when it is a day old"
        ),
        _ => {}
    }
}

/// Removes what writers that crashed more than a day before `now` left behind.
pub(super) async fn remove_leftovers(operator: &Operator, now: Micros) {
    let found = async { operator.lister_with(UNFINISHED).await?.try_collect::<Vec<_>>().await };
    let entries = match found.await {
        Ok(entries) => entries,
        Err(e) => {
            tracing::debug!(cause = %super::short(&e), "looking for temporary objects of earlier writers");
            return;
        }
    };
    for entry in entries.iter().filter(|e| e.metadata().mode().is_file()) {
        let modified = entry.metadata().last_modified().map(SystemTime::from);
        let micros = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let old = i64::try_from(OLD.as_micros()).unwrap_or(i64::MAX);
        let before = micros.and_then(|micros| i64::try_from(micros.as_micros()).ok());
        if before.is_some_and(|before| now.0.saturating_sub(before) > old) {
            remove(operator, entry.path()).await;
        }
    }
}
