//! A token that somebody else keeps fresh in a file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Cause, Renewal, TokenSource};
use crate::error::TokenError;
use crate::token::{AccessToken, TokenSet};

/// A source that reads the token from a file, again and again: a Kubernetes projected service account token, or whatever
/// a sidecar writes.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::TokenFile;
///
/// let source = TokenFile::new("/var/run/secrets/tokens/api").reread_every(Duration::from_secs(30));
/// ```
///
/// Whitespace around the token is trimmed. The file may be replaced or written in place: a token counts once two
/// readings a few milliseconds apart agree.
///
/// # How long a token is used
///
/// The file is read again [when the interval is over](Self::reread_every) and a request needs the token, behind that
/// request's back. If that fails, the token at hand stays in use, and the file is looked at again after a cooldown. No
/// expiry is read out of the token, even if it is a JWT: whoever writes the file replaces it in good time, and a token
/// that a server rejects is read again at once.
///
/// # Errors
///
/// Each names the file and says what to do. A file that is missing, empty or being written may be there a moment later
/// ([transient](TokenError::is_transient)); one that may not be read, or that holds something else than a token, must be
/// mended ([misconfigured](TokenError::is_misconfigured)). If a server rejected the token and the file still has it, that
/// is transient: whoever writes the file has yet to replace it.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    reread_every: Duration,
}

impl TokenFile {
    /// Makes a source of the token in this file. It is first read when a token is wanted.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reread_every: REREAD_EVERY }
    }

    /// Sets how long a token is used before the file is read again; 60 seconds by default.
    ///
    /// The kubelet replaces a projected token when a fifth of its lifetime is left, and takes about a minute to do it.
    #[must_use]
    pub fn reread_every(mut self, interval: Duration) -> Self {
        self.reread_every = interval;
        self
    }

    /// Reads the file until two readings agree.
    async fn read_settled(&self) -> Result<Content, TokenError> {
        let mut last = self.read().await?;
        for _ in 1..READINGS {
            tokio::time::sleep(BETWEEN_READINGS).await;
            let content = self.read().await?;
            // An empty file is one that was truncated to be written, however often it is seen.
            if content == last && !content.trim_ascii().is_empty() {
                return Ok(content);
            }
            last = content;
        }
        let path = self.path.display();
        Err(TokenError::transient(if last.trim_ascii().is_empty() {
            format!("the token file {path} is empty: see whether whoever writes it is running")
        } else {
            format!("the token file {path} did not stay the same for a moment: write it less often")
        }))
    }

    async fn read(&self) -> Result<Content, TokenError> {
        let path = self.path.clone();
        // Files block, and a network file system blocks for long.
        match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(content) => content,
            Err(_) => Err(TokenError::transient(format!(
                "the token file {} was not read: the runtime shuts down",
                self.path.display()
            ))),
        }
    }
}

impl TokenSource for TokenFile {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let path = self.path.display();
        let content = self.read_settled().await?;
        let token = str::from_utf8(&content)
            .map_err(|_| {
                TokenError::misconfigured(format!(
                    "the token file {path} is not text: it should hold the token and nothing else"
                ))
            })?
            .trim();
        let unchanged = renewal
            .previous()
            .is_some_and(|previous| previous.access_token().expose_secret() == token);
        if unchanged && renewal.cause() == Cause::Rejected {
            return Err(TokenError::transient(format!(
                "a server rejected the token and the token file {path} has not changed since"
            )));
        }
        let token = AccessToken::new(token).map_err(|error| {
            TokenError::misconfigured(format!("the token file {path}: {}", error.get_ref()))
        })?;
        Ok(TokenSet::builder(token).refresh_in(self.reread_every).build())
    }
}

/// What is in the file, wiped when it is dropped.
type Content = Zeroizing<Vec<u8>>;

fn read(path: &Path) -> Result<Content, TokenError> {
    let failed = |error: io::Error| {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => TokenError::transient(format!(
                "the token file {path} does not exist: check the path, or whoever is to write it"
            )),
            io::ErrorKind::PermissionDenied => TokenError::misconfigured(format!(
                "the token file {path} may not be read by this process: change its owner or mode"
            )),
            _ => TokenError::transient(format!("the token file {path} cannot be read: {error}")),
        }
    };

    // Before it is opened, since to open a pipe waits for its writer.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(TokenError::misconfigured(format!(
            "the token file {} {what}: name the file that holds the token",
            path.display()
        )));
    }

    let file = File::open(path).map_err(failed)?;
    // In one piece from the start: what a growing vector leaves behind is not wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 1));
    file.take(MAX_LENGTH as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() > MAX_LENGTH {
        return Err(TokenError::misconfigured(format!(
            "the token file {} is longer than {MAX_LENGTH} bytes: it should hold the token and nothing else",
            path.display()
        )));
    }
    Ok(content)
}

const REREAD_EVERY: Duration = Duration::from_secs(60);

/// More than the header of any server takes.
const MAX_LENGTH: usize = 64 * 1024;

/// How often the file is read for one token, at most.
const READINGS: usize = 10;

