//! Replacing the record.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};

use zeroize::Zeroizing;

use super::error::{Failure, failed};
use super::lock::{Held, open_private};
use super::place::{Place, sync_folder};
use super::read::{MAX_LENGTH, load};
use super::reserve::{clear, reserve, take_reserved};
use crate::store::{StoreError, StoredTokens, WriteId};

/// A record to be saved.
pub(super) struct Write {
    json: Zeroizing<Vec<u8>>,
    id: WriteId,
    replaces: Option<WriteId>,
    has_open_intent: bool,
}

impl Write {
    pub(super) fn new(
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<Self, StoreError> {
        let json = record.to_json()?;
        if json.len() > MAX_LENGTH {
            return Err(StoreError::misconfigured(format!(
                "the record has {} bytes, and a file is read up to {MAX_LENGTH}: check why the tokens are that large",
                json.len()
            )));
        }
        let (id, has_open_intent) = (record.write_id(), record.has_open_intent());
        Ok(Self { json, id, replaces, has_open_intent })
    }

    /// Compares and swaps, unless another process is saving.
    pub(super) fn attempt(&self, place: &Place) -> Result<(), Failure> {
        let lock = Held::take(&place.save_lock, place.access)?;

        let current = load(place)?.map(|record| record.write_id());
        if current == Some(self.id) {
            // It was renamed, but the process may have ended before it was synced.
            return Ok(sync(place)?);
        }
        if current != self.replaces {
            return Err(StoreError::conflict().into());
        }

        clear(&place.new, place.access)?;
        let saved = self.write(place).and_then(|new| replace(place, new, &lock));
        if saved.is_err() {
            // It contains secrets and takes up room.
            drop(clear(&place.new, place.access));
        }
        saved
    }

    /// Writes the record into a new file. With an open intent, it also reserves room for the next save, and otherwise it uses
    /// the room that was reserved, if any.
    fn write(&self, place: &Place) -> Result<Held, Failure> {
        let reserved =
            if self.has_open_intent { None } else { take_reserved(&place.reserved, place.access)? };
        let new = reserved.map_or_else(|| Held::take_new(&place.new, place.access), Ok)?;
        // Truncated last: to truncate first would free the reserved room.
        let mut file = new.file();
        file.write_all(&self.json)
            .and_then(|()| file.set_len(self.json.len() as u64))
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(new.path(), "written", &error))?;
        if self.has_open_intent {
            reserve(&place.reserved, place.access, self.json.len())?;
        }
        Ok(new)
    }
}

/// Replaces the record by a file that is written and synced.
pub(super) fn replace(place: &Place, new: Held, lock: &Held) -> Result<(), Failure> {
    // If the lock file was removed, another process may be saving too.
    if !lock.is_held()? || !new.is_held()? {
        return Err(Failure::Busy);
    }
    let from = new.path().to_owned();
    // Held until it is renamed, so that no other save writes into it. On Windows, a locked file cannot be read.
    #[cfg(not(unix))]
    drop(new);
    fs::rename(&from, &place.data).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => StoreError::misconfigured(format!(
            "{} cannot be replaced: it seems to be mounted by itself: mount its folder instead",
            place.data.display()
        )),
        _ => failed(&place.data, "replaced", &error),
    })?;
    sync_folder(&place.folder).map_err(|error| failed(&place.folder, "synced", &error))?;
    Ok(())
}

fn sync(place: &Place) -> Result<(), StoreError> {
    // Windows syncs only files that are open for writing.
    open_private(&place.data, place.access, OpenOptions::new().read(true).write(cfg!(windows)))
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_folder(&place.folder))
        .map_err(|error| failed(&place.data, "synced", &error))
}
