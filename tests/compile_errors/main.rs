//! The compiler's messages about the usual mistakes.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

/// The version of the compiler that has written the messages. Others word them differently.
#[cfg(feature = "full")]
const RUSTC: &str = "rustc 1.95.0 ";

/// After a change: `TRYBUILD=overwrite cargo test --all-features --test compile_errors`.
#[cfg(feature = "full")]
#[test]
fn usual_mistakes_have_messages_that_name_the_remedy() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    if !version.starts_with(RUSTC) {
        println!("skipped: the messages are those of {RUSTC}and not of {version}");
        return;
    }
    let cases = trybuild::TestCases::new();
    for case in ["sources", "async_closures", "services", "pools"] {
        cases.compile_fail(format!("tests/compile_errors/{case}.rs"));
    }
}

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
