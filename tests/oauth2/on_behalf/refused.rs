//! Subject tokens, actor tokens and assertions that the server does not accept.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use tower_refresh::oauth2::{SecurityToken, TokenExchangeGrant};
use tower_refresh::{Credentials, StaticToken, TokenError, TokenFile, TokenSet, TokenSource as _};

use super::{GRANTS, ISSUED, missing, numbered_user, refusal, sent};
use crate::folder::Folder;
use crate::scripted::{answer, endpoint, json, kind, reset};

#[tokio::test]
async fn refused_token_is_refreshed_and_sent_once_more() {
    for (make, code) in [
        (GRANTS[0], "invalid_request"),
        (GRANTS[0], "invalid_grant"),
        (GRANTS[0], "invalid_token"),
        (GRANTS[1], "invalid_grant"),
    ] {
        let (endpoint, log) = endpoint([refusal(code), json(ISSUED), json(ISSUED)]);
        let source = make(endpoint, numbered_user().into());
        source.fetch(missing()).await.unwrap();
        assert_eq!(sent(&log), ["user-1", "user-2"], "{code}");
        // The next attempt begins with the token that was accepted.
        source.fetch(missing()).await.unwrap();
        assert_eq!(sent(&log), ["user-1", "user-2", "user-2"], "{code}");
    }
}

#[tokio::test]
async fn token_that_was_refreshed_meanwhile_is_not_refreshed_again() {
    let user = numbered_user();
    let (endpoint, log) = endpoint([refusal("invalid_request"), json(ISSUED)]);
    let of_another_grant = user.clone();
    let grant = TokenExchangeGrant::new(endpoint, user).params_with(move |_| {
        // After the token was obtained, and before it is refused.
        let user = of_another_grant.clone();
        async move { user.refresh().await.map(|_| [("device", "d1")]) }
    });
    grant.fetch(missing()).await.unwrap();
    assert_eq!(sent(&log), ["user-1", "user-2"]);
}

/// Nothing was sent, so that no token was refused.
#[tokio::test]
async fn denial_by_another_closure_is_not_about_the_token() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let token = SecurityToken::from_fn(move |_| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(format!("user-{number}")) }
    });
    let (endpoint, log) = endpoint([]);
    let grant = TokenExchangeGrant::new(endpoint, token)
        .params_with(|_| async { Err::<[(&str, &str); 0], _>(TokenError::denied("no device")) });
    let error = grant.fetch(missing()).await.unwrap_err();
    assert_eq!(error.to_string(), "token denied: no device");
    assert_eq!((calls.load(Ordering::Relaxed), log.len()), (1, 0));
}

#[tokio::test]
async fn two_refusals_are_the_result_and_no_third_is_sent() {
    for (make, code, expected) in [
        (GRANTS[0], "invalid_request", "misconfigured"),
        (GRANTS[0], "invalid_grant", "denied"),
        (GRANTS[1], "invalid_grant", "denied"),
    ] {
        for token in [
            numbered_user().into(),
            SecurityToken::from_fn(|renewal| async move { Ok(format!("{:?}", renewal.cause())) }),
        ] {
            let (endpoint, log) = endpoint([refusal(code), refusal(code), json(ISSUED)]);
            let credentials = Credentials::new(make(endpoint, token));
            for _ in 0..2 {
                let error = credentials.tokens().await.unwrap_err();
                assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{error}");
                assert!(error.to_string().contains("was refused before"), "{error}");
            }
            assert_eq!(log.len(), 2, "{:?}", sent(&log));
        }
    }
}

