//! The refresh token that is sent, and how often.

use std::time::{Duration, UNIX_EPOCH};

use tokio_test::{assert_pending, task};
use tower_refresh::oauth2::{
    Authentication, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant,
    TokenEndpoint,
};
use tower_refresh::{BoxTokenSource, Cause, Credentials, Renewal, TokenSet, TokenSource};

use crate::scripted::{
    Log, Manual, Reply, START, answer, answer_with, endpoint, json, refused, reset,
};

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

fn after(previous: &TokenSet) -> Renewal {
    Renewal::new(Cause::Expired).with_previous(previous.clone())
}

fn grant(replies: impl IntoIterator<Item = Reply>) -> (RefreshTokenGrant, Log) {
    let (endpoint, log) = endpoint(replies);
    (RefreshTokenGrant::new(endpoint, "first"), log)
}

fn sent(token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}")
}

const ROTATED: &str = r#"{"access_token":"a","refresh_token":"second"}"#;
const KEPT: &str = r#"{"access_token":"a"}"#;

#[tokio::test]
async fn previous_refresh_token_is_sent_rather_than_the_configured() {
    let (grant, log) = grant([json(ROTATED), json(KEPT), json(KEPT)]);
    let tokens = grant.fetch(missing()).await.unwrap();
    let tokens = grant.fetch(after(&tokens)).await.unwrap();
    grant.fetch(after(&tokens)).await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("second"), sent("second")]);
}

