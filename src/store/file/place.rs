//! Where the file is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::access::Access;
use crate::store::StoreError;

/// The names of all files of one store. Every path to the same file leads to the same names.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// The record.
    pub(super) data: PathBuf,
    /// Locked for as long as a flight takes.
    pub(super) lock: PathBuf,
    /// Locked for the moment of a save.
    pub(super) save_lock: PathBuf,
    /// Written, and then renamed to `data`.
    pub(super) new: PathBuf,
    /// Room for the next save, and used by it in place of `new`.
    pub(super) reserved: PathBuf,
    pub(super) access: Access,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) creates_folder: bool,
    pub(super) allows_network: bool,
    pub(super) allows_group: bool,
}

impl Place {
    pub(super) fn find(path: &Path, options: Options) -> Result<Self, StoreError> {
        let data = real_path(path, options)?;
        let (Some(folder), Some(name)) = (data.parent(), data.file_name()) else {
            return Err(names_no_file(path));
        };
        if SUFFIXES.iter().any(|suffix| ends_with(name, suffix)) {
            return Err(StoreError::misconfigured(format!(
                "{} has the name of a file that is kept beside the record: choose one that does not end with {}",
                data.display(),
                SUFFIXES.join(", ")
            )));
        }
        if !options.allows_network
            && let Some(kind) = network(folder)?
        {
            return Err(StoreError::misconfigured(format!(
                "the folder {} is on {kind}, where locks and renames are not to be relied upon: choose one on a local disk, or see `allow_network_file_system`",
                folder.display()
            )));
        }
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            folder.join(name)
        };
        let [lock, save_lock, new, reserved] = SUFFIXES.map(beside);
        let access = access(folder, options)?;
        Ok(Self { folder: folder.to_owned(), lock, save_lock, new, reserved, data, access })
    }
}

#[cfg(unix)]
fn access(folder: &Path, options: Options) -> Result<Access, StoreError> {
    if !options.allows_group {
        return Ok(Access::User);
    }
    let metadata = fs::metadata(folder).map_err(|error| failed(folder, "looked at", &error))?;
    Access::of_group(folder, &metadata)
}

#[cfg(not(unix))]
fn access(_: &Path, options: Options) -> Result<Access, StoreError> {
    let _ = options.allows_group;
    Ok(Access::User)
}

const SUFFIXES: [&str; 4] = [".lock", ".save-lock", ".new", ".reserved"];

fn ends_with(name: &OsStr, suffix: &str) -> bool {
    name.as_encoded_bytes().ends_with(suffix.as_bytes())
}

/// Returns the path without links, of a file that need not exist.
fn real_path(path: &Path, options: Options) -> Result<PathBuf, StoreError> {
    let name = path.file_name().ok_or_else(|| names_no_file(path))?;
    match fs::symlink_metadata(path) {
        Ok(metadata) => match fs::canonicalize(path) {
            Ok(path) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && metadata.is_symlink() => {
                return Err(StoreError::misconfigured(format!(
                    "{} is a symbolic link that leads nowhere: remove it, or name the file that it should lead to",
                    path.display()
                )));
            }
            Err(error) => return Err(failed(path, "looked at", &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(path, "looked at", &error)),
    }

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if options.creates_folder {
        create(folder).map_err(|error| failed(folder, "created", &error))?;
    }
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::misconfigured(format!(
                "the folder {} does not exist: create it, or see `create_folder`",
                folder.display()
            )))
        }
        Err(error) => Err(failed(path, "looked at", &error)),
    }
}

fn names_no_file(path: &Path) -> StoreError {
    StoreError::misconfigured(format!("`{}` names no file: name one", path.display()))
}

/// Creates a folder that nobody else may enter, and those above it, to stay.
fn create(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create(above)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Ok(()) => {}
        // Another process was faster.
        Err(_) if folder.is_dir() => return Ok(()),
        Err(error) => return Err(error),
    }
    match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => sync_folder(above),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes the names in a folder as durable as its file system can.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Err(error) = fs::File::open(folder)?.sync_all() {
        // Some file systems cannot, and say so.
        return match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        };
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Says what went wrong with a file, and what to do about it.
///
/// Nobody but a human mends what is wrong with a path, its permissions or its mounts; all else may be better later.
pub(super) fn failed(path: &Path, done: &str, error: &io::Error) -> StoreError {
    use io::ErrorKind;

    let path = path.display();
    #[cfg(unix)]
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP) {
        return StoreError::misconfigured(format!(
            "{path} cannot be {done}: it has become a symbolic link, or goes round in links: remove it, and restart the program"
        ));
    }
    match error.kind() {
        ErrorKind::PermissionDenied => StoreError::misconfigured(format!(
            "{path} may not be {done} by this process: change the owner or mode of it and of its folder"
        )),
        ErrorKind::ReadOnlyFilesystem => StoreError::misconfigured(format!(
            "{path} cannot be {done}: its file system is read-only: mount it writable, or name a file elsewhere"
        )),
        ErrorKind::NotFound => StoreError::misconfigured(format!(
            "{path} cannot be {done}: it or its folder does not exist any more: create the folder, or mount it"
        )),
        ErrorKind::NotADirectory => StoreError::misconfigured(format!(
            "{path} cannot be {done}: its folder is no folder: correct the path"
        )),
        ErrorKind::IsADirectory => StoreError::misconfigured(format!(
            "{path} cannot be {done}: it is a directory: remove it, or name a file"
        )),
        ErrorKind::InvalidFilename => StoreError::misconfigured(format!(
            "{path} cannot be {done}: the name is too long: choose a shorter one"
        )),
        ErrorKind::Unsupported => StoreError::misconfigured(format!(
            "{path} cannot be {done}: its file system cannot do it: name a file elsewhere"
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::unavailable(format!(
            "{path} cannot be {done}: the disk or the quota is full: make room"
        )),
        _ => StoreError::unavailable(format!("{path} cannot be {done}: {error}")),
    }
}

/// Returns what a folder is on, if machines may share it, or if that cannot be known.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn network(folder: &Path) -> Result<Option<&'static str>, StoreError> {
    let statfs = rustix::io::retry_on_intr(|| rustix::fs::statfs(folder))
        .map_err(|error| failed(folder, "looked at", &error.into()))?;
    // All of them have 32 bits, in types of different lengths.
    Ok(network_by_magic(statfs.f_type as u32))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn network(_: &Path) -> Result<Option<&'static str>, StoreError> {
    Ok(None)
}

/// The numbers are those of statfs(2) and of the file systems' own sources.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn network_by_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE, which may be a network's",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        0x0bd0_0bd0 => "Lustre",
        0x786f_4256 => "a shared folder of VirtualBox",
        0xbacb_acbc => "a shared folder of VMware",
        0x7c7c_6673 => "a shared folder of Parallels",
        _ => return None,
    })
}
