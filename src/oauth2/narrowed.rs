//! The scope that a token lacks although it was requested, or although the previous token had it.

use std::sync::Arc;

use super::scrub::{PIECE, Secrets};
use crate::lock::Lock;
use crate::token::{RefreshToken, TokenSet};
use crate::trace::{self, target};

/// The missing scope that was logged last.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrowed(Arc<Lock<String>>);

impl Narrowed {
    /// Logs the missing scope if it has changed.
    pub(super) fn log(
        &self,
        endpoint: &str,
        requested: Option<&str>,
        previous: Option<&TokenSet>,
        tokens: &TokenSet,
    ) {
        // An answer without a scope grants the requested one (RFC 6749 §5.1).
        let Some(granted) = tokens.scope() else { return };
        let expected = [requested, previous.and_then(TokenSet::scope)];
        let missing = missing(expected.into_iter().flatten(), granted).join(" ");
        if missing.is_empty() {
            self.0.lock().clear();
            return;
        }
        let missing = without_tokens(&missing, previous.into_iter().chain([tokens]));
        let is_news = *self.0.lock() != missing;
        trace::change!(
            is_news, warning,
            target: target::ENDPOINT,
            endpoint,
            missing = missing.as_str(),
            "scope of the token narrowed: it lacks a scope that was requested or that the last token had; grant it at the authorization server"
        );
        *self.0.lock() = missing;
    }
}

/// Returns words of a scope that may be shown: a server may put a token where its scope belongs.
fn without_tokens<'a>(words: &str, sets: impl Iterator<Item = &'a TokenSet>) -> String {
    let mut secrets = Secrets::default();
    for set in sets {
        let access_token = set.access_token().expose_secret();
        let refresh_token = set.refresh_token().map(RefreshToken::expose_secret);
        let secret = [Some(access_token), refresh_token, set.id_token()].into_iter().flatten();
        // A shorter one occurs in ordinary words.
        secret.filter(|secret| secret.len() >= PIECE).for_each(|secret| secrets.add(secret));
    }
    secrets.clean(words, SHOWN_MAX)
}

/// Returns the words that the granted scope lacks.
fn missing<'a>(expected: impl Iterator<Item = &'a str>, granted: &str) -> Vec<&'a str> {
    let mut missing = Vec::new();
    for word in expected.flat_map(str::split_whitespace) {
        let is_granted = granted.split_whitespace().any(|granted| is_same(word, granted));
        if !is_granted && !is_unlisted(word) && !missing.contains(&word) && missing.len() < MOST {
            missing.push(word);
        }
    }
    missing
}

/// Some servers leave out the resource before the name of a scope, or add it.
fn is_same(word: &str, granted: &str) -> bool {
    let name = |scope: &'_ str| scope.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    word == granted || name(word) == name(granted)
}

/// Returns whether servers leave a scope out although they grant it: those of OpenID Connect, and Microsoft Entra ID's `.default`.
fn is_unlisted(word: &str) -> bool {
    const UNLISTED: [&str; 6] =
        ["openid", "profile", "email", "address", "phone", "offline_access"];

    UNLISTED.contains(&word) || word.rsplit('/').next() == Some(".default")
}

/// The number of missing words that are shown, and of their characters.
const MOST: usize = 16;
const SHOWN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_scope_is_what_was_expected_and_not_granted() {
        for (expected, granted, lacks) in [
            ("read write", "read", "write"),
            ("read write", "write read more", ""),
            ("read read", "", "read"),
            ("openid offline_access read", "read", ""),
            ("https://graph.example/.default", "User.Read", ""),
            ("https://graph.example/User.Read", "user.read", ""),
            ("drive", "https://www.example/auth/drive", ""),
        ] {
            let missing = missing(std::iter::once(expected), granted);
            assert_eq!(missing.join(" "), lacks, "{expected}: {granted}");
        }
    }
}