#[tokio::test]
async fn a_configured_token_that_was_rotated_is_never_sent_again() {
    let (grant, log) = grant([json(ROTATED)]);
    grant.fetch(missing()).await.unwrap();
    let stale = TokenSet::bearer("a").unwrap().with_refresh_token("first");
    for renewal in [missing(), after(&stale)] {
        let error = grant.fetch(renewal).await.unwrap_err();
        assert!(error.is_denied());
        assert!(error.to_string().contains("log in"), "{error}");
    }
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn configured_token_that_the_server_kept_may_be_sent_again() {
    let same = r#"{"access_token":"a","refresh_token":"first"}"#;
    let (grant, log) = grant([json(same), json(KEPT), json(KEPT)]);
    for attempts in 1..=3 {
        grant.fetch(missing()).await.unwrap();
        assert_eq!(log.len(), attempts);
    }
}

#[tokio::test]
async fn a_configured_token_that_was_denied_is_never_sent_again() {
    let (grant, log) = grant([answer(400, r#"{"error":"invalid_grant"}"#)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_denied());
    assert!(grant.fetch(missing()).await.unwrap_err().is_denied());
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn a_configured_token_is_not_sent_after_logging_in_or_out() {
    let other = TokenSet::bearer("a").unwrap().with_refresh_token("other");
    for adopted in [None, Some(&other)] {
        let (grant, log) = grant([json(KEPT)]);
        grant.adopt(adopted).await.unwrap();
        let error = grant.fetch(missing()).await.unwrap_err();
        assert!(error.is_denied());
        assert!(error.to_string().contains("log in"), "{error}");
        assert_eq!(log.len(), 0);

        grant.fetch(after(&other)).await.unwrap();
        assert_eq!(log.bodies(), [sent("other")]);
    }
}

#[tokio::test]
async fn log_in_with_the_configured_token_works_if_it_was_never_sent() {
    let brought = TokenSet::bearer("a").unwrap().with_refresh_token("first");
    let (never_sent, log) = grant([json(KEPT)]);
    never_sent.adopt(None).await.unwrap();
    never_sent.adopt(Some(&brought)).await.unwrap();
    never_sent.fetch(after(&brought)).await.unwrap();
    assert_eq!(log.bodies(), [sent("first")]);

    for answer in [answer(400, r#"{"error":"invalid_grant"}"#), json(ROTATED)] {
        let (spent, log) = grant([answer, json(KEPT)]);
        let _ = spent.fetch(missing()).await;
        for adopted in [Some(&brought), None, Some(&brought)] {
            spent.adopt(adopted).await.unwrap();
            assert!(spent.fetch(after(&brought)).await.unwrap_err().is_denied());
            assert!(spent.fetch(missing()).await.unwrap_err().is_denied());
        }
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn denied_refresh_token_is_not_sent_again_from_any_origin() {
    let invalid_grant = || answer(400, r#"{"error":"invalid_grant"}"#);
    let (grant, log) = grant([invalid_grant(), json(KEPT), json(KEPT)]);
    let brought = TokenSet::bearer("a").unwrap().with_refresh_token("brought");
    for _ in 0..2 {
        grant.adopt(Some(&brought)).await.unwrap();
        let error = grant.fetch(after(&brought)).await.unwrap_err();
        assert!(error.is_denied());
        assert_eq!(log.len(), 1);
    }
    let other = TokenSet::bearer("a").unwrap().with_refresh_token("other");
    grant.fetch(after(&other)).await.unwrap();
    assert!(grant.fetch(after(&brought)).await.unwrap_err().is_denied());
    assert_eq!(log.bodies(), [sent("brought"), sent("other")]);
}

#[tokio::test]
async fn leftover_refresh_token_that_was_denied_is_not_sent_again() {
    let denied = answer(400, r#"{"error":"invalid_grant"}"#);
    let (grant, log) = grant([json(r#"{"refresh_token":"second"}"#), denied, json(KEPT)]);
    for _ in 0..4 {
        assert!(grant.fetch(missing()).await.is_err());
    }
    assert_eq!(log.bodies(), [sent("first"), sent("second")]);
}

#[tokio::test]
async fn without_any_refresh_token_nothing_is_sent() {
    let (endpoint, log) = endpoint([json(KEPT)]);
    let error = RefreshTokenGrant::new(endpoint, "").fetch(missing()).await.unwrap_err();
    assert!(error.is_denied());
    assert_eq!(log.len(), 0);
}

#[tokio::test]
async fn refresh_token_of_an_otherwise_useless_response_is_sent_next() {
    let unusable = [
        r#"{"access_token":"a","token_type":"mac","refresh_token":"NEXT"}"#,
        r#"{"access_token":"","refresh_token":"NEXT"}"#,
        r#"{"access_token":"a b","refresh_token":"NEXT"}"#,
        r#"{"ok":false,"refresh_token":"NEXT"}"#,
    ];
    for first in unusable {
        for second in unusable {
            let (grant, log) = grant([
                json(&first.replace("NEXT", "second")),
                json(&second.replace("NEXT", "third")),
                json(r#"{"access_token":"a","refresh_token":"fourth"}"#),
                json(KEPT),
            ]);
            for _ in 0..2 {
                // The fate of the refresh token is known, so that the outcome is not ambiguous.
                assert!(!grant.fetch(missing()).await.unwrap_err().is_ambiguous());
            }
            let tokens = grant.fetch(missing()).await.unwrap();
            grant.fetch(after(&tokens)).await.unwrap();
            let all = ["first", "second", "third", "fourth"];
            assert_eq!(log.bodies(), all.map(sent));
        }
    }
}

#[tokio::test]
async fn leftover_refresh_token_is_not_sent_after_a_log_out() {
    let (grant, log) = grant([json(r#"{"refresh_token":"second"}"#)]);
    assert!(grant.fetch(missing()).await.is_err());
    grant.adopt(None).await.unwrap();
    assert!(grant.fetch(missing()).await.unwrap_err().is_denied());
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn lost_configured_token_is_sent_again_only_when_asked() {
    let (grant, log) = grant([reset(), answer(502, ""), json(ROTATED)]);
    for attempts in [1, 2] {
        assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
        assert_eq!(log.len(), attempts);
    }
    grant.fetch(missing()).await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("first"), sent("first")]);
}

/// S2
#[tokio::test]
async fn refresh_token_is_sent_after_its_stated_expiry() {
    for ago in [1, 301, 100_000_000] {
        let previous = TokenSet::bearer("a")
            .unwrap()
            .with_refresh_token("r")
            .with_refresh_token_expires_at(UNIX_EPOCH + Duration::from_secs(START - ago));
        let (endpoint, log) = endpoint([json(KEPT)]);
        let grant = RefreshTokenGrant::new(endpoint.clock(Manual::new()), "first");
        let tokens = grant.fetch(after(&previous)).await.unwrap();
        assert_eq!(log.bodies(), [sent("r")]);
        // The token was kept, and its stated expiry with it.
        assert_eq!(tokens.refresh_token_expires_at(), previous.refresh_token_expires_at());
    }
}

#[tokio::test]
async fn expiry_of_a_refresh_token_is_kept_in_local_time() {
    let body = r#"{"access_token":"a","refresh_token":"r","refresh_expires_in":FIELD}"#;
    for (value, expected) in [("60", Some(START + 60)), ("0", None), ("null", None)] {
        let (endpoint, _) = endpoint([json(&body.replace("FIELD", value))]);
        let tokens = RefreshTokenGrant::new(endpoint.clock(Manual::new()), "first")
            .fetch(missing())
            .await
            .unwrap();
        let expected = expected.map(|at| UNIX_EPOCH + Duration::from_secs(at));
        assert_eq!(tokens.refresh_token_expires_at(), expected, "{value}");
    }
    // The clock of the server is a day behind the local one.
    let body = r#"{"access_token":"a","refresh_token":"r","refresh_token_expires_at":"2022-10-31T13:14:43Z"}"#;
    let date = [("date", "Mon, 31 Oct 2022 13:13:43 GMT")];
    let (endpoint, _) = endpoint([answer_with(200, &date, body)]);
    let tokens = RefreshTokenGrant::new(endpoint.clock(Manual::new()), "first")
        .fetch(missing())
        .await
        .unwrap();
    assert_eq!(
        tokens.refresh_token_expires_at(),
        Some(UNIX_EPOCH + Duration::from_secs(START + 60))
    );
}

#[tokio::test]
async fn what_the_answer_leaves_out_is_kept() {
    let previous =
        TokenSet::bearer("a").unwrap().with_refresh_token("r").with_scope("s").with_id_token("i");
    let (grant, _) = grant([json(r#"{"access_token":"b"}"#)]);
    let tokens = grant.fetch(after(&previous)).await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "b");
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r");
    assert_eq!(tokens.scope(), Some("s"));
    assert_eq!(tokens.id_token(), Some("i"));
}

#[tokio::test]
async fn to_log_in_again_keeps_nothing_of_the_old_session() {
    let previous = TokenSet::bearer("a").unwrap().with_refresh_token("r").with_scope("s");
    let (endpoint, log) = endpoint([json(KEPT)]);
    let grant = Grant::new(endpoint, "password").param("username", "u").param("password", "p");
    let tokens = grant.fetch(after(&previous)).await.unwrap();
    assert_eq!(log.bodies(), ["grant_type=password&username=u&password=p"]);
    assert!(tokens.refresh_token().is_none());
    assert!(tokens.scope().is_none());
}

#[tokio::test]
async fn a_refresh_token_that_was_left_over_is_spent_once() {
    let (grant, log) = grant([
        json(r#"{"refresh_token":"second"}"#),
        json(r#"{"access_token":"a","refresh_token":"third"}"#),
        json(KEPT),
    ]);
    assert!(grant.fetch(missing()).await.is_err());
    let clone = grant.clone();
    grant.fetch(missing()).await.unwrap();
    // A token set without the third has no refresh token.
    for grant in [grant, clone] {
        assert!(grant.fetch(missing()).await.unwrap_err().is_denied());
    }
    assert_eq!(log.bodies(), [sent("first"), sent("second")]);
}

#[tokio::test]
async fn configured_token_replaced_by_a_useless_response_is_not_sent() {
    let (grant, log) = grant([json(r#"{"refresh_token":"second"}"#), json(KEPT)]);
    assert!(grant.fetch(missing()).await.is_err());
    let brought = TokenSet::bearer("a").unwrap().with_refresh_token("first");
    grant.adopt(Some(&brought)).await.unwrap();
    assert!(grant.fetch(after(&brought)).await.unwrap_err().is_denied());
    assert_eq!(log.bodies(), [sent("first")]);
}

#[tokio::test]
async fn leftover_refresh_token_does_not_inherit_an_older_expiry() {
    let (endpoint, log) = endpoint([json(r#"{"refresh_token":"second"}"#), json(KEPT)]);
    let clock = Manual::new();
    let grant = RefreshTokenGrant::new(endpoint.clock(clock.clone()), "");
    let previous = TokenSet::bearer("a")
        .unwrap()
        .with_refresh_token("first")
        .with_refresh_token_expires_at(UNIX_EPOCH + Duration::from_secs(START + 60));
    assert!(grant.fetch(after(&previous)).await.is_err());
    clock.advance(Duration::from_secs(600));
    let tokens = grant.fetch(after(&previous)).await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("second")]);
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "second");
    assert_eq!(tokens.refresh_token_expires_at(), None);
}

// ===== Two at a time =====

#[tokio::test]
async fn clones_of_a_grant_do_not_send_one_refresh_token_at_once() {
    let (grant, log) = grant([Reply::Hang, json(ROTATED)]);
    let clone = grant.clone();
    let mut sending = task::spawn(grant.fetch(missing()));
    assert_pending!(sending.poll());
    let error = clone.fetch(missing()).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(log.len(), 1);

    // A different token does not wait.
    let other = TokenSet::bearer("a").unwrap().with_refresh_token("other");
    clone.fetch(after(&other)).await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("other")]);
}

#[tokio::test]
async fn refresh_token_may_be_sent_again_once_no_request_sends_it() {
    let (grant, log) = grant([Reply::Hang, json(KEPT), json(KEPT)]);
    let mut sending = task::spawn(grant.fetch(missing()));
    assert_pending!(sending.poll());
    drop(sending);
    for _ in 0..2 {
        grant.fetch(missing()).await.unwrap();
    }
    assert_eq!(log.len(), 3);
}

#[tokio::test]
async fn permanent_refresh_token_may_be_sent_by_two_at_once() {
    let (endpoint, log) = endpoint([Reply::Hang, json(KEPT)]);
    let mut dialect = Dialect::rfc6749();
    dialect.rotates = false;
    let grant = RefreshTokenGrant::new(endpoint.dialect(dialect), "first");
    let clone = grant.clone();
    let mut sending = task::spawn(grant.fetch(missing()));
    assert_pending!(sending.poll());
    clone.fetch(missing()).await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("first")]);
}

// ===== The grace window =====

fn graceful(replies: impl IntoIterator<Item = Reply>) -> (RefreshTokenGrant, Log, Manual) {
    let clock = Manual::new();
    let mut dialect = Dialect::rfc6749();
    dialect.reuse_grace = Some(Duration::from_secs(30));
    let (endpoint, log) = endpoint(replies);
    let endpoint = endpoint.dialect(dialect).clock(clock.clone());
    (RefreshTokenGrant::new(endpoint, "first"), log, clock)
}

#[tokio::test]
async fn lost_response_is_requested_once_more_in_the_grace_window() {
    let (grant, log, _) = graceful([reset(), json(ROTATED)]);
    assert!(grant.fetch(missing()).await.is_ok());
    assert_eq!(log.bodies(), [sent("first"), sent("first")]);

    let (grant, log, _) = graceful([reset(), answer(502, ""), json(ROTATED)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 2);
}

#[tokio::test]
async fn the_grace_window_begins_with_the_first_sending() {
    let (grant, log, clock) = graceful([reset(), reset(), reset(), reset(), json(KEPT)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 2);
    // Inside the window, but the request was already repeated.
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 3);
    clock.advance(Duration::from_secs(31));
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 4);
}

#[tokio::test]
async fn an_attempt_that_did_not_count_opens_no_second_grace_window() {
    let (grant, log, _) = graceful([reset(), reset(), refused(), reset(), json(KEPT)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert!(grant.fetch(missing()).await.unwrap_err().is_transient());
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 4);
}

#[tokio::test]
async fn machine_suspended_past_the_grace_window_does_not_ask_again() {
    let (endpoint, log) = endpoint([reset(), json(KEPT)]);
    let clock = Manual::new();
    let mut dialect = Dialect::rfc6749();
    dialect.reuse_grace = Some(Duration::from_secs(30));
    let asleep = clock.clone();
    let endpoint =
        endpoint.dialect(dialect).clock(clock).client_auth(ClientAuth::custom(move || {
            asleep.advance(Duration::from_secs(31));
            std::future::ready(Ok(Authentication::new()))
        }));
    let grant = RefreshTokenGrant::new(endpoint, "first");
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn what_was_not_sent_does_not_open_the_grace_window() {
    let (grant, log, clock) = graceful([refused(), reset(), json(KEPT)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_transient());
    clock.advance(Duration::from_secs(31));
    assert!(grant.fetch(missing()).await.is_ok());
    assert_eq!(log.len(), 3);
}

#[tokio::test]
async fn unsent_second_request_leaves_the_first_outcome_unknown() {
    for second in [refused(), answer_with(429, &[("retry-after", "7")], "")] {
        let is_answer = matches!(second, Reply::Answer(_));
        let (grant, _, _) = graceful([reset(), second]);
        let error = grant.fetch(missing()).await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        assert_eq!(error.retry_after().is_some(), is_answer);
        let shown = error.to_string();
        assert!(shown.contains("connection reset; when sent again, "), "{shown}");
    }
    let (grant, _, _) = graceful([reset(), answer(400, r#"{"error":"invalid_grant"}"#)]);
    assert!(grant.fetch(missing()).await.unwrap_err().is_denied());
}

#[tokio::test]
async fn unknown_code_of_a_second_request_leaves_the_outcome_unknown() {
    let (grant, log, _) = graceful([reset(), answer(400, r#"{"error":"token_already_used"}"#)]);
    let error = grant.fetch(missing()).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(error.code(), Some("token_already_used"));
    assert_eq!(log.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_grace_window_leaves_time_for_a_second_request() {
    let (grant, log, _) = graceful([Reply::Hang, Reply::Hang]);
    let start = tokio::time::sleep(Duration::ZERO).deadline();
    assert!(grant.fetch(missing()).await.unwrap_err().is_ambiguous());
    let took = tokio::time::sleep(Duration::ZERO).deadline() - start;
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(log.len(), 2);
}

// ===== repetition after a denial =====

/// A80: `renew` repeats a denied request at once only with a fresh proof. Repeating a wrong password locks the account.
#[tokio::test]
async fn only_a_proof_that_is_made_anew_is_sent_again_after_a_refusal() {
    let replies = || [answer(400, r#"{"error":"invalid_grant"}"#), json(KEPT)];
    type Make = fn(TokenEndpoint) -> BoxTokenSource;
    let grants: [(usize, Make); 6] = [
        (2, |it| ClientCredentialsGrant::new(it).boxed()),
        (2, |it| {
            let params = |_| async { Ok([("assertion", "signed")]) };
            Grant::new(it, "urn:ietf:params:oauth:grant-type:jwt-bearer")
                .params_with(params)
                .boxed()
        }),
        (2, |it| {
            Grant::new(it, "urn:ietf:params:oauth:grant-type:saml2-bearer").param("a", "b").boxed()
        }),
        (1, |it| Grant::new(it, "password").param("password", "wrong").boxed()),
        (1, |it| RefreshTokenGrant::new(it, "first").boxed()),
        (2, |it| {
            let log_in = ClientCredentialsGrant::new(it.clone());
            RefreshTokenGrant::new(it, "").or_else(log_in).boxed()
        }),
    ];
    for (at, (requests, grant)) in grants.into_iter().enumerate() {
        let (endpoint, log) = endpoint(replies());
        let credentials = Credentials::new(grant(endpoint));
        assert!(credentials.token().await.unwrap_err().is_denied(), "{at}");
        assert_eq!(credentials.renew().await.is_ok(), requests == 2, "{at}");
        assert_eq!(log.len(), requests, "{at}");
    }
}

/// A31, OpenID Connect Core §3.1.2.6: the user must do something first, and the refresh token still stands.
#[tokio::test]
async fn refresh_token_is_sent_again_after_a_conditional_denial() {
    let conditional = answer(400, r#"{"error":"interaction_required"}"#);
    let (endpoint, log) = endpoint([conditional, json(KEPT)]);
    let credentials = Credentials::new(RefreshTokenGrant::new(endpoint, "first"));
    assert!(credentials.token().await.unwrap_err().is_denied());
    credentials.renew().await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("first")]);
}
