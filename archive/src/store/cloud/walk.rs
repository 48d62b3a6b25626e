//! Listing where the service knows directories only.
//!
//! Owns: going down into every directory below one. The driver's own way of doing so leaves out what it is not allowed
//! to read, which would make "could not be read" look like "is not there".

use futures::TryStreamExt as _;
use opendal::{ErrorKind, Operator};

use super::naming::UNFINISHED;

/// Every file below `folder` (`/`, or ending with `/`): path and size, unsorted, without unfinished ones.
pub(super) async fn files_below(operator: &Operator, folder: &str) -> opendal::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut lister = match operator.lister_with(&folder).await {
            // It went while we walked, or nothing was ever written below it.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        loop {
            let entry = match lister.try_next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            };
            let path = entry.path();
            if entry.metadata().mode().is_dir() {
                // Some list the directory itself, too.
                if path != folder
                    && path != "/"
                    && path != UNFINISHED
                    && path.starts_with(folder.trim_start_matches('/'))
                {
                    folders.push(path.to_owned());
                }
            } else {
                files.push((path.to_owned(), entry.metadata().content_length()));
            }
        }
    }
    Ok(files)
}
