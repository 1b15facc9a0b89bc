//! Owners, groups and modes.

use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Access;
use crate::store::StoreError;
use crate::store::file::error::failed;

impl Access {
    /// Returns access for the members of a folder's group.
    pub(in super::super) fn of_group(folder: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(folder).map_err(|error| failed(folder, "examined", &error))?;
        if metadata.mode() & 0o002 != 0 {
            return Err(StoreError::misconfigured(format!(
                "every user can write to the folder {0}, and the store in it is shared with its group only: run `chmod o-w {0}`",
                folder.display()
            )));
        }
        Ok(Self::Group(metadata.gid()))
    }

    /// Returns the mode of new files.
    pub(in super::super) fn mode(self) -> u32 {
        match self {
            Self::User => 0o600,
            Self::Group(_) => 0o660,
        }
    }

    /// Gives a file of this user to the group, independent of the umask.
    ///
    /// Refuses a file that has a second name: a member of the group may have linked a foreign file here.
    pub(in super::super) fn share(
        self,
        file: &File,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), StoreError> {
        let Self::Group(gid) = self else { return Ok(()) };
        let is_shared = metadata.gid() == gid && metadata.mode() & 0o777 == self.mode();
        if is_shared || !is_this_users(metadata) {
            return Ok(());
        }
        if metadata.nlink() != 1 {
            return Err(StoreError::misconfigured(format!(
                "{} is a hard link to another file, which is not shared with the group: remove it",
                path.display()
            )));
        }
        fchown(file, None, Some(gid))
            .and_then(|()| file.set_permissions(Permissions::from_mode(self.mode())))
            .map_err(|error| failed(path, "shared with the group", &error))
    }

    /// Returns whether another process may be about to share this file: a file is created with the mode that the umask
    /// leaves, and then given to the group.
    #[expect(clippy::disallowed_methods, reason = "compared with the time of a file")]
    pub(in super::super) fn is_being_shared(self, path: &Path) -> bool {
        let Self::Group(_) = self else { return false };
        let Ok(metadata) = fs::symlink_metadata(path) else { return false };
        let now = SystemTime::now();
        metadata.modified().is_ok_and(|created| {
            let apart = now.duration_since(created).or_else(|_| created.duration_since(now));
            apart.is_ok_and(|apart| apart < SHARING)
        })
    }

    /// Refuses a file of another owner.
    pub(in super::super) fn check_owner(
        self,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), StoreError> {
        if self.includes_owner(metadata) {
            return Ok(());
        }
        let (path, owner) = (path.display(), metadata.uid());
        Err(StoreError::misconfigured(match self {
            Self::User => {
                let user = rustix::process::geteuid().as_raw();
                format!(
                    "{path} belongs to user {owner}, and this process runs as user {user}: run it as the owner (`sudo -u '#{owner}' …`), give the file to this user (`chown {user} {path}`) if you trust its content, or see `FileStore::share_with_group`"
                )
            }
            Self::Group(gid) => format!(
                "{path} belongs to user {owner} and group {}, and its folder to group {gid}: run `chgrp {gid} {path}` if you trust its content",
                metadata.gid()
            ),
        }))
    }

    /// Refuses a record that another user owns or can write.
    pub(in super::super) fn check(
        self,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), StoreError> {
        self.check_owner(path, metadata)?;
        let (others, remedy) = match self {
            Self::User => (0o022, "go-w"),
            Self::Group(_) => (0o002, "o-w"),
        };
        let mode = metadata.mode() & 0o777;
        if mode & others == 0 {
            return Ok(());
        }
        let path = path.display();
        let group = match self {
            Self::User if mode & 0o002 == 0 => ", or see `FileStore::share_with_group`",
            _ => "",
        };
        Err(StoreError::misconfigured(format!(
            "{path} can be written by other users (mode {mode:04o}): check whether you trust its content, and run `chmod {remedy} {path}`{group}"
        )))
    }

    /// Returns whether a user of the store has created the file, and whether it has one name only. Writing into any
    /// other file would disclose the tokens or destroy a foreign file.
    pub(in super::super) fn is_ours(self, metadata: &Metadata) -> bool {
        metadata.is_file()
            && metadata.nlink() == 1
            && metadata.mode() & 0o777 & !self.mode() == 0
            && self.includes_owner(metadata)
    }

    fn includes_owner(self, metadata: &Metadata) -> bool {
        is_this_users(metadata) || matches!(self, Self::Group(gid) if metadata.gid() == gid)
    }
}

fn is_this_users(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// The time between two system calls, on a busy machine.
const SHARING: Duration = Duration::from_secs(1);
