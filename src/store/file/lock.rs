//! Locked files.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::access::Access;
use super::error::{Failure, failed};
use crate::store::StoreError;

/// An open and locked file, which had its name when it was locked.
///
/// The lock is an advisory lock of the operating system on the open file. It excludes other processes and other handles of
/// this process. Child processes do not inherit it.
pub(super) struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    /// Locks a file, which is created if it does not exist.
    pub(super) fn take(path: &Path, access: Access) -> Result<Self, Failure> {
        Self::open(path, access, OpenOptions::new().create(true))?.ok_or(Failure::Busy)
    }

    /// Creates and locks a file that does not exist.
    pub(super) fn take_new(path: &Path, access: Access) -> Result<Self, Failure> {
        Self::open(path, access, OpenOptions::new().create_new(true))?.ok_or(Failure::Busy)
    }

    /// Locks a file, unless it does not exist.
    pub(super) fn take_existing(path: &Path, access: Access) -> Result<Option<Self>, Failure> {
        Self::open(path, access, &mut OpenOptions::new())
    }

    fn open(
        path: &Path,
        access: Access,
        options: &mut OpenOptions,
    ) -> Result<Option<Self>, Failure> {
        let failed = |error: io::Error| failed(path, "locked", &error);
        let file = match open_private(path, access, options.read(true).write(true)) {
            Ok(file) => file,
            Err(error) => {
                return match error.kind() {
                    // If its folder does not exist either, that is an error.
                    ErrorKind::NotFound if path.parent().is_some_and(Path::is_dir) => Ok(None),
                    ErrorKind::AlreadyExists => Err(Failure::Busy),
                    ErrorKind::PermissionDenied if access.is_being_shared(path) => {
                        Err(Failure::Busy)
                    }
                    _ => Err(failed(error).into()),
                };
            }
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(StoreError::misconfigured(format!(
                "{} is not a regular file: remove it",
                path.display()
            ))
            .into());
        }
        // Another user who owns the lock file can hold it forever.
        if let Err(error) = access.check_owner(path, &metadata) {
            return Err(if access.is_being_shared(path) { Failure::Busy } else { error.into() });
        }
        access.share(&file, path, &metadata)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::Busy,
            TryLockError::Error(error) => failed(error).into(),
        })?;
        let held = Self { file, path: path.to_owned() };
        // The previous holder may have renamed or removed it after it was opened here.
        if held.is_held()? { Ok(Some(held)) } else { Err(Failure::Busy) }
    }

    /// Returns whether the name still leads to the locked file.
    pub(super) fn is_held(&self) -> Result<bool, StoreError> {
        let failed = |error: io::Error| failed(&self.path, "examined", &error);
        match fs::symlink_metadata(&self.path) {
            Ok(named) => Ok(is_same(&named, &self.file.metadata().map_err(failed)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
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
        // Closing it is not enough: a child process between fork and exec may have it open too.
        let _ = self.file.unlock();
    }
}

/// Opens a file, and no symbolic link. If it is created, only the users of the store can read it.
pub(super) fn open_private(
    path: &Path,
    access: Access,
    options: &mut OpenOptions,
) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;

        // Without NONBLOCK, opening a pipe waits for its other end.
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

/// The standard library has nothing to compare. A removed lock file is detected, a replaced one is not.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
