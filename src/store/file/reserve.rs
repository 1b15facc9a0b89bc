//! Room on the disk for the next save.
//!
//! A save with an open intent precedes the use of a refresh token, and the next save has its successor. That one must not fail
//! because the disk is full. So the first of the two allocates a file, and the second writes into it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use super::access::Access;
use super::error::{Failure, failed};
use super::lock::Held;

/// Allocates room for the record that follows a record of this length.
pub(super) fn reserve(path: &Path, access: Access, length: usize) -> Result<(), Failure> {
    let room = (2 * length as u64).max(LEAST_ROOM);
    let existing = take_reserved(path, access)?;
    let is_new = existing.is_none();
    let reserved = existing.map_or_else(|| Held::take_new(path, access), Ok)?;
    wipe(reserved.file())
        .and_then(|()| allocate(reserved.file(), room))
        .and_then(|()| reserved.file().sync_all())
        .map_err(|error| {
            if is_new {
                drop(fs::remove_file(path));
            }
            failed(path, "filled", &error).into()
        })
}

/// Locks the file with the reserved room. A foreign file in its place is removed.
pub(super) fn take_reserved(path: &Path, access: Access) -> Result<Option<Held>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if access.is_ours(&metadata) => {}
        Ok(_) => return clear(path, access).map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "examined", &error).into()),
    }
    let taken = Held::take_existing(path, access)?;
    match &taken {
        Some(held) if !held.file().metadata().is_ok_and(|metadata| access.is_ours(&metadata)) => {
            Err(Failure::Busy)
        }
        _ => Ok(taken),
    }
}

/// Removes a file that a killed process has left behind, or a foreign file, and no file that another process is writing.
pub(super) fn clear(path: &Path, access: Access) -> Result<(), Failure> {
    let _held = match fs::symlink_metadata(path) {
        Ok(metadata) if access.is_ours(&metadata) => Held::take_existing(path, access)?,
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, "examined", &error).into()),
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(path, "removed", &error).into())
        }
        _ => Ok(()),
    }
}

/// Empties a file if it contains the record of an unfinished save.
fn wipe(mut file: &File) -> io::Result<()> {
    let mut first = [0];
    if file.read(&mut first)? == 1 && first != [0] {
        file.set_len(0)?;
    }
    file.rewind()
}

/// Allocates blocks on the disk.
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

        /// The errors of file systems that have no such call.
        const UNSUPPORTED: [Errno; 5] =
            [Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::NODEV];

        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, room)) {
            Ok(()) => return Ok(()),
            Err(error) if UNSUPPORTED.contains(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fill_with_zeros(file, room)
}

/// Allocates blocks where the file system has no call for it.
pub(super) fn fill_with_zeros(mut file: &File, room: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(room), &mut file)?;
    file.rewind()
}

/// For a record that is small because it has no tokens yet.
pub(super) const LEAST_ROOM: u64 = 384 * 1024;
