//! A store in a file.

mod access;
mod lock;
mod place;
mod write;

#[cfg(all(test, unix))]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use self::lock::{Held, Taken};
use self::place::{Options, Place};
use self::write::Write;
use super::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] in a file, shared by the processes of one machine, or by its containers if they have the folder in
/// common.
///
/// ```
/// use tower_refresh::store::{FileStore, TokenStore as _};
///
/// # async fn load() -> Result<(), tower_refresh::store::StoreError> {
/// let store = FileStore::new("/var/lib/compass/tokens.json");
/// if store.load().await?.is_none() {
///     println!("nobody has logged in yet: {} does not exist", store.describe());
/// }
/// # Ok(())
/// # }
/// ```
///
/// One file is for one grant. All processes that use it run as the same user, unless a [group](Self::allow_group) shares it;
/// each may have its own version of this crate. Nothing is checked before the first use.
///
/// # What is guaranteed
///
/// On a local file system:
///
/// - A reader sees a whole record, the last that was saved or the one before it, whatever is killed in the middle.
/// - Once a save has returned, the record and its place in the folder were synced to the disk, in this order: the new file
///   is written and synced, renamed over the old one, and the folder is synced. What a loss of power leaves behind is up to
///   the file system and the disk, and was not tried.
/// - Saves of all processes come one after the other, and each finds what it replaces as it was told, or fails.
/// - One process at a time holds the lock, and the operating system ends it with the process, `kill -9` included. One
///   that is stopped (SIGSTOP) or hangs keeps what it holds, and the others wait as long as they are told to.
/// - A save that says that a refresh token is about to be spent returns only once there is room on the disk for the next
///   one, twice its size and at least 384 KiB. A disk that is full fails it, and nothing is spent. File systems that write
///   a copy of what they overwrite (ZFS, or Btrfs with snapshots) cannot promise the room.
/// - What cannot be understood is left as it is: a file that is empty, cut short, something else, or written by a later
///   version.
///
/// It is not guaranteed that what is stored is the latest: whoever puts an old copy of the file in place puts back a
/// refresh token that may be spent, which servers take for theft. Leave the file out of backups, or log in again after a
/// restore.
///
/// # Files
///
/// | name | what it is |
/// |---|---|
/// | `tokens.json` | the record, a new file at each save |
/// | `tokens.json.lock` | is locked for as long as a refresh takes |
/// | `tokens.json.save-lock` | is locked for the moment of a save |
/// | `tokens.json.new` | is written and then renamed; a killed process leaves it behind, and the next save removes it |
/// | `tokens.json.reserved` | room on the disk for the next save, while a refresh token is being spent |
///
/// The locks are advisory ones of the operating system (`flock`), and their files stay: to remove one while somebody holds
/// it makes that lock [lost](StoreLock::is_held). No process needs any of them but the record once all have ended. What is
/// replaced is not wiped from the disk.
///
/// All files are created with mode 0600, whatever the umask, and so a record that was readable by others is not after the
/// next save. The folder must be writable for the processes. A path that is a symbolic link
/// is followed once, at the first use: what it points to is replaced, and not the link, and all names of one file share its
/// locks. Hard links are not followed: a save gives the name that it was made under a file of its own. Neither can a file
/// be replaced that is mounted by itself, as containers do with single files: mount its folder.
///
/// # Owner and mode
///
/// A record that another user owns or can write (`mode & 022`) is refused, and so is a lock file of another user: the owner of
/// a record chooses the account that the program uses. The error names the owner or the mode and the command that corrects it.
/// [`allow_group`](Self::allow_group) is for several users who share a record.
///
/// - A program that is run once with `sudo` is refused the record of the user. If the record were saved as root, the user
///   could no longer read it.
/// - A file system that makes up owners (shared folders of virtual machines, SMB) takes them from its mount options.
/// - The mode of the folder is not checked: volumes of containers (`emptyDir`) are writable by all. A user who can write there
///   can still remove the record, put back an older one that they kept a link to, or hold up the lock. Let no other user write
///   to the folder.
///
/// # Network file systems
///
/// Locks and renames are not to be relied upon on NFS, SMB and the shared folders of virtual machines, least of all from
/// several machines. Where they are recognised, on Linux, the store refuses to work, unless it is [told
/// otherwise](Self::allow_network_file_system); elsewhere they are not. FUSE counts as one of them, since sshfs, virtiofs
/// and gocryptfs look the same from above. For several machines there is the Redis store.
///
/// # Platforms
///
/// Made for Unix and tested on Linux. On macOS a sync goes through to the disk (`F_FULLFSYNC`). On Windows there is no mode
/// 0600 and access is what the folder passes on, a folder cannot be synced, and a lock file that somebody replaces is not
/// noticed.
///
/// # The runtime
///
/// A tokio runtime with time enabled. What may block is done in its blocking threads; one whose disk hangs stays until the
/// disk answers.
///
/// # Errors
///
/// Each names the file and says what to do.
///
/// - [Misconfigured](StoreError::is_misconfigured): no folder, no permission, a read-only or network file system, a
///   directory or a dangling link in place of the file, a file that others own or can write.
/// - [Unreadable](StoreError::is_unreadable): the file is there and holds no record. Nothing is saved until somebody
///   restores it or moves it away.
/// - [Unavailable](StoreError::is_unavailable): the disk is full or broken, it did not answer for 30 seconds,
///   or another process has been saving for 5.
/// - [Held](StoreError::is_held): another process did not let go of the lock in time.
///
/// # Cancel safety
///
/// A wait for a lock that is dropped leaves nothing held. A save whose future is dropped may go on in its thread, to its
/// end.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
    label: Option<String>,
    options: Options,
    /// Worked out at the first use that finds everything in order, so that a link that is changed later does not lead one
    /// process elsewhere than to the locks that it holds.
    place: Arc<OnceLock<Place>>,
}