/// Longer than a program needs between two writes of one token.
const BETWEEN_READINGS: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::source::testing::tokens;

    /// A folder that goes with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);

            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tower-refresh-{}-{next}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join("token");
            fs::write(&path, content).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    async fn fetch(path: impl Into<PathBuf>, renewal: Renewal) -> Result<String, TokenError> {
        let tokens = TokenFile::new(path).fetch(renewal).await?;
        Ok(tokens.access_token().expose_secret().to_owned())
    }

    fn missing() -> Renewal {
        Renewal::new(Cause::Missing)
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_is_trimmed_and_read_again_after_the_interval() {
        let folder = Folder::new();
        let path = folder.file(" \n sesame\r\n\n");
        let source = TokenFile::new(&path);
        let first = source.fetch(missing()).await.unwrap();
        assert_eq!(first.access_token().expose_secret(), "sesame");
        assert_eq!(first.refresh_in(), Some(Duration::from_secs(60)));
        assert!(first.expiry().is_none());

        folder.file("open");
        let source = source.reread_every(Duration::from_secs(5));
        let second = source.fetch(Renewal::new(Cause::Expiring)).await.unwrap();
        assert_eq!(second.access_token().expose_secret(), "open");
        assert_eq!(second.refresh_in(), Some(Duration::from_secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for() {
        for torn in ["", " \n", "ses"] {
            let folder = Folder::new();
            let path = folder.file(torn);
            let fetched = tokio::spawn(fetch(path, missing()));
            // In the middle of the first pause.
            tokio::time::sleep(BETWEEN_READINGS / 2).await;
            folder.file("sesame");
            assert_eq!(fetched.await.unwrap().unwrap(), "sesame", "{torn:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_file_is_transient_and_given_up_in_time() {
        let folder = Folder::new();
        let path = folder.file(" \n");
        let told = tokio::time::timeout(Duration::from_millis(100), fetch(&path, missing()));
        let error = told.await.unwrap().unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("is empty"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_stays_the_same_is_not_taken_for_a_token() {
        let folder = Folder::new();
        let path = folder.file("0");
        let mut fetched = tokio::spawn(fetch(path, missing()));
        tokio::time::sleep(BETWEEN_READINGS / 2).await;
        let mut written = 0;
        let told = loop {
            written += 1;
            folder.file(written.to_string());
            tokio::select! {
                told = &mut fetched => break told.unwrap(),
                () = tokio::time::sleep(BETWEEN_READINGS) => {}
            }
        };
        let error = told.unwrap_err();
        assert!(
            error.is_transient() && error.to_string().contains("did not stay the same"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_that_the_file_still_has_is_not_given_again() {
        let folder = Folder::new();
        let path = folder.file("sesame\n");
        let rejected = || Renewal::new(Cause::Rejected).with_previous(tokens("sesame"));
        let error = fetch(&path, rejected()).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("has not changed"), "{error}");

        let expiring = Renewal::new(Cause::Expiring).with_previous(tokens("sesame"));
        assert_eq!(fetch(&path, expiring).await.unwrap(), "sesame");

        folder.file("open");
        assert_eq!(fetch(&path, rejected()).await.unwrap(), "open");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_is_told_with_its_path_and_not_shown() {
        let folder = Folder::new();
        let told = async |path: &Path, what: &str| {
            let error = fetch(path, missing()).await.unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(path.to_str().unwrap()), "{shown}");
            assert!(shown.contains(what) && !shown.contains("sesame"), "{shown}");
            error
        };
        let error = told(&folder.0.join("nowhere"), "does not exist").await;
        assert!(error.is_transient());
        assert!(told(&folder.0, "is a directory").await.is_misconfigured());
        let binary = folder.file(b"sesame\xff");
        assert!(told(&binary, "is not text").await.is_misconfigured());
        let lines = folder.file("sesame\nsesame");
        assert!(told(&lines, "at byte 6").await.is_misconfigured());
        let long = folder.file("sesame".repeat(MAX_LENGTH));
        assert!(told(&long, "65536 bytes").await.is_misconfigured());
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn what_is_neither_file_nor_folder_is_not_opened() {
        let error = fetch("/dev/null", missing()).await.unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_file_that_may_not_be_read_is_told() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = Folder::new();
        let path = folder.file("sesame");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if File::open(&path).is_ok() {
            // Nothing is forbidden to root.
            return;
        }
        let error = fetch(&path, missing()).await.unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("owner or mode"), "{error}");
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_projected_volume_is_followed_through_its_links() {
        use std::os::unix::fs::symlink;

        let folder = Folder::new();
        for (data, token) in [("1", "sesame"), ("2", "open")] {
            fs::create_dir(folder.0.join(data)).unwrap();
            fs::write(folder.0.join(data).join("api"), token).unwrap();
        }
        let link = |data: &str| {
            symlink(data, folder.0.join("next")).unwrap();
            fs::rename(folder.0.join("next"), folder.0.join("..data")).unwrap();
        };
        link("1");
        let path = folder.0.join("api");
        symlink("..data/api", &path).unwrap();
        assert_eq!(fetch(&path, missing()).await.unwrap(), "sesame");
        link("2");
        assert_eq!(fetch(&path, missing()).await.unwrap(), "open");
    }
}
