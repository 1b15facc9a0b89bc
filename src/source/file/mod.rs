//! A token in a file that another program keeps fresh.

mod content;
mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::content::{bare_token, is_blank};
use self::read::{Content, Stamp, read};
use super::{Cause, Renewal, SourceInfo, TokenSource, Watch};
use crate::error::TokenError;
use crate::token::{AccessToken, TokenSet};

/// A source that reads the token from a file, such as a Kubernetes projected service account token, or the token that an agent
/// writes.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::TokenFile;
///
/// let source = TokenFile::new("/var/run/secrets/tokens/api").reread_every(Duration::from_secs(30));
/// ```
///
/// # The file
///
/// The file must contain only the token, in UTF-8. A byte order mark and white space around the token are trimmed. JSON, quotes,
/// `Bearer …`, `TOKEN=…`, HTML, several lines and the like are [misconfigured](TokenError::is_misconfigured). The error names
/// what the file seems to contain, and shows nothing of it.
///
/// The file may be replaced or written in place. A token is used after two readings a few milliseconds apart agree.
///
/// # How long a token is used
///
/// After [the interval](Self::reread_every) the next request starts to read the file again in the background. If a server rejects
/// the token, the file is read at once, and the request is sent again with a new token. If the file could not be read, or still
/// contains the rejected token, the next request checks with one call of `stat` whether the file has changed (inode, length and
/// times, behind all links), and reads it if it has. No backoff applies to a file that was repaired.
///
/// The source takes no expiry from the token, even if it is a JWT: the program that writes the file replaces it in time.
///
/// # Who may write the file
///
/// A file that every user of the machine can write (`chmod o+w`) is [misconfigured](TokenError::is_misconfigured) unless
/// [allowed](Self::allow_writable_by_everyone), because each of them could make this program use another account. The owner is not
/// checked, since root often owns the secrets that a platform mounts, nor is the group, which a sidecar often shares.
///
/// # Errors
///
/// Each error names the file and a remedy. A file that is missing, empty or being written is
/// [transient](TokenError::is_transient). A file without read permission, or with other content than a token, is
/// [misconfigured](TokenError::is_misconfigured). A rejected token that is still in the file is transient, since the program that
/// writes the file has yet to replace it.
#[derive(Debug)]
#[must_use]
pub struct TokenFile {
    path: PathBuf,
    reread_every: Duration,
    allows_everyone: bool,
    /// The state of the file when it was last read. The inner `None` means that a later change could go unnoticed.
    seen: Arc<ArcSwapOption<Option<Stamp>>>,
}

impl TokenFile {
    /// Creates a source that reads this file when a token is first needed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, TokenFile};
    ///
    /// let credentials = Credentials::new(TokenFile::new("/var/run/secrets/tokens/api"));
    /// ```
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            reread_every: REREAD_EVERY,
            allows_everyone: false,
            seen: Arc::default(),
        }
    }

    /// Sets how long a token is used before the file is read again. The default is 60 seconds.
    ///
    /// The kubelet replaces a projected token when a fifth of its lifetime is left, which takes about a minute.
    pub fn reread_every(mut self, interval: Duration) -> Self {
        self.reread_every = interval;
        self
    }

    /// Allows a file that every user of the machine can write.
    ///
    /// Use it for file systems without Unix permissions, which show every file as writable. Every program that can write the file
    /// chooses the account whose token is sent.
    pub fn allow_writable_by_everyone(mut self) -> Self {
        self.allows_everyone = true;
        self
    }

    /// Reads the file until two readings agree.
    async fn read_settled(&self) -> Result<Content, TokenError> {
        let mut last = self.read().await?;
        for _ in 1..READINGS {
            tokio::time::sleep(BETWEEN_READINGS).await;
            let content = self.read().await?;
            // A program truncates a file before it writes the token.
            if content == last && !is_blank(&content) {
                return Ok(content);
            }
            last = content;
        }
        let path = self.path.display();
        Err(TokenError::transient(if is_blank(&last) {
            format!(
                "the token file {path} is empty: check that the program that writes it is running"
            )
        } else {
            format!(
                "the token file {path} changed at each of {READINGS} readings: write it less often"
            )
        }))
    }

    async fn read(&self) -> Result<Content, TokenError> {
        let (path, allows_everyone) = (self.path.clone(), self.allows_everyone);
        // File access blocks, on a network file system for long.
        match tokio::task::spawn_blocking(move || read(&path, allows_everyone)).await {
            Ok((stamp, content)) => {
                self.seen.store(Some(Arc::new(stamp)));
                content
            }
            Err(_) => Err(TokenError::transient(format!(
                "the token file {} was not read: the runtime is shutting down: await `Credentials::flush` before",
                self.path.display()
            ))),
        }
    }
}

impl TokenSource for TokenFile {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let path = self.path.display();
        let content = self.read_settled().await?;
        let token = bare_token(&content)
            .map_err(|flaw| TokenError::misconfigured(format!("the token file {path} {flaw}")))?;
        let unchanged = renewal
            .previous()
            .is_some_and(|previous| previous.access_token().expose_secret() == token);
        if unchanged && renewal.cause() == Cause::Rejected {
            return Err(TokenError::transient(format!(
                "a server rejected the token and the token file {path} has not changed since: check the program that writes it"
            )));
        }
        let token = AccessToken::new(token).map_err(|error| {
            TokenError::misconfigured(format!("the token file {path}: {}", error.get_ref()))
        })?;
        Ok(TokenSet::new(token).with_refresh_in(self.reread_every))
    }

    fn info(&self) -> SourceInfo {
        let (path, seen) = (self.path.clone(), Arc::clone(&self.seen));
        // If the file was never read, the failure is that of another source around this one.
        let has_changed = move || match seen.load().as_deref() {
            Some(seen) => seen.as_ref() != Some(&Stamp::of(&path)),
            None => false,
        };
        SourceInfo::new().fresh_proof(true).watched(Watch::new(has_changed))
    }
}

/// The clone has its own state of the file.
impl Clone for TokenFile {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), seen: Arc::default(), ..*self }
    }
}

const REREAD_EVERY: Duration = Duration::from_secs(60);

/// The maximum number of readings for one token.
const READINGS: usize = 10;

/// Longer than the time between two writes of one token.
const BETWEEN_READINGS: Duration = Duration::from_millis(5);
