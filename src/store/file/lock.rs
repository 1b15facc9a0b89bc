//! Files that are locked.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::access::Access;
use super::place::failed;
use crate::store::StoreError;

/// A file that is open and locked, under a name that was its own when it was taken.
///
/// The lock is one of the operating system on the open file: it keeps out other processes and other handles of this one, and
/// no program that runs in a child inherits it.
pub(super) struct Held {
    file: File,
    path: PathBuf,
}

/// What became of the attempt to open a file and to lock it.
pub(super) enum Taken {
    Held(Held),
    /// Somebody else holds it, or put another file in its place in this moment.
    Busy,
    Missing,
}

impl Held {
    /// Takes a file, which is created if it is missing.
    pub(super) fn take(path: &Path, access: Access) -> Result<Taken, StoreError> {
        Self::open(path, access, OpenOptions::new().create(true))
    }

    /// Takes a file that exists.
    pub(super) fn take_existing(path: &Path, access: Access) -> Result<Taken, StoreError> {
        Self::open(path, access, &mut OpenOptions::new())
    }

    /// Takes a file that does not exist yet.
    pub(super) fn take_new(path: &Path, access: Access) -> Result<Taken, StoreError> {
        Self::open(path, access, OpenOptions::new().create_new(true))
    }

    fn open(path: &Path, access: Access, options: &mut OpenOptions) -> Result<Taken, StoreError> {
        let failed = |error: io::Error| failed(path, "locked", &error);
        let file = match open_private(path, access, options.read(true).write(true)) {
            Ok(file) => file,
            // With its folder, or else a human must mend that.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && path.parent().is_some_and(Path::is_dir) =>
            {
                return Ok(Taken::Missing);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Taken::Busy),
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && access.is_being_shared(path) =>
            {
                return Ok(Taken::Busy);
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(StoreError::misconfigured(format!(
                "{} is not a regular file: remove it",
                path.display()
            )));
        }
        // Another user who owns the lock can hold it forever.
        if let Err(error) = access.check_owner(path, &metadata) {
            return if access.is_being_shared(path) { Ok(Taken::Busy) } else { Err(error) };
        }
        access.share(&file, path, &metadata)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Taken::Busy),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let held = Self { file, path: path.to_owned() };
        // Whoever held it before may have renamed or removed it, after it was opened here.
        Ok(if held.is_held()? { Taken::Held(held) } else { Taken::Busy })
    }

    /// Returns whether the name still leads to the file that is locked.
    pub(super) fn is_held(&self) -> Result<bool, StoreError> {
        let failed = |error: io::Error| failed(&self.path, "looked at", &error);
        match fs::symlink_metadata(&self.path) {
            Ok(named) => Ok(is_same(&named, &self.file.metadata().map_err(failed)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // To close it would do, but for a child that is between fork and exec at this moment and has it open too.
        let _ = self.file.unlock();
    }
}

/// Opens a file, but no symbolic link. If it is created, only those who share the store can read it.
pub(super) fn open_private(
    path: &Path,
    access: Access,
    options: &mut OpenOptions,
) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;

        // To open a pipe would wait for whoever is at its other end.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(access.mode()).custom_flags(flags.bits().cast_signed());
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// There is nothing to compare in the standard library. A name that is gone is noticed, one that is another file's is not.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