impl FileStore {
    /// Makes a store of the file of this name. It need not exist, but its folder must.
    ///
    /// A relative path is taken from the directory that the process is in at the first use.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), label: None, options: Options::default(), place: Arc::default() }
    }

    /// Creates the folder at the first use if it does not exist, and those above it, with mode 0700.
    ///
    /// Do not set it if the folder is where another disk is mounted: while that is missing, a new file would begin.
    #[must_use]
    pub fn create_folder(mut self) -> Self {
        self.options.creates_folder = true;
        self.place = Arc::default();
        self
    }

    /// Uses a network file system too, which is refused by default.
    ///
    /// Two machines may then hold the lock at once and spend one refresh token twice, and a save may be lost. Only for a
    /// file that one machine uses, on a file system whose locks and renames work.
    #[must_use]
    pub fn allow_network_file_system(mut self) -> Self {
        self.options.allows_network = true;
        self.place = Arc::default();
        self
    }

    /// Shares the file with the other users of its folder's group, and trusts all of them.
    ///
    /// Files are then created for the folder's group with mode 0660, and a record that belongs to the group or that the group
    /// can write is used. By default, the record has to belong to the user of the process, and be writable for no other. The
    /// folder must be writable for the group and for no other user: `chgrp fleet folder; chmod 2770 folder`.
    ///
    /// All processes that use the file need it. It has no effect on Windows.
    #[must_use]
    pub fn allow_group(mut self) -> Self {
        self.options.allows_group = true;
        self.place = Arc::default();
        self
    }

    /// Sets the [place](TokenStore::place) that an `EncryptedStore` binds the record to; the name of the file by default.
    ///
    /// The default is the name and not the path, so that a folder can be moved, restored elsewhere or mounted in a container.
    /// If several users have files of the same name in different folders, give each its own label. Otherwise, their sealed
    /// records can be swapped by a program that can write to the folders.
    ///
    /// ```
    /// use tower_refresh::store::{FileStore, TokenStore as _};
    ///
    /// let user = "alice";
    /// let store = FileStore::new(format!("/var/lib/compass/{user}/tokens.json")).label(user);
    /// assert_eq!(store.place(), "alice");
    /// ```
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    fn located(&self) -> Result<&Place, StoreError> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = Place::find(&self.path, self.options)?;
        Ok(self.place.get_or_init(|| place))
    }

    /// Does something with the files, in a thread where it may block.
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Place) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        in_a_thread(&self.path, move || f(store.located()?)).await
    }

    /// Tries again until somebody else is out of the way, or `wait` is over, which is none.
    ///
    /// By tries, since a thread that waits for a lock cannot be called back.
    async fn patiently<T: Send + 'static>(
        &self,
        wait: Duration,
        attempt: impl Fn(&Place) -> Result<Option<T>, StoreError> + Clone + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        runtime(&self.path)?;
        let mut deadline = pin!(sleep(wait));
        let mut is_over = wait.is_zero();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let done = self.with(attempt.clone()).await?;
            if done.is_some() || is_over {
                return Ok(done);
            }
            // Once more when it is over, however long the pauses have become.
            is_over = timeout(pause, deadline.as_mut()).await.is_ok();
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl TokenStore for FileStore {
    type Lock = FileLock;

    async fn lock(&self, wait: Duration) -> Result<FileLock, StoreError> {
        let held = self.patiently(wait, |place| match Held::take(&place.lock, place.access)? {
            Taken::Held(held) => Ok(Some(Arc::new(held))),
            Taken::Busy | Taken::Missing => Ok(None),
        });
        match held.await? {
            Some(held) => Ok(FileLock { held }),
            None => Err(StoreError::held(format!(
                "{} was not unlocked within {wait:?}",
                self.describe()
            ))),
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.with(write::load).await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let write = Arc::new(Write::new(record, replaces)?);
        let saved = self.patiently(SAVE_WAIT, move |place| write.attempt(place));
        saved.await?.ok_or_else(|| {
            StoreError::unavailable(format!(
                "another process has been saving {} for {SAVE_WAIT:?}: see whether it is stopped or its disk hangs",
                self.describe()
            ))
        })
    }

    fn describe(&self) -> String {
        format!("the file {}", self.path.display())
    }

    /// Returns the [label](FileStore::label), or else the name of the file that the path leads to.
    fn place(&self) -> String {
        if let Some(label) = &self.label {
            return label.clone();
        }
        // Cached from the first use on. Before that, this looks at the file system.
        let path = self.located().map_or(&self.path, |place| &place.data);
        let name = path.file_name().unwrap_or_default();
        match name.to_str() {
            Some(name) => name.to_owned(),
            // Two such names are two places, which they would not be with U+FFFD in them.
            None => name.as_encoded_bytes().escape_ascii().to_string(),
        }
    }
}

/// The lock of a [`FileStore`]. It ends when it is dropped, and with its process.
///
/// It is lost if somebody removes or replaces the lock file.
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

/// Does something with a file in a thread where it may block, and waits for it as long as a disk may take.
async fn in_a_thread<T: Send + 'static>(
    path: &Path,
    f: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = runtime(path)?.spawn_blocking(f);
    let why = match timeout(PATIENCE, done).await {
        Ok(Ok(done)) => return done,
        Ok(Err(_)) => "the runtime shuts down".to_owned(),
        Err(_) => format!("nothing was done for {PATIENCE:?}: see whether its disk hangs"),
    };
    Err(StoreError::unavailable(format!("the file {}: {why}", path.display())))
}

/// Returns an error where tokio would panic.
fn runtime(path: &Path) -> Result<Handle, StoreError> {
    Handle::try_current().map_err(|_| {
        StoreError::misconfigured(format!(
            "the file {}: there is no tokio runtime here: use the store from within one",
            path.display()
        ))
    })
}

/// A save takes milliseconds; this is a process that is stopped, or a disk that does not answer.
const SAVE_WAIT: Duration = Duration::from_secs(5);

/// A disk that is busy may take seconds; one that does not answer may take forever.
const PATIENCE: Duration = Duration::from_secs(30);

/// About what a save takes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Nothing to a request that waits for a token, and forty cheap system calls a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
