//! The paths of the files of one store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::access::Access;
use super::error::failed;
use crate::store::StoreError;

/// The paths of all files of one store. All paths to one record resolve to the same `Place`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// The record.
    pub(super) data: PathBuf,
    /// Locked during a refresh.
    pub(super) lock: PathBuf,
    /// Locked during a save.
    pub(super) save_lock: PathBuf,
    /// Written and then renamed to `data`.
    pub(super) new: PathBuf,
    /// Room on the disk for the next save, which writes into it instead of `new`.
    pub(super) reserved: PathBuf,
    pub(super) access: Access,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) creates_dir: bool,
    pub(super) allows_network: bool,
    pub(super) is_for_group: bool,
}

impl Place {
    pub(super) fn find(path: &Path, options: Options) -> Result<Self, StoreError> {
        let data = real_path(path, options)?;
        let (Some(folder), Some(name)) = (data.parent(), data.file_name()) else {
            return Err(names_no_file(path));
        };
        if SUFFIXES.iter().any(|suffix| name.as_encoded_bytes().ends_with(suffix.as_bytes())) {
            return Err(StoreError::misconfigured(format!(
                "{} has the name of a file that the store keeps beside the record: choose one that does not end with {}",
                data.display(),
                SUFFIXES.join(", ")
            )));
        }
        if !options.allows_network
            && let Some(kind) = network(folder)?
        {
            return Err(StoreError::misconfigured(format!(
                "the folder {} is on {kind}, where locks and renames are unreliable: choose one on a local disk, or see `FileStore::allow_network_file_system`",
                folder.display()
            )));
        }
        let beside = |suffix: &str| {
            let mut name = name.to_owned();
            name.push(suffix);
            folder.join(name)
        };
        let [lock, save_lock, new, reserved] = SUFFIXES.map(beside);
        let access = if options.is_for_group { Access::of_group(folder)? } else { Access::User };
        Ok(Self { folder: folder.to_owned(), lock, save_lock, new, reserved, data, access })
    }
}

const SUFFIXES: [&str; 4] = [".lock", ".save-lock", ".new", ".reserved"];

/// Resolves the links in the path of a file that need not exist.
fn real_path(path: &Path, options: Options) -> Result<PathBuf, StoreError> {
    let name = path.file_name().ok_or_else(|| names_no_file(path))?;
    match fs::symlink_metadata(path) {
        Ok(metadata) => match fs::canonicalize(path) {
            Ok(path) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && metadata.is_symlink() => {
                return Err(StoreError::misconfigured(format!(
                    "{} is a dangling symbolic link: remove it, or create its target",
                    path.display()
                )));
            }
            Err(error) => return Err(failed(path, "examined", &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(path, "examined", &error)),
    }

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if options.creates_dir {
        create(folder).map_err(|error| failed(folder, "created", &error))?;
    }
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::misconfigured(format!(
                "the folder {} does not exist: create it, or see `FileStore::create_dir`",
                folder.display()
            )))
        }
        Err(error) => Err(failed(path, "examined", &error)),
    }
}

fn names_no_file(path: &Path) -> StoreError {
    StoreError::misconfigured(format!("`{}` is not the path of a file: choose one", path.display()))
}

/// Creates a folder and its parents with mode 0700, and syncs them.
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
        // Another process has created it meanwhile.
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
        // Some file systems do not support it.
        return match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        };
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Returns the kind of a file system that several machines may share.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn network(folder: &Path) -> Result<Option<&'static str>, StoreError> {
    let statfs = rustix::io::retry_on_intr(|| rustix::fs::statfs(folder))
        .map_err(|error| failed(folder, "examined", &error.into()))?;
    // The numbers have 32 bits, in types of different lengths.
    Ok(network_by_magic(statfs.f_type as u32))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn network(_: &Path) -> Result<Option<&'static str>, StoreError> {
    Ok(None)
}

/// The numbers are from statfs(2) and the sources of the file systems.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn network_by_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE, which may be a network file system",
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
