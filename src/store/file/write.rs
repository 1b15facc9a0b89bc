//! How the file is read and replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::access::Access;
use super::lock::{Held, Taken, open_private};
use super::place::{Place, failed, sync_folder};
use crate::store::{StoreError, StoredTokens, WriteId};

/// Returns the record, without any lock: the file under this name is never written, only replaced.
pub(super) fn load(place: &Place) -> Result<Option<StoredTokens>, StoreError> {
    let Some(json) = read(place)? else { return Ok(None) };
    match StoredTokens::from_json(&json) {
        Ok(record) => Ok(Some(record)),
        Err(error) => Err(unreadable(&place.data, &error.get_ref().to_string())),
    }
}

fn read(place: &Place) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let path = &place.data;
    let failed = |error: io::Error| failed(path, "read", &error);
    let file = match open_private(path, place.access, OpenOptions::new().read(true)) {
        Ok(file) => file,
        // That nothing is stored is only sure as long as the folder is there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.folder.is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
        return Err(StoreError::misconfigured(format!(
            "{} is {what}: name a file that is to hold the record",
            path.display()
        )));
    }
    place.access.check(path, &metadata)?;
    // In one piece from the start: what a growing vector leaves behind is not wiped.
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
        "the file {}: {why}; it is left as it is, and nothing is saved until it is restored or moved away",
        path.display()
    ))
}

/// One record on its way into the file.
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
                "the record has {} bytes, and a file is read up to {MAX_LENGTH}: see why the tokens are that large",
                json.len()
            )));
        }
        let (id, has_open_intent) = (record.write_id(), record.has_open_intent());
        Ok(Self { json, id, replaces, has_open_intent })
    }

    /// Compares and swaps, unless somebody else is at it.
    pub(super) fn attempt(&self, place: &Place) -> Result<Option<()>, StoreError> {
        let Taken::Held(lock) = Held::take(&place.save_lock, place.access)? else {
            return Ok(None);
        };

        let current = load(place)?.map(|record| record.write_id());
        if current == Some(self.id) {
            // Renamed, but whoever did it may have failed or ended before it was synced.
            return sync(place).map(Some);
        }
        if current != self.replaces {
            return Err(StoreError::conflict());
        }

        if clear(&place.new, place.access)?.is_none() {
            return Ok(None);
        }
        let saved = if self.has_open_intent {
            self.and_reserve_room(place, &lock)
        } else {
            self.in_reserved_room(place, &lock)
        };
        if !matches!(saved, Ok(Some(()))) {
            // If it was not renamed. It has secrets in it, and takes up room.
            let _ = clear(&place.new, place.access);
        }
        saved
    }

    /// Saves a record that says that a refresh token is about to be spent, once its successor will fit.
    fn and_reserve_room(&self, place: &Place, lock: &Held) -> Result<Option<()>, StoreError> {
        let Taken::Held(new) = Held::take_new(&place.new, place.access)? else { return Ok(None) };
        self.fill(&new)?;
        if reserve(&place.reserved, place.access, self.json.len())?.is_none() {
            return Ok(None);
        }
        replace(place, new, lock)
    }

    /// Saves a record into the room that was reserved for it, if any was.
    fn in_reserved_room(&self, place: &Place, lock: &Held) -> Result<Option<()>, StoreError> {
        let new = match take_reserved(&place.reserved, place.access)? {
            Taken::Missing => Held::take_new(&place.new, place.access)?,
            reserved => reserved,
        };
        let Taken::Held(new) = new else { return Ok(None) };
        self.fill(&new)?;
        replace(place, new, lock)
    }

    /// Writes the record, and only then cuts off what is behind it: to truncate first would give the room away.
    fn fill(&self, new: &Held) -> Result<(), StoreError> {
        let mut file = new.file();
        file.write_all(&self.json)
            .and_then(|()| file.set_len(self.json.len() as u64))
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(new.path(), "written", &error))
    }
}

