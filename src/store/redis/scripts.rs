//! What is asked of Redis: each change is one script, so that nothing comes between its parts.
//!
//! All that belongs to a grant is one hash:
//!
//! | field | what it is |
//! |---|---|
//! | `record` | the record, as JSON |
//! | `write_id` | the record's own |
//! | `run` | which run of which server wrote it |
//! | `owner` | the token of whoever holds the lock |
//! | `lease_until_ms` | when the lock runs out, by the server's clock |
//! | `lease_ms` | how long the lease was when it was taken or renewed |
//! | `fence` | how often the lock was taken |
//!
//! The scripts are sent each time (`EVAL`): they are short, a server that has forgotten them is then no case of its own, and
//! one permission is enough.

use redis::Cmd;

use super::super::WriteId;

macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("scripts/prelude.lua"), include_str!(concat!("scripts/", $file)))
    };
}

const ACQUIRE: &str = script!("acquire.lua");
const RENEW: &str = script!("renew.lua");
const RELEASE: &str = script!("release.lua");
const LOAD: &str = script!("load.lua");
const SAVE: &str = script!("save.lua");
/// Without the prelude, which calls what may be missing.
const MISSING: &str = include_str!("scripts/missing.lua");

/// Takes the lock, or tells how long it is still held by somebody else.
pub(super) fn acquire(key: &str, owner: &str, lease_ms: u64) -> Cmd {
    let mut command = eval(ACQUIRE, key);
    command.arg(owner).arg(lease_ms);
    command
}

/// What [`acquire`] tells: whether it was taken; and the fence, or how many milliseconds are left to somebody else.
pub(super) type Acquired = (bool, u64);

/// Renews the lease, and tells whether it was still there to be renewed.
pub(super) fn renew(key: &str, owner: &str, lease_ms: u64) -> Cmd {
    let mut command = eval(RENEW, key);
    command.arg(owner).arg(lease_ms);
    command
}

/// Lets go of the lock, if it is the owner's, and wakes those who wait for it.
pub(super) fn release(key: &str, owner: &str) -> Cmd {
    let mut command = eval(RELEASE, key);
    command.arg(owner);
    command
}

pub(super) fn load(key: &str) -> Cmd {
    eval(LOAD, key)
}

/// What [`load`] tells: the record, its write id, the run that wrote it, and the run that answers.
pub(super) type Loaded = (Option<Vec<u8>>, Option<String>, Option<String>, String);

/// Saves a record in place of the one that `replaces` names; tells `saved`, `conflict` or `unreadable`.
pub(super) fn save(
    key: &str,
    write_id: WriteId,
    replaces: Option<WriteId>,
    record: &[u8],
    has_open_intent: bool,
) -> Cmd {
    let mut command = eval(SAVE, key);
    command
        .arg(write_id.to_string())
        .arg(replaces.map_or_else(String::new, |replaces| replaces.to_string()))
        .arg(record)
        .arg(u8::from(has_open_intent));
    command
}

/// Finds out which commands the other scripts may not call.
pub(super) fn missing(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(MISSING).arg(1).arg(key);
    command
}

/// Returns the key that a script is for.
pub(super) fn key_of(command: &Cmd) -> &[u8] {
    match command.args_iter().nth(3) {
        Some(redis::Arg::Simple(key)) => key,
        _ => &[],
    }
}

fn eval(script: &str, key: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(key);
    command
}
