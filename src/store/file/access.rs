//! Who may own and write the files of a store.
//!
//! A record that another user can write chooses the account that the program uses, and receives its next refresh token.

use std::fs::{File, Metadata};
use std::path::Path;

use crate::store::StoreError;

/// Who shares the files of one store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// The processes of one user.
    User,
    /// The members of the folder's group, by its number.
    #[cfg(unix)]
    Group(u32),
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    use std::time::{Duration, SystemTime};

    use super::super::place::failed;
    use super::{Access, File, Metadata, Path, StoreError};

    impl Access {
        /// Returns the access of the members of a folder's group.
        pub(in super::super) fn of_group(
            folder: &Path,
            metadata: &Metadata,
        ) -> Result<Self, StoreError> {
            if metadata.mode() & 0o002 != 0 {
                return Err(StoreError::misconfigured(format!(
                    "the folder {0} can be written by every user, and the store in it is for the folder's group: run `chmod o-w {0}`",
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

        /// Gives a file that this process has created to those who share it. The umask does not count.
        ///
        /// Refuses a file that has another name: a member of the group may have linked a file here that is not the store's.
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
                    "{} is a hard link to a file of another name, which is not shared with the group: remove it",
                    path.display()
                )));
            }
            fchown(file, None, Some(gid))
                .and_then(|()| file.set_permissions(Permissions::from_mode(self.mode())))
                .map_err(|error| failed(path, "shared with the group", &error))
        }

        /// Returns whether another member of the group may be about to share a file that this process may not open: it is
        /// created first, with the mode that the umask leaves, and then given to the group.
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

        /// Refuses a file that others own.
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
                        "{path} belongs to user {owner}, and this process runs as user {user}: run it as the owner (`sudo -u '#{owner}' …`), give the file to this user (`chown {user} {path}`) if its content is to be trusted, or see `FileStore::allow_group`"
                    )
                }
                Self::Group(gid) => format!(
                    "{path} belongs to user {owner} and group {}, and its folder to group {gid}: run `chgrp {gid} {path}` if its content is to be trusted",
                    metadata.gid()
                ),
            }))
        }

        /// Refuses a record that others own or can write.
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
                Self::User if mode & 0o002 == 0 => ", or see `FileStore::allow_group`",
                _ => "",
            };
            Err(StoreError::misconfigured(format!(
                "{path} can be written by other users (mode {mode:04o}): see that its content is to be trusted, and run `chmod {remedy} {path}`{group}"
            )))
        }

        /// Returns whether a file can only have been made by those who share the store, and has one name only: to write
        /// into another would show the tokens to others, or destroy what is behind the other name.
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

    /// Two system calls, and what a busy machine puts between them.
    const SHARING: Duration = Duration::from_secs(1);
}

/// Access is what the folder passes on.
#[cfg(not(unix))]
impl Access {
    pub(super) fn share(self, _: &File, _: &Path, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn is_being_shared(self, _: &Path) -> bool {
        false
    }

    pub(super) fn check_owner(self, _: &Path, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn check(self, _: &Path, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(super) fn is_ours(self, metadata: &Metadata) -> bool {
        metadata.is_file()
    }
}
