//! The store and its lock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::error::Failure;
use super::lock::Held;
use super::place::{Options, Place};
use super::read;
use super::write::Write;
use crate::store::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] in a file, shared by the processes of one machine.
///
/// Containers can share it too if they mount the same folder. For several machines, use `RedisStore`.
///
/// One file holds one grant. All processes that use it run as the same user, unless you
/// [share it with a group](Self::share_with_group). They may use different versions of this crate.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{FileStore, TokenStore as _};
///
/// # async fn load() -> Result<(), tower_refresh::store::StoreError> {
/// let store = FileStore::new("/var/lib/compass/tokens.json");
/// if store.load().await?.is_none() {
///     println!("log in first: {} does not exist", store.describe());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Options
///
/// | Option | Effect |
/// |---|---|
/// | [`create_dir`](Self::create_dir) | creates the folder if it does not exist |
/// | [`share_with_group`](Self::share_with_group) | the members of the folder's group share the file |
/// | [`allow_network_file_system`](Self::allow_network_file_system) | accepts NFS, SMB and the like |
/// | [`with_place`](Self::with_place) | names the place that an `EncryptedStore` binds the record to |
///
/// # Guarantees
///
/// On a local file system:
///
/// - A reader sees a whole record, either the last one saved or the one before it, even if a process is killed during a save.
/// - When a save has returned, the record is on the disk: the new file is written and synced, renamed over the old one, and the
///   folder is synced. The state after a power failure depends on the file system and the disk, and was not tested.
/// - Saves of several processes run one after the other. Each compares the record that it replaces, and fails if that is
///   another one.
/// - One process at a time holds the lock. The operating system releases the lock when the process ends, `kill -9` included. A
///   process that is stopped (SIGSTOP) or hangs keeps its lock, and the others wait up to their limit.
/// - A save with an [open intent](StoredTokens::has_open_intent) returns only when the disk has room for the next save: twice
///   its size and at least 384 KiB. If the disk is full, the save fails and no refresh token is spent. File systems that copy on
///   write (ZFS, or Btrfs with snapshots) cannot guarantee the room.
/// - A file that cannot be read as a record is left unchanged: an empty, truncated or foreign file, or one of a later version.
///
/// The store cannot detect that an old copy of the file was restored. Its refresh token may be spent, and servers take a spent
/// refresh token for theft. Exclude the file from backups, or log in again after a restore.
///
/// # Files
///
/// | Name | Purpose |
/// |---|---|
/// | `tokens.json` | the record, a new file at each save |
/// | `tokens.json.lock` | locked during a refresh |
/// | `tokens.json.save-lock` | locked during a save |
/// | `tokens.json.new` | written and then renamed; if a killed process leaves it behind, the next save removes it |
/// | `tokens.json.reserved` | room on the disk for the next save, while a refresh token is being spent |
///
/// The locks are advisory locks of the operating system (`flock`). Their files stay. If you remove one while a process holds
/// it, that process [loses](StoreLock::is_held) the lock. Once all processes have ended, only the record is needed. A replaced
/// record is not wiped from the disk.
///
/// All files are created with mode 0600, independent of the umask, so that a record that others could read is private after
/// the next save. The processes must be able to write to the folder.
///
/// A path that is a symbolic link is resolved once, at the first use: a save replaces the target and not the link, and all
/// names of one file share its locks. Hard links are not followed: a save gives the name that it was made under a new file. A
/// file that is mounted by itself, as containers do with single files, cannot be replaced: mount its folder.
///
/// # Owner and mode
///
/// A record that another user owns or can write (`mode & 022`) is refused, and so is a lock file of another user: the owner of
/// a record chooses the account that the program uses. The error names the owner or the mode and the command that corrects it.
///
/// - A program that you run once with `sudo` cannot use the user's record, because the user could not read a record that root has
///   saved.
/// - A file system that makes up owners (shared folders of virtual machines, SMB) takes them from its mount options.
/// - The mode of the folder is not checked, since volumes of containers (`emptyDir`) are writable by all users. A user who can
///   write there can still remove the record, restore an older one, or hold the lock. Let no other user write to the folder.
///
/// # Network file systems
///
/// Locks and renames are unreliable on NFS, SMB and the shared folders of virtual machines, above all if several machines use
/// them. On Linux, the store detects them and is [misconfigured](StoreError::is_misconfigured) unless you
/// [allow them](Self::allow_network_file_system). FUSE counts as one of them, since sshfs, virtiofs and gocryptfs cannot be
/// distinguished. On other systems, they are not detected.
///
/// # Platforms
///
/// Made for Unix and tested on Linux. On macOS, a sync reaches the disk (`F_FULLFSYNC`). On Windows, files inherit the access
/// rights of the folder, a folder cannot be synced, and a replaced lock file is not detected.
///
/// # Runtime
///
/// A tokio runtime with time enabled. File operations run in its blocking threads. If the disk hangs, such a thread stays
/// until the disk answers.
///
/// # Errors
///
/// Each message names the file and the remedy.
///
/// - [Misconfigured](StoreError::is_misconfigured): the folder does not exist, permissions are missing, the file system is
///   read-only or a network file system, the path is a directory or a dangling link, or other users own or can write the file.
/// - [Unreadable](StoreError::is_unreadable): the file exists and holds no record. Nothing is saved until you restore it or move
///   it away.
/// - [Unavailable](StoreError::is_unavailable): the disk is full or broken or did not answer for 30 seconds, or another process
///   has been saving for 5 seconds.
/// - [Held](StoreError::is_held): another process did not release the lock in time.
///
/// # Cancel safety
///
/// If you drop the future of a lock, no lock stays held. If you drop the future of a save, the save may still complete in its
/// thread.
#[doc(alias = "disk")]
#[doc(alias = "persistence")]
#[derive(Clone, Debug)]
#[must_use]
pub struct FileStore {
    path: PathBuf,
    place_name: Option<String>,
    options: Options,
    /// Resolved at the first use that succeeds, so that a symbolic link that is changed later does not lead this process away
    /// from the locks that it holds.
    place: Arc<OnceLock<Place>>,
}

