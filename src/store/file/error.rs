//! Errors of the operating system, with the remedy.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::store::StoreError;

/// Returns the error for a file that cannot be read, written or the like (`done`).
///
/// An error in the path, its permissions or its mounts stays until a person corrects it. Any other error may pass.
pub(super) fn failed(path: &Path, done: &str, error: &io::Error) -> StoreError {
    let path = path.display();
    let remedy = match error.kind() {
        #[cfg(unix)]
        _ if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP) => {
            "it has become a symbolic link, or a link leads back to itself: remove it, and restart the program"
        }
        ErrorKind::PermissionDenied => {
            "permission denied: change the owner or mode of the file and of its folder"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "its file system is read-only: mount it writable, or choose a file elsewhere"
        }
        ErrorKind::NotFound => "it or its folder no longer exists: create the folder, or mount it",
        ErrorKind::NotADirectory => "its folder is not a directory: correct the path",
        ErrorKind::IsADirectory => "it is a directory: remove it, or choose a file",
        ErrorKind::InvalidFilename => "the name is too long: choose a shorter one",
        ErrorKind::Unsupported => "its file system does not support this: choose a file elsewhere",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            return StoreError::unavailable(format!(
                "{path} cannot be {done}: the disk or the quota is full: make room"
            ));
        }
        _ => return StoreError::unavailable(format!("{path} cannot be {done}: {error}")),
    };
    StoreError::misconfigured(format!("{path} cannot be {done}: {remedy}"))
}

/// The reason why an attempt to lock or to save failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another handle holds a file, or has just given its name to another file: try again.
    Busy,
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
