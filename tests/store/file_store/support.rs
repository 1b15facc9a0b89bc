//! Records to save.

use std::io::Write as _;

use tower_refresh::store::{StoredTokens, WriteId};

/// Returns the record of this revision.
pub(crate) fn record(n: u64) -> StoredTokens {
    make(n, &format!("sesame-{n}"), "")
}

/// Returns the same, of this length or slightly longer.
pub(crate) fn record_of_length(n: u64, length: usize) -> StoredTokens {
    make(n, &"s".repeat(length.max(1)), "")
}

/// Returns the record of this revision with an open intent.
pub(crate) fn intent(n: u64) -> StoredTokens {
    let intent = format!(
        r#", "intent": {{"token": "{n:032x}", "by": "{n:032x}", "attempt": 1, "first_sent_ms": 1, "last_sent_ms": 1}}"#
    );
    make(n, &format!("sesame-{n}"), &intent)
}

/// Returns the write id of the record of this revision.
pub(crate) fn id(n: u64) -> WriteId {
    record(n).write_id()
}

fn make(n: u64, token: &str, more: &str) -> StoredTokens {
    let json = format!(
        r#"{{
            "version": 1, "write_id": "{n:032x}", "epoch": 1, "revision": {n}, "binding": {{}},
            "body": {{"plain": {{
                "fingerprint_key": "{n:032x}",
                "tokens": {{"access_token": "{token}", "received_at_ms": 1, "refresh_token": "open-{n}"}}{more}
            }}}}
        }}"#
    );
    StoredTokens::from_json(json.as_bytes()).unwrap()
}

/// Reports a skipped test, past the harness, which hides the output of passing tests.
pub(crate) fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
