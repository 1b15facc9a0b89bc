//! What went wrong, in words of ours.
//!
//! Nothing that the server says is passed on but the word that its errors begin with: what follows may quote what was sent.

use redis::{ErrorKind, RedisError};

use super::super::StoreError;

/// Why a request to Redis came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody knows whether it counted: the connection broke, or no answer came in time.
    Cut(String),
    /// The server said no, and would say so again, for now.
    Busy(String),
    /// The server is not the one that can do it; another one may have its address by now.
    Elsewhere(String),
    /// The set-up is wrong.
    Misconfigured(String),
}

impl Failure {
    pub(super) fn timed_out() -> Self {
        Self::Cut("gave no answer in time".into())
    }

    /// Reads an error of the client or of the server.
    pub(super) fn of(error: &RedisError) -> Self {
        let wrong = |why: &str| Self::Misconfigured(why.into());
        match error.kind() {
            // What the system says, of connections and certificates.
            ErrorKind::Io => return Self::Cut(format!("cannot be spoken to: {error}")),
            ErrorKind::Parse => return Self::Cut("does not answer like a Redis".into()),
            ErrorKind::AuthenticationFailed => return wrong(WRONG_PASSWORD),
            ErrorKind::RESP3NotSupported => return wrong("is older than Redis 6: upgrade it"),
            ErrorKind::InvalidClientConfig => {
                return wrong("cannot be connected to as it is set up: check the URL");
            }
            _ => {}
        }

        let detail = error.detail().unwrap_or_default();
        let code = code_in_script(detail).or(error.code()).unwrap_or_default();
        match code {
            "READONLY" => Self::Elsewhere(
                "is a replica: name the primary, or wait until the failover is done".into(),
            ),
            "MOVED" | "ASK" | "CROSSSLOT" => {
                wrong("is a node of a Redis Cluster, which this store does not support")
            }
            "LOADING" => Self::Busy("still loads its data".into()),
            "OOM" => Self::Busy("is out of memory: raise its `maxmemory`".into()),
            "MISCONF" => {
                Self::Busy("cannot write to its disk, and takes no writes: see its log".into())
            }
            "NOREPLICAS" => Self::Busy("has too few replicas to take writes".into()),
            "BUSY" => Self::Busy("is busy with a script of somebody else".into()),
            "NOAUTH" => wrong("wants a password: put it into the URL"),
            "WRONGPASS" => wrong(WRONG_PASSWORD),
            "NOPERM" => wrong(NOT_PERMITTED),
            "WRONGTYPE" => wrong("has something else under the key: choose another key or prefix"),
            "EVICTION" => Self::Misconfigured(format!(
                "may evict the key when its memory is full (`maxmemory-policy {}`): set `noeviction`",
                if detail.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                    detail
                } else {
                    "allkeys-…"
                }
            )),
            "ERR" if detail.contains("user executing the script") => wrong(NOT_PERMITTED),
            "ERR" if detail.starts_with("unknown command") => {
                wrong("does not know `EVAL`: it is not a Redis, or the command was renamed")
            }
            "ERR" if detail.contains("DB index") => {
                wrong("has no database of that number: check the end of the URL")
            }
            "ERR" if detail.contains("without any password configured") => {
                wrong("has no password, and the URL has one")
            }
            "ERR" if detail.contains("max number of clients") => {
                Self::Busy("has too many clients".into())
            }
            code if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                Self::Busy(format!("answered with the error {code}"))
            }
            _ => Self::Busy("answered with something that was not expected".into()),
        }
    }

    /// Whether the same request may work over another connection, now.
    pub(super) fn is_worth_another_connection(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Elsewhere(_))
    }

    /// Returns the error for this failure of the Redis at `place`.
    pub(super) fn into_error(self, place: &str) -> StoreError {
        match self {
            Self::Cut(why) | Self::Busy(why) | Self::Elsewhere(why) => {
                StoreError::unavailable(format!("{place} {why}"))
            }
            Self::Misconfigured(why) => StoreError::misconfigured(format!("{place} {why}")),
        }
    }
}

const WRONG_PASSWORD: &str = "refuses the user or the password: check the URL";

const NOT_PERMITTED: &str =
    "does not permit this user what the store needs: see `RedisStore` for the line that permits it";

/// Before Redis 7, what goes wrong in a script has its code in the middle.
fn code_in_script(detail: &str) -> Option<&'static str> {
    const CODES: [&str; 6] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS", "NOPERM", "WRONGTYPE"];

    let rest = detail.strip_prefix("Error running script")?;
    CODES.into_iter().find(|code| rest.contains(&format!("-{code} ")))
}