impl FileStore {
    /// Creates a store in the file `path`. The file need not exist, but its folder must.
    ///
    /// A relative path is relative to the working directory at the first use. Nothing is checked before that.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::FileStore;
    ///
    /// let store = FileStore::new("/var/lib/compass/tokens.json").create_dir();
    /// ```
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            place_name: None,
            options: Options::default(),
            place: Arc::default(),
        }
    }

    /// Creates the folder and its parents with mode 0700 at the first use, if they do not exist.
    ///
    /// Do not use this if the folder is the mount point of another disk: while the disk is missing, a new file would begin.
    #[doc(alias = "create_folder")]
    #[doc(alias = "mkdir")]
    pub fn create_dir(self) -> Self {
        self.with_options(|options| options.creates_dir = true)
    }

    /// Accepts a network file system, which is refused by default.
    ///
    /// Use it only for a file that one machine uses, on a file system whose locks and renames work. Otherwise, two machines may
    /// hold the lock at once and spend one refresh token twice, and a save may be lost.
    pub fn allow_network_file_system(self) -> Self {
        self.with_options(|options| options.allows_network = true)
    }

    /// Shares the file with the members of its folder's group, and trusts all of them.
    ///
    /// Files are created for the folder's group with mode 0660, and a record that belongs to the group or that the group can
    /// write is accepted. By default, the record must belong to the user of the process, and no other user may write it. The
    /// folder must be writable for the group and for no other user: `chgrp fleet folder; chmod 2770 folder`.
    ///
    /// Set it in all processes that use the file. It has no effect on Windows.
    #[doc(alias = "allow_group")]
    pub fn share_with_group(self) -> Self {
        self.with_options(|options| options.is_for_group = true)
    }

    /// Sets the [place](TokenStore::place) that an `EncryptedStore` binds the record to. The default is the name of the file.
    ///
    /// The default is the name and not the path, so that the folder can be moved, restored elsewhere or mounted in a container.
    /// If several users have files of the same name in different folders, give each its own place. Otherwise, a program that
    /// can write to the folders can swap their encrypted records.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::{FileStore, TokenStore as _};
    ///
    /// let user = "alice";
    /// let store = FileStore::new(format!("/var/lib/compass/{user}/tokens.json")).with_place(user);
    /// assert_eq!(store.place(), "alice");
    /// ```
    #[doc(alias = "label")]
    pub fn with_place(mut self, place: impl Into<String>) -> Self {
        self.place_name = Some(place.into());
        self
    }

    fn with_options(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self.place = Arc::default();
        self
    }

    fn located(&self) -> Result<&Place, StoreError> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = Place::find(&self.path, self.options)?;
        Ok(self.place.get_or_init(|| place))
    }

    /// Runs `f` in a thread where it may block.
    async fn with<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        f: impl FnOnce(&Place) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.clone();
        in_a_thread(&self.path, move || f(store.located()?)).await
    }

    /// Repeats `attempt` while a file is busy. Returns `None` once `wait` is over.
    ///
    /// It polls, since a thread that waits for a lock cannot be cancelled.
    async fn retry<T: Send + 'static>(
        &self,
        wait: Duration,
        attempt: impl Fn(&Place) -> Result<T, Failure> + Clone + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        runtime(&self.path)?;
        let mut deadline = pin!(sleep(wait));
        let mut is_over = wait.is_zero();
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.with(attempt.clone()).await {
                Ok(done) => return Ok(Some(done)),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Busy) if is_over => return Ok(None),
                Err(Failure::Busy) => {}
            }
            // One more attempt follows the deadline, however long the pauses have become.
            is_over = timeout(pause, deadline.as_mut()).await.is_ok();
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl TokenStore for FileStore {
    type Lock = FileLock;

    async fn lock(&self, wait: Duration) -> Result<FileLock, StoreError> {
        let held = self.retry(wait, |place| Held::take(&place.lock, place.access));
        let held = held.await?.ok_or_else(|| {
            StoreError::held(format!("{} was not unlocked within {wait:?}", self.describe()))
        })?;
        Ok(FileLock { held: Arc::new(held) })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.with(read::load).await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let write = Arc::new(Write::new(record, replaces)?);
        let saved = self.retry(SAVE_WAIT, move |place| write.attempt(place));
        saved.await?.ok_or_else(|| {
            StoreError::unavailable(format!(
                "another process has been saving {} for {SAVE_WAIT:?}: check whether it is stopped or its disk hangs",
                self.describe()
            ))
        })
    }

    fn describe(&self) -> String {
        format!("the file {}", self.path.display())
    }

    /// Returns the place that [`with_place`](FileStore::with_place) has set, or else the name of the file.
    fn place(&self) -> String {
        if let Some(name) = &self.place_name {
            return name.clone();
        }
        // Cached after the first use. Before it, this accesses the file system.
        let path = self.located().map_or(&self.path, |place| &place.data);
        let name = path.file_name().unwrap_or_default();
        match name.to_str() {
            Some(name) => name.to_owned(),
            // Names that are not UTF-8 stay distinct, as they would not with U+FFFD.
            None => name.as_encoded_bytes().escape_ascii().to_string(),
        }
    }
}

