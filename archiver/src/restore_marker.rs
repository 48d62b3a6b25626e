//! Reading the marker that a restore leaves in the database's directory.

use std::path::Path;

use pitr_archive::{
    Code, Error, Result,
    restore_marker::{FILE_NAME, RestoreMarker},
};

use crate::layout::read_small;

/// The random id of the restore that the directory comes from, if it comes from one.
pub fn read(db: &Path) -> Result<Option<String>> {
    let path = db.join(FILE_NAME);
    let Some(bytes) = read_small(&path)? else { return Ok(None) };
    let marker: RestoreMarker = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(Code::ObjectDamaged, "reading the marker of a restore").on(path.display()).because(e)
    })?;
    Ok(Some(marker.marker.to_string()))
}
