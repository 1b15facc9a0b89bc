//! What went wrong, in words of this crate.
//!
//! Of an answer of the server, only the code that it begins with is passed on: the rest may quote the request.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::super::StoreError;

/// Why a request to Redis failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The outcome is unknown: the connection broke, or no answer came in time.
    Cut(String),
    /// The server refused, and would refuse again, for now.
    Busy(String),
    /// The server is not the one that can do it; another one may have its address by now.
    Elsewhere(String),
    /// A script called a command that does not exist, or that this user may not call.
    InScript,
    /// The set-up is wrong.
    Misconfigured(String),
}

/// What the server was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// To speak RESP3 with this user, in this database.
    Greeting,
    /// To run a script.
    Script,
    /// To send the messages of a channel.
    Subscription,
}

impl Failure {
    pub(super) fn timed_out() -> Self {
        Self::Cut("gave no answer in time".into())
    }

    /// Reads an error of the client or of the server.
    pub(super) fn of(error: &RedisError, asked: Asked) -> Self {
        match error.kind() {
            ErrorKind::Io | ErrorKind::Client => return of_connection(error),
            ErrorKind::Parse => return Self::Cut("does not answer like a Redis".into()),
            ErrorKind::AuthenticationFailed => return wrong(WRONG_PASSWORD),
            ErrorKind::RESP3NotSupported => return wrong(NO_RESP3),
            ErrorKind::InvalidClientConfig => {
                return wrong("cannot be connected to as it is set up: check the URL");
            }
            _ => {}
        }
        of_answer(error.code().unwrap_or_default(), error.detail().unwrap_or_default(), asked)
    }

    /// Returns the failure of scripts that may not call these commands.
    pub(super) fn not_for_scripts(missing: &[String]) -> Self {
        let is_name = |name: &&String| name.bytes().all(|byte| byte.is_ascii_uppercase());
        let names: Vec<_> =
            missing.iter().filter(is_name).map(|name| format!("`{name}`")).collect();
        let what =
            if names.is_empty() { "a command that they call".into() } else { names.join(", ") };
        Self::Misconfigured(format!(
            "does not permit this user to call {what} in scripts, or has renamed it: {SEE_PERMISSIONS}"
        ))
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
            Self::InScript => Self::not_for_scripts(&[]).into_error(place),
            Self::Misconfigured(why) => StoreError::misconfigured(format!("{place} {why}")),
        }
    }
}

/// Reads an error of the connection: of the system, or of TLS.
fn of_connection(error: &RedisError) -> Failure {
    let mut cause = error.source();
    while let Some(error) = cause {
        let error = error.downcast_ref::<Shared>().map_or(error, |error| &**error);
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return of_system(error);
        }
        cause = error.source();
    }
    match error.kind() {
        // From a library of TLS.
        ErrorKind::Client if error.source().is_some() => no_tls(error),
        _ => Failure::Cut(format!("cannot be reached: {error}")),
    }
}

fn of_system(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => Failure::Cut(
            "closed the connection without an answer: see its log and that of a proxy in front of it, and whether the port expects TLS (`rediss://`)".into(),
        ),
        io::ErrorKind::PermissionDenied => {
            Failure::Misconfigured(format!("may not be connected to by this process: {error}"))
        }
        // TCP has no data to be invalid.
        io::ErrorKind::InvalidData => no_tls(error),
        _ => Failure::Cut(format!("cannot be reached: {error}")),
    }
}

fn no_tls(error: &dyn std::fmt::Display) -> Failure {
    Failure::Misconfigured(format!(
        "cannot be reached over TLS ({error}): name the certificate of its CA with `RedisStore::with_client`, or check whether the port expects TLS"
    ))
}

/// Reads an error that the server has answered with.
fn of_answer(code: &str, detail: &str, asked: Asked) -> Failure {
    let busy = |why: &str| Failure::Busy(why.into());
    match code_in_script(detail).unwrap_or(code) {
        "READONLY" => Failure::Elsewhere(
            "is a replica: name the primary, or wait until the failover is done".into(),
        ),
        "MOVED" | "ASK" | "CROSSSLOT" => wrong(CLUSTER),
        "CLUSTERDOWN" | "TRYAGAIN" => {
            busy("is a node of a Redis Cluster that is down or moves keys")
        }
        "LOADING" => busy("still loads its data"),
        "OOM" => busy("is out of memory: raise its `maxmemory`"),
        "MISCONF" => busy("cannot write to its disk, and takes no writes: see its log"),
        "NOREPLICAS" => busy("has too few replicas to take writes"),
        "BUSY" => busy("is busy with another script"),
        "MASTERDOWN" => busy("is a replica that has lost its primary (MASTERDOWN)"),
        "DENIED" => wrong(
            "is in protected mode and serves its own machine only: set a password, and `protected-mode no`",
        ),
        "NOAUTH" => wrong(NO_PASSWORD),
        "WRONGPASS" => wrong(WRONG_PASSWORD),
        "NOPROTO" => wrong(NO_RESP3),
        "WRONGTYPE" => wrong("has something else under the key: choose another key or prefix"),
        "EVICTION" => Failure::Misconfigured(format!(
            "may evict the key when its memory is full (`maxmemory-policy {}`): set `noeviction`",
            if detail.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                detail
            } else {
                "allkeys-…"
            }
        )),
        code => of_words(code, detail, asked),
    }
}

