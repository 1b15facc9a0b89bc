//! A token that another program keeps fresh in a file.

mod content;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::content::{bare_token, is_blank};
use self::read::{Content, Stamp, read};
use super::{Cause, Renewal, SourceInfo, TokenSource, Watch};
use crate::error::TokenError;
use crate::token::{AccessToken, TokenSet};

/// A source that reads the token from a file: a Kubernetes projected service account token, or the token that an agent
/// or a sidecar writes.
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
/// It holds the token and nothing else, in UTF-8. A byte order mark and white space around the token are trimmed.
/// JSON, quotes, `Bearer …`, `TOKEN=…`, HTML, several lines and the like are
/// [misconfigured](TokenError::is_misconfigured): the error names what the file seems to hold, and shows nothing of it.
///
/// The file may be replaced or written in place. A token counts once two readings a few milliseconds apart agree.
///
/// # How long a token is used
///
/// The file is read again in the background [when the interval is over](Self::reread_every) and a request needs the
/// token. A token that a server rejects is read again at once, and the request is sent again if the file has a new
/// one. If the file could not be read or the rejected token is still in it, the next request looks whether the file has
/// changed since (its inode, length and times, behind all links; one call of `stat`) and reads it again if it has: no
/// backoff applies to a file that was repaired.
///
/// No expiry is read out of the token, even if it is a JWT: the program that writes the file replaces it in good time.
///
/// # Who may write the file
///
/// A file that every user of the machine can write (`chmod o+w`) is [misconfigured](TokenError::is_misconfigured)
/// unless [allowed](Self::allow_writable_by_everyone): any of them could make this program use another account. The
/// owner is not checked, since secrets that a platform mounts often belong to root, and neither is the group, to which
/// a sidecar often belongs.
///
/// # Errors
///
/// Each names the file and a remedy. A file that is missing, empty or being written may be there a moment later
/// ([transient](TokenError::is_transient)). One that may not be read or that holds something else than a token is
/// [misconfigured](TokenError::is_misconfigured). A rejected token that is still in the file is transient: the program
/// that writes the file has yet to replace it.
pub struct TokenFile {
    path: PathBuf,
    reread_every: Duration,
    allows_everyone: bool,
    /// The state of the file when it was last read: `None` inside if a later change could go unnoticed.
    seen: Arc<ArcSwapOption<Option<Stamp>>>,
}

impl TokenFile {
    /// Creates a source that reads this file, for the first time when a token is needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            reread_every: REREAD_EVERY,
            allows_everyone: false,
            seen: Arc::default(),
        }
    }

    /// Sets how long a token is used before the file is read again; 60 seconds by default.
    ///
    /// The kubelet replaces a projected token when a fifth of its lifetime is left, and takes about a minute to do it.
    #[must_use]
    pub fn reread_every(mut self, interval: Duration) -> Self {
        self.reread_every = interval;
        self
    }

    /// Reads the file even if every user of the machine can write it.
    ///
    /// For file systems without Unix permissions, which show every file as writable. Every program that can write the
    /// file chooses the account whose token is sent.
    #[must_use]
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
            // An empty file is one that was truncated to be written, however often it is seen.
            if content == last && !is_blank(&content) {
                return Ok(content);
            }
            last = content;
        }
        let path = self.path.display();
        Err(TokenError::transient(if is_blank(&last) {
            format!(
                "the token file {path} is empty: see whether the program that writes it is running"
            )
        } else {
            format!("the token file {path} did not stay the same for a moment: write it less often")
        }))
    }

    async fn read(&self) -> Result<Content, TokenError> {
        let (path, allows_everyone) = (self.path.clone(), self.allows_everyone);
        // Files block, and a network file system blocks for long.
        match tokio::task::spawn_blocking(move || read(&path, allows_everyone)).await {
            Ok((stamp, content)) => {
                self.seen.store(Some(Arc::new(stamp)));
                content
            }
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
        let token = bare_token(&content)
            .map_err(|flaw| TokenError::misconfigured(format!("the token file {path} {flaw}")))?;
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
        Ok(TokenSet::new(token).with_refresh_in(self.reread_every))
    }

    fn info(&self) -> SourceInfo {
        let (path, seen) = (self.path.clone(), Arc::clone(&self.seen));
        // A file that was never read has not failed: another source around this one has.
        let has_changed = move || match seen.load().as_deref() {
            Some(seen) => seen.as_ref() != Some(&Stamp::of(&path)),
            None => false,
        };
        SourceInfo::new().fresh_proof(true).watched(Watch::new(has_changed))
    }
}

/// The clone reads the file for itself.
impl Clone for TokenFile {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), seen: Arc::default(), ..*self }
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("reread_every", &self.reread_every)
            .field("allows_everyone", &self.allows_everyone)
            .finish_non_exhaustive()
    }
}

const REREAD_EVERY: Duration = Duration::from_secs(60);

/// How often the file is read for one token, at most.
const READINGS: usize = 10;

/// Longer than a program needs between two writes of one token.
const BETWEEN_READINGS: Duration = Duration::from_millis(5);
