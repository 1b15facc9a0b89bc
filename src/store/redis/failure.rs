//! The errors of the client and the server, in terms of this crate.
//!
//! Only the code at the start of a server's error is passed on: the rest may quote the request.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use crate::store::StoreError;

/// The reason why a request failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// Another connection may help: this one broke, did not answer in time, or does not lead to the primary. The outcome is
    /// unknown.
    Reconnect(String),
    /// The server refuses, and would refuse again for now.
    Busy(String),
    /// A script called a command that does not exist, or that this user may not call.
    InScript,
    /// The configuration is wrong.
    Misconfigured(String),
}

/// The kind of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// `HELLO` with RESP3 and the user, and `SELECT`.
    Greeting,
    /// `EVAL`.
    Script,
    /// `SUBSCRIBE`.
    Subscription,
}

impl Failure {
    pub(super) fn timed_out() -> Self {
        Self::Reconnect("did not answer in time: check its load and the network, or raise `RedisStore::timeout`".into())
    }

    pub(super) fn overloaded() -> Self {
        Self::Busy("did not answer in time, because it has too many requests: spread the keys over several servers, or raise `RedisStore::timeout`".into())
    }

    pub(super) fn unexpected() -> Self {
        Self::Busy("returned an unexpected answer: check that it is Redis 6 or later".into())
    }

    /// Classifies an error of the client or of the server.
    pub(super) fn of(error: &RedisError, asked: Asked) -> Self {
        match error.kind() {
            ErrorKind::Io | ErrorKind::Client => return of_connection(error),
            ErrorKind::Parse => {
                return Self::Reconnect(
                    "does not answer like a Redis server: check the host and the port".into(),
                );
            }
            ErrorKind::AuthenticationFailed => return wrong(WRONG_PASSWORD),
            ErrorKind::RESP3NotSupported => return wrong(NO_RESP3),
            ErrorKind::InvalidClientConfig => {
                return wrong("cannot be connected to with these settings: check the URL");
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

    /// Returns whether the same request may work over another connection now.
    pub(super) fn is_worth_another_connection(&self) -> bool {
        matches!(self, Self::Reconnect(_))
    }

    /// Returns the error for this failure of the Redis at `place`.
    pub(super) fn into_error(self, place: &str) -> StoreError {
        match self {
            Self::Reconnect(why) | Self::Busy(why) => {
                StoreError::unavailable(format!("{place} {why}"))
            }
            Self::InScript => Self::not_for_scripts(&[]).into_error(place),
            Self::Misconfigured(why) => StoreError::misconfigured(format!("{place} {why}")),
        }
    }
}

/// Classifies an error of the connection: of the operating system, or of TLS.
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
        // The source is an error of the TLS library.
        ErrorKind::Client if error.source().is_some() => no_tls(error),
        _ => Failure::Reconnect(format!("cannot be reached: {error}")),
    }
}

fn of_system(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => Failure::Reconnect(
            "closed the connection without an answer: check its log, the log of a proxy in front of it, and whether the port expects TLS (`rediss://`)".into(),
        ),
        io::ErrorKind::PermissionDenied => {
            Failure::Misconfigured(format!("cannot be connected to by this process: {error}"))
        }
        // TCP reports no invalid data: this is TLS.
        io::ErrorKind::InvalidData => no_tls(error),
        _ => Failure::Reconnect(format!("cannot be reached: {error}")),
    }
}

fn no_tls(error: &dyn std::fmt::Display) -> Failure {
    Failure::Misconfigured(format!(
        "cannot be reached over TLS ({error}): check whether the port expects TLS, and see `RedisStore::connect_with` for a CA of your own"
    ))
}

/// Classifies an error answer of the server.
fn of_answer(code: &str, detail: &str, asked: Asked) -> Failure {
    let busy = |why: &str| Failure::Busy(why.into());
    match code_in_script(detail).unwrap_or(code) {
        "READONLY" => Failure::Reconnect(
            "is a replica: connect to the primary, or wait until the failover is complete".into(),
        ),
        "MOVED" | "ASK" | "CROSSSLOT" => wrong(CLUSTER),
        "CLUSTERDOWN" | "TRYAGAIN" => {
            busy("is a node of a Redis Cluster that is down or moving keys")
        }
        "LOADING" => busy("is still loading its data"),
        "OOM" => busy("is out of memory: raise its `maxmemory`"),
        "MISCONF" => busy("cannot write to its disk, and accepts no writes: check its log"),
        "NOREPLICAS" => busy("has too few replicas to accept writes"),
        "BUSY" => busy("is busy with another script"),
        "MASTERDOWN" => busy("is a replica that has lost its primary (MASTERDOWN)"),
        "DENIED" => wrong(
            "is in protected mode, which serves only its own machine: set a password and `protected-mode no`",
        ),
        "NOAUTH" => wrong(NO_PASSWORD),
        "WRONGPASS" => wrong(WRONG_PASSWORD),
        "NOPROTO" => wrong(NO_RESP3),
        "WRONGTYPE" => {
            wrong("has another kind of data under the key: choose another key or prefix")
        }
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

/// Classifies an error with a general code, such as `ERR`, by its words. They differ between servers and proxies.
fn of_words(code: &str, detail: &str, asked: Asked) -> Failure {
    let words = format!("{code} {detail}").to_ascii_lowercase();
    // The rest quotes the request.
    let words = words.split("with args").next().unwrap_or_default();
    let has = |part: &str| words.contains(part);
    if has("without any password configured") {
        return wrong("has no password, but the URL does");
    }
    if has("invalid password") || has("'auth' command") {
        return wrong(WRONG_PASSWORD);
    }
    if has("operation not permitted") || has("authentication required") {
        return wrong(NO_PASSWORD);
    }
    if has("db index") || has("out of range") && matches!(asked, Asked::Greeting) {
        return wrong("has no database with this number: check the end of the URL");
    }
    if has("cluster mode") {
        return wrong(CLUSTER);
    }
    if has("max number of clients") {
        return Failure::Busy("has too many clients".into());
    }
    if has("access") && (has("keys") || has("channels")) {
        return wrong(
            "does not permit this user to access the key: see \"Permissions\" in the documentation of `RedisStore`",
        );
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
        _ => Failure::unexpected(),
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
        "does not know `{command}` or does not permit it: the command was renamed or forbidden, or this is not a Redis server; {SEE_PERMISSIONS}"
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

/// The client shares an error of the operating system among all requests of a connection.
type Shared = Arc<dyn Error + Send + Sync>;

/// Parts of messages by which servers and proxies refuse a command.
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

/// Parts of messages that refer to a script. The word alone may be part of a quoted script.
const IN_SCRIPT: [&str; 5] =
    ["from script", "from lua script", "in script", "running script", "executing the script"];

const WRONG_PASSWORD: &str = "refuses the user or the password: check the URL";

const NO_PASSWORD: &str = "requires a password: put it into the URL";

const NO_RESP3: &str = "does not speak RESP3 (`HELLO 3`), which the store needs: connect to Redis 6 or later, without a proxy that speaks only RESP2";

const CLUSTER: &str = "is a node of a Redis Cluster, which this store does not support";

const SEE_PERMISSIONS: &str = "see \"Permissions\" in the documentation of `RedisStore`";