/// Puts a file that is written and synced in place of the record.
pub(super) fn replace(place: &Place, new: Held, lock: &Held) -> Result<Option<()>, StoreError> {
    // Somebody may have removed the lock file, and a third may be saving too.
    if !lock.is_held()? || !new.is_held()? {
        return Ok(None);
    }
    let from = new.path().to_owned();
    // Held until it has its name: nobody else writes into it, even if two save at once. Windows keeps readers out of what is
    // locked, though.
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
    Ok(Some(()))
}

fn sync(place: &Place) -> Result<(), StoreError> {
    // Windows syncs only what is open to be written.
    open_private(&place.data, place.access, OpenOptions::new().read(true).write(cfg!(windows)))
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_folder(&place.folder))
        .map_err(|error| failed(&place.data, "synced", &error))
}

/// Removes what a killed process left behind, and what somebody else put there; not what somebody is writing.
fn clear(path: &Path, access: Access) -> Result<Option<()>, StoreError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(())),
        Err(error) => return Err(failed(path, "looked at", &error)),
    };
    let _held = if access.is_ours(&metadata) {
        match Held::take_existing(path, access)? {
            Taken::Busy => return Ok(None),
            held => Some(held),
        }
    } else {
        None
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(path, "removed", &error))
        }
        _ => Ok(Some(())),
    }
}

/// Makes sure that there is room for what will follow a record of this length.
fn reserve(path: &Path, access: Access, length: usize) -> Result<Option<()>, StoreError> {
    let room = (2 * length as u64).max(LEAST_ROOM);
    let (reserved, is_new) = match take_reserved(path, access)? {
        Taken::Held(reserved) => (reserved, false),
        Taken::Missing => match Held::take_new(path, access)? {
            Taken::Held(reserved) => (reserved, true),
            Taken::Busy | Taken::Missing => return Ok(None),
        },
        Taken::Busy => return Ok(None),
    };
    let allocated = wipe(reserved.file())
        .and_then(|()| allocate(reserved.file(), room))
        .and_then(|()| reserved.file().sync_all());
    if let Err(error) = allocated {
        if is_new {
            let _ = fs::remove_file(path);
        }
        return Err(failed(path, "filled", &error));
    }
    Ok(Some(()))
}

/// Takes the file that room was reserved in, and nothing that somebody else put in its place.
fn take_reserved(path: &Path, access: Access) -> Result<Taken, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if access.is_ours(&metadata) => {}
        Ok(_) => return Ok(clear(path, access)?.map_or(Taken::Busy, |()| Taken::Missing)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Missing),
        Err(error) => return Err(failed(path, "looked at", &error)),
    }
    let taken = Held::take_existing(path, access)?;
    if let Taken::Held(reserved) = &taken
        && !reserved.file().metadata().is_ok_and(|metadata| access.is_ours(&metadata))
    {
        return Ok(Taken::Busy);
    }
    Ok(taken)
}

/// Empties a file if there is a record in it, of a save that did not come to its end.
fn wipe(mut file: &File) -> io::Result<()> {
    let mut first = [0];
    if file.read(&mut first)? == 1 && first != [0] {
        file.set_len(0)?;
    }
    file.rewind()
}

/// Gives a file blocks on the disk.
fn allocate(file: &File, room: u64) -> io::Result<()> {
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ))]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::{Errno, retry_on_intr};

        /// What the systems say where the file system has no such call.
        const UNKNOWN: [Errno; 5] =
            [Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::NODEV];

        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, room)) {
            Ok(()) => return Ok(()),
            Err(error) if UNKNOWN.contains(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fill_with_zeros(file, room)
}

/// Does the same where the file system has no call for it.
pub(super) fn fill_with_zeros(mut file: &File, room: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(room), &mut file)?;
    file.rewind()
}

/// More than any record has: token endpoints' answers are read up to a part of it.
const MAX_LENGTH: usize = 1024 * 1024;

/// For a record that is small because its tokens are not there yet.
pub(super) const LEAST_ROOM: u64 = 384 * 1024;
