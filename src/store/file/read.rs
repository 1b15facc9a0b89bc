//! Reading the record.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::failed;
use super::lock::open_private;
use super::place::Place;
use crate::store::{StoreError, StoredTokens};

/// Returns the record. This needs no lock: a file with this name is never written, only replaced.
pub(super) fn load(place: &Place) -> Result<Option<StoredTokens>, StoreError> {
    let Some(json) = read(place)? else { return Ok(None) };
    let record = StoredTokens::from_json(&json)
        .map_err(|error| unreadable(&place.data, &error.get_ref().to_string()))?;
    Ok(Some(record))
}

fn read(place: &Place) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let path = &place.data;
    let failed = |error: io::Error| failed(path, "read", &error);
    let file = match open_private(path, place.access, OpenOptions::new().read(true)) {
        Ok(file) => file,
        // Without its folder, nothing is known about the file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.folder.is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(StoreError::misconfigured(format!(
            "{} is {kind}: choose a file for the record",
            path.display()
        )));
    }
    place.access.check(path, &metadata)?;
    // Large enough from the start: a vector that grows leaves copies that are not wiped.
    let length = usize::try_from(metadata.len()).unwrap_or(MAX_LENGTH).min(MAX_LENGTH) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(length));
    file.take(MAX_LENGTH as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() > MAX_LENGTH {
        return Err(unreadable(path, &format!("it is longer than {MAX_LENGTH} bytes")));
    }
    Ok(Some(content))
}

fn unreadable(path: &Path, why: &str) -> StoreError {
    StoreError::unreadable(format!(
        "the file {}: {why}; nothing is saved until it is restored or moved away",
        path.display()
    ))
}

/// More than any record has: answers of token endpoints are read up to a fraction of it.
pub(super) const MAX_LENGTH: usize = 1024 * 1024;