/// The lock of a [`FileStore`]. It ends when it is dropped, or with its process.
///
/// It is lost if the lock file is removed or replaced.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{FileLock, FileStore, StoreError, StoreLock as _, TokenStore as _};
///
/// # async fn example(store: FileStore) -> Result<(), StoreError> {
/// let lock: FileLock = store.lock(Duration::from_secs(5)).await?;
/// assert!(lock.is_held().await?);
/// # Ok(())
/// # }
/// ```
pub struct FileLock {
    held: Arc<Held>,
}

impl StoreLock for FileLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        let held = Arc::clone(&self.held);
        in_a_thread(self.held.path(), move || held.is_held()).await
    }

    async fn release(self) {}
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLock").field("path", &self.held.path()).finish_non_exhaustive()
    }
}

/// Runs `f` in a thread where it may block, and waits for it as long as a disk may take.
async fn in_a_thread<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    path: &Path,
    f: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let done = runtime(path)?.spawn_blocking(f);
    let why = match timeout(PATIENCE, done).await {
        Ok(Ok(done)) => return done,
        Ok(Err(_)) => "the runtime is shutting down: await `Credentials::flush` before".to_owned(),
        Err(_) => format!("no answer for {PATIENCE:?}: check whether its disk hangs"),
    };
    Err(StoreError::unavailable(format!("the file {}: {why}", path.display())).into())
}

/// Returns an error where tokio would panic.
fn runtime(path: &Path) -> Result<Handle, StoreError> {
    Handle::try_current().map_err(|_| {
        StoreError::misconfigured(format!(
            "the file {}: no tokio runtime: use the store inside one",
            path.display()
        ))
    })
}

/// A save takes milliseconds. After this time, a process is stopped or a disk does not answer.
const SAVE_WAIT: Duration = Duration::from_secs(5);

/// A busy disk may take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// About the duration of a save.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Short for a request that waits for a token, and forty cheap system calls per second.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
