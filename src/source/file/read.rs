//! Reading a token file, and detecting its changes.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::error::TokenError;

/// The content of the file, wiped when it is dropped.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// Reads the file. Also returns the state of the file before, or `None` if a later change could go unnoticed.
pub(super) fn read(
    path: &Path,
    allows_everyone: bool,
) -> (Option<Stamp>, Result<Content, TokenError>) {
    // Before the file is opened: opening a pipe waits for its writer.
    let metadata = fs::metadata(path);
    let stamp = Stamp::new(&metadata);
    let content = metadata
        .map_err(|error| failed(path, &error))
        .and_then(|metadata| read_regular(path, &metadata, allows_everyone));
    (Some(stamp).filter(Stamp::is_settled), content)
}

fn read_regular(
    path: &Path,
    metadata: &Metadata,
    allows_everyone: bool,
) -> Result<Content, TokenError> {
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(TokenError::misconfigured(format!(
            "the token file {} {kind}: name the file that contains the token",
            path.display()
        )));
    }
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    if !allows_everyone && is_writable_by_everyone(&metadata) {
        return Err(TokenError::misconfigured(format!(
            "the token file {0} can be written by every user of this machine, who could replace the token: run `chmod o-w {0}`, or see `TokenFile::allow_writable_by_everyone`",
            path.display()
        )));
    }
    // One allocation for all: a vector that grows leaves copies behind that are not wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 1));
    file.take(MAX_LENGTH as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| failed(path, &error))?;
    if content.len() > MAX_LENGTH {
        return Err(TokenError::misconfigured(format!(
            "the token file {} is longer than {MAX_LENGTH} bytes: it must contain only the token",
            path.display()
        )));
    }
    Ok(content)
}

fn failed(path: &Path, error: &io::Error) -> TokenError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => TokenError::transient(format!(
            "the token file {path} does not exist: check the path and the program that writes it"
        )),
        io::ErrorKind::PermissionDenied => TokenError::misconfigured(format!(
            "the token file {path} may not be read by this process: change its owner or mode"
        )),
        _ => TokenError::transient(format!("the token file {path} cannot be read: {error}")),
    }
}

#[cfg(unix)]
fn is_writable_by_everyone(metadata: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o002 != 0
}

#[cfg(not(unix))]
fn is_writable_by_everyone(_: &Metadata) -> bool {
    false
}

/// The state of a file without its content. Two states are equal if the file has not changed in between.
///
/// Links are followed, so that a link to another file is a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    state: Result<State, io::ErrorKind>,
    changed: Option<SystemTime>,
}

/// Device, inode, length, and the time of the last change of the inode, which every write changes.
#[cfg(unix)]
type State = (u64, u64, u64, i64, i64);

/// Length and time of creation.
#[cfg(not(unix))]
type State = (u64, Option<SystemTime>);

impl Stamp {
    /// Returns the current state without opening the file.
    pub(super) fn of(path: &Path) -> Self {
        Self::new(&fs::metadata(path))
    }

    fn new(metadata: &io::Result<Metadata>) -> Self {
        match metadata {
            Ok(metadata) => Self { state: Ok(state(metadata)), changed: metadata.modified().ok() },
            Err(error) => Self { state: Err(error.kind()), changed: None },
        }
    }

    /// Returns whether the last change is so long ago that the next change has another time.
    #[expect(clippy::disallowed_methods, reason = "compared with the time of a file")]
    fn is_settled(&self) -> bool {
        let Some(changed) = self.changed else { return true };
        is_long_ago(changed, SystemTime::now())
    }
}

fn is_long_ago(changed: SystemTime, now: SystemTime) -> bool {
    let since_epoch = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let resolution = match since_epoch.subsec_nanos() {
        0 => COARSE_RESOLUTION,
        _ => RESOLUTION,
    };
    let apart = now.duration_since(changed).or_else(|_| changed.duration_since(now));
    apart.is_ok_and(|apart| apart > resolution)
}

#[cfg(unix)]
fn state(metadata: &Metadata) -> State {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn state(metadata: &Metadata) -> State {
    (metadata.len(), metadata.created().ok())
}

/// More than any server accepts in a header.
pub(super) const MAX_LENGTH: usize = 64 * 1024;

/// The longest time between two changes of a file with the same time: a tick of the kernel's clock, and a reserve.
const RESOLUTION: Duration = Duration::from_millis(50);

/// The same on a file system whose times are whole seconds or, as those of FAT, every other one.
const COARSE_RESOLUTION: Duration = Duration::from_millis(2_050);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_within_the_resolution_of_file_times_is_not_settled() {
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (changed, apart, is_settled) in [
            (second + Duration::from_nanos(1), 49, false),
            (second + Duration::from_nanos(1), 51, true),
            // The file may have changed at any moment of that second or of the next.
            (second, 51, false),
            (second, 1_999, false),
            (second, 2_051, true),
        ] {
            let now = changed + Duration::from_millis(apart);
            assert_eq!(is_long_ago(changed, now), is_settled, "{changed:?} {apart}");
        }
    }
}