#[tokio::test]
async fn second_answer_of_another_kind_is_the_result() {
    for (reply, expected) in [
        (answer(503, r#"{"error":"slow_down"}"#), "transient"),
        (refusal("invalid_target"), "misconfigured"),
    ] {
        let (endpoint, log) = endpoint([refusal("invalid_grant"), reply]);
        let error = GRANTS[0](endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{error}");
        assert_eq!(log.len(), 2);
    }
}

/// RFC 8693 §2.2.2: `invalid_request` is the code for an expired subject token.
#[tokio::test]
async fn refused_token_without_a_successor_means_log_in_again() {
    for (make, code) in
        [(GRANTS[0], "invalid_request"), (GRANTS[0], "invalid_token"), (GRANTS[1], "invalid_grant")]
    {
        for token in [SecurityToken::new("same"), SecurityToken::from_fn(|_| async { Ok("same") })]
        {
            let (endpoint, log) = endpoint([refusal(code)]);
            let error = make(endpoint, token).fetch(missing()).await.unwrap_err();
            assert_eq!((kind(&error), error.code()), ("denied", Some(code)), "{error}");
            assert!(error.to_string().contains("may have expired"), "{error}");
            assert_eq!(log.len(), 1);
        }
    }
}

#[tokio::test]
async fn fixed_token_is_not_sent_again_after_a_denial() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([refusal("invalid_grant"), json(ISSUED)]);
        let credentials = Credentials::new(make(endpoint, "fixed".into()));
        for _ in 0..2 {
            assert!(credentials.tokens().await.unwrap_err().is_denied());
            assert!(credentials.refresh().await.unwrap_err().is_denied());
        }
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn denied_refresh_of_a_refused_token_is_the_error() {
    let user = Credentials::new(StaticToken::new("fixed".parse().unwrap()));
    for make in GRANTS {
        let (endpoint, log) = endpoint([refusal("invalid_grant")]);
        let error = make(endpoint, user.clone().into()).fetch(missing()).await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        let shown = error.to_string();
        assert!(
            shown.contains("was refused, and there is no newer one: the token is fixed"),
            "{shown}"
        );
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn refused_actor_token_is_replaced_as_well() {
    let (endpoint, log) = endpoint([refusal("invalid_request"), json(ISSUED)]);
    let grant = TokenExchangeGrant::new(endpoint, "user").actor(numbered_user());
    grant.fetch(missing()).await.unwrap();
    assert_eq!(sent(&log), ["user", "user-1", "user", "user-2"]);

    // With another actor token refused, the subject token is the likely cause.
    let (endpoint, log) =
        crate::scripted::endpoint([refusal("invalid_request"), refusal("invalid_request")]);
    let grant = TokenExchangeGrant::new(endpoint, "user").actor(numbered_user());
    let error = grant.fetch(missing()).await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("subject token may have expired"));
    assert_eq!(log.len(), 2);
}

/// Another token of the same user changes nothing: the server asks for something else.
#[tokio::test]
async fn other_refusals_leave_the_token_alone() {
    for (code, expected) in [
        ("interaction_required", "denied"),
        ("consent_required", "denied"),
        ("invalid_target", "misconfigured"),
        ("invalid_scope", "misconfigured"),
        ("invalid_client", "misconfigured"),
        ("unauthorized_client", "misconfigured"),
        ("slow_down", "transient"),
        ("server_error", "transient"),
    ] {
        for make in GRANTS {
            let (endpoint, log) = endpoint([refusal(code)]);
            let error = make(endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
            assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{error}");
            assert_eq!(sent(&log), ["user-1"], "{code}");
        }
    }
    // For an assertion, `invalid_request` is not about the assertion (RFC 7523 §3.1).
    let (endpoint, log) = endpoint([refusal("invalid_request")]);
    let error = GRANTS[1](endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
    assert_eq!((kind(&error), log.len()), ("misconfigured", 1));
}

#[tokio::test]
async fn lost_answer_is_transient_since_no_token_is_spent() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([reset()]);
        let error = make(endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
        assert_eq!((kind(&error), log.len()), ("transient", 1), "{error}");
    }
}

/// Writes a file that looks old, so that its next change is noticed by its time.
fn write(path: &Path, token: &str) {
    std::fs::write(path, token).unwrap();
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

/// A token of a Kubernetes service account, which the kubelet writes anew.
#[tokio::test]
async fn denial_ends_when_the_file_has_another_token() {
    for make in GRANTS {
        let folder = Folder::new();
        let path = folder.path("token");
        write(&path, "expired");
        let (endpoint, log) = endpoint([refusal("invalid_grant"), json(ISSUED), json(ISSUED)]);
        let token = SecurityToken::from_credentials(TokenFile::new(&path));
        let credentials = Credentials::new(make(endpoint, token));
        for _ in 0..2 {
            assert!(credentials.tokens().await.unwrap_err().is_denied());
        }
        write(&path, "another-one");
        credentials.tokens().await.unwrap();
        // The next exchange sends the newest token at once.
        write(&path, "newest");
        credentials.refresh().await.unwrap();
        assert_eq!(sent(&log), ["expired", "another-one", "newest"]);
    }
}

/// The middle of a chain has no tokens of its own that change.
#[tokio::test]
async fn log_in_of_the_user_ends_the_denial_at_the_end_of_a_chain() {
    let user = super::failing_user(TokenError::denied("log in"));
    let (endpoint, log) = endpoint([json(ISSUED), json(ISSUED)]);
    let middle = Credentials::new(GRANTS[0](endpoint.clone(), user.clone().into()));
    let end = Credentials::new(GRANTS[1](endpoint, middle.into()));
    for _ in 0..2 {
        assert!(end.tokens().await.unwrap_err().is_denied());
    }
    user.log_in(TokenSet::bearer("logged-in").unwrap()).await.unwrap();
    end.tokens().await.unwrap();
    assert_eq!(sent(&log), ["logged-in", "issued"]);
}