/// Reads an error with a general code, such as `ERR`, by its words. They differ between servers and proxies.
fn of_words(code: &str, detail: &str, asked: Asked) -> Failure {
    let words = format!("{code} {detail}").to_ascii_lowercase();
    // What follows quotes the request.
    let words = words.split("with args").next().unwrap_or_default();
    let has = |part: &str| words.contains(part);
    if has("without any password configured") {
        return wrong("has no password, and the URL has one");
    }
    if has("invalid password") || has("'auth' command") {
        return wrong(WRONG_PASSWORD);
    }
    if has("operation not permitted") || has("authentication required") {
        return wrong(NO_PASSWORD);
    }
    if has("db index") || has("out of range") && matches!(asked, Asked::Greeting) {
        return wrong("has no database of that number: check the end of the URL");
    }
    if has("cluster mode") {
        return wrong(CLUSTER);
    }
    if has("max number of clients") {
        return Failure::Busy("has too many clients".into());
    }
    if has("access") && (has("keys") || has("channels")) {
        return wrong("does not permit this user the key: see \"Permissions\" of `RedisStore`");
    }
    let is_refusal = code == "NOPERM" || REFUSALS.iter().any(|refusal| has(refusal));
    if is_refusal && IN_SCRIPT.iter().any(|place| has(place)) {
        return Failure::InScript;
    }
    if is_refusal {
        return refused(words, asked);
    }
    match code {
        code if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Failure::Busy(format!("answered with the error {code}"))
        }
        _ => Failure::Busy("answered with something that was not expected".into()),
    }
}

/// Returns the failure of a command that the server does not know or permit.
fn refused(words: &str, asked: Asked) -> Failure {
    let command = match asked {
        Asked::Greeting if words.contains("select") => "SELECT",
        Asked::Greeting => return wrong(NO_RESP3),
        Asked::Script => "EVAL",
        Asked::Subscription => "SUBSCRIBE",
    };
    Failure::Misconfigured(format!(
        "does not know `{command}` or does not permit it: it was renamed or forbidden, or this is not a Redis; {SEE_PERMISSIONS}"
    ))
}

fn wrong(why: &str) -> Failure {
    Failure::Misconfigured(why.into())
}

/// Before Redis 7, an error in a script has its code in the middle.
fn code_in_script(detail: &str) -> Option<&'static str> {
    const CODES: [&str; 5] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS", "WRONGTYPE"];

    let rest = detail.strip_prefix("Error running script")?;
    CODES.into_iter().find(|code| rest.contains(&format!("-{code} ")))
}

/// The client shares an error of the system among all requests of a connection.
type Shared = Arc<dyn Error + Send + Sync>;

/// How servers and proxies refuse a command.
const REFUSALS: [&str; 17] = [
    "unknown command",
    "unknown redis command",
    "unrecognized command",
    "invalid command",
    "invalid request",
    "unsupported",
    "not support",
    "not implemented",
    "not allowed",
    "not available",
    "no permission",
    "can't run this command",
    "can't execute",
    "disabled",
    "forbidden",
    "denied",
    "prohibited",
];

/// What they call a script. The word alone may be one of a script that they quote.
const IN_SCRIPT: [&str; 5] =
    ["from script", "from lua script", "in script", "running script", "executing the script"];

const WRONG_PASSWORD: &str = "refuses the user or the password: check the URL";

const NO_PASSWORD: &str = "wants a password: put it into the URL";

const NO_RESP3: &str = "does not speak RESP3 (`HELLO 3`), which the store needs: connect to Redis 6 or later, past a proxy that speaks RESP2 only";

const CLUSTER: &str = "is a node of a Redis Cluster, which this store does not support";

const SEE_PERMISSIONS: &str = "\"Permissions\" of `RedisStore` lists the commands that are needed";
