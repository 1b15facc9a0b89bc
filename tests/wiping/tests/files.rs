//! The token of a file, from the file to the token set.

use std::fs;

use tower_refresh::{Cause, Renewal, TokenFile, TokenSource as _};
use wiping::freed_unwiped;

/// In lower case, as hexadecimal tokens are: a copy in lower case would be the whole token.
const ACCESS: &str = "x2vd5smh9bujx8ea3fyr6wn";

/// Fault S19.
#[test]
fn no_copy_of_a_token_file_is_freed_unwiped() {
    let path = std::env::temp_dir().join(format!("tower-refresh-wiping-{}", std::process::id()));
    for content in [format!("{ACCESS}\n"), format!("{ACCESS}=\n"), format!("{ACCESS}:1\n")] {
        fs::write(&path, &content).unwrap();
        let freed = freed_unwiped(&[ACCESS], || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let source = TokenFile::new(&path);
            runtime.block_on(source.fetch(Renewal::new(Cause::Missing))).unwrap();
        });
        assert!(freed.is_empty(), "{}", freed.join("\n"));
    }
    fs::remove_file(&path).unwrap();
}
