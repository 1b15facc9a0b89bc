//! The refresh token that is sent, and how often.

use std::time::{Duration, UNIX_EPOCH};

use tokio_test::{assert_pending, task};
use tower_refresh::oauth2::{
    AuthParams, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant,
    TokenEndpoint,
};
use tower_refresh::store::MemoryStore;
use tower_refresh::{
    BoxTokenSource, Cause, Credentials, RefreshPolicy, Renewal, TokenError, TokenSet, TokenSource,
};

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

/// Credentials over the grant, which decide what it sends, with a store and without.
struct Client {
    credentials: Credentials,
    log: Log,
    clock: Manual,
    has_store: bool,
}

fn clients<const N: usize>(replies: impl Fn() -> [Reply; N]) -> [Client; 2] {
    clients_in(&Dialect::rfc6749(), replies)
}

fn clients_in<const N: usize>(dialect: &Dialect, replies: impl Fn() -> [Reply; N]) -> [Client; 2] {
    [false, true].map(|has_store| {
        let clock = Manual::new();
        let (endpoint, log) = endpoint(replies());
        let endpoint = endpoint.dialect(dialect.clone()).clock(clock.clone());
        let grant = RefreshTokenGrant::new(endpoint, "first");
        Client { credentials: credentials(grant, has_store, &clock), log, clock, has_store }
    })
}

fn credentials(source: impl TokenSource, has_store: bool, clock: &Manual) -> Credentials {
    let policy = RefreshPolicy::default().timeout(LOST / 10).clock(clock.clone());
    let builder = Credentials::builder(source).policy(policy);
    match has_store {
        true => builder.store(MemoryStore::new()).build(),
        false => builder.build(),
    }
}

impl Client {
    /// Logs in with a spent refresh token: an error if a store may have its successor.
    async fn log_in_with_spent(&self, refresh_token: &str) {
        let result = self.credentials.log_in(brought(refresh_token)).await;
        assert_eq!(result.is_err(), self.has_store, "{result:?}");
        if let Err(error) = result {
            assert!(error.is_denied() && error.to_string().contains("log in"), "{error}");
        }
    }

    /// Asks once more, when every pause after a failure is over.
    async fn next(&self) -> Result<TokenSet, TokenError> {
        self.clock.advance(Duration::from_secs(3600));
        self.credentials.refresh().await
    }
}

fn brought(refresh_token: &str) -> TokenSet {
    TokenSet::bearer("a").unwrap().with_refresh_token(refresh_token)
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
async fn configured_token_that_was_rotated_is_never_sent_again() {
    for client in clients(|| [json(ROTATED)]) {
        client.credentials.tokens().await.unwrap();
        client.log_in_with_spent("first").await;
        client.credentials.log_out().await.unwrap();
        for _ in 0..2 {
            let error = client.next().await.unwrap_err();
            assert!(error.is_denied() && error.to_string().contains("log in"), "{error}");
        }
        assert_eq!(client.log.bodies(), [sent("first")]);
    }
}

#[tokio::test]
async fn configured_token_that_the_server_kept_may_be_sent_again() {
    let same = r#"{"access_token":"a","refresh_token":"first"}"#;
    for client in clients(|| [json(same), json(KEPT), json(KEPT)]) {
        for attempts in 1..=3 {
            client.next().await.unwrap();
            assert_eq!(client.log.bodies(), vec![sent("first"); attempts]);
        }
    }
}

#[tokio::test]
async fn configured_token_that_was_denied_is_never_sent_again() {
    for client in clients(|| [answer(400, r#"{"error":"invalid_grant"}"#)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_denied());
        for _ in 0..3 {
            assert!(client.next().await.unwrap_err().is_denied());
            assert!(client.credentials.tokens().await.unwrap_err().is_denied());
        }
        assert_eq!(client.log.len(), 1);
    }
}

#[tokio::test]
async fn configured_token_is_not_sent_after_logging_in_or_out() {
    for client in clients(|| [json(KEPT)]) {
        client.credentials.log_out().await.unwrap();
        for _ in 0..2 {
            let error = client.next().await.unwrap_err();
            assert!(error.is_denied() && error.to_string().contains("log in"), "{error}");
        }
        assert_eq!(client.log.len(), 0);

        client.credentials.log_in(brought("other")).await.unwrap();
        client.next().await.unwrap();
        assert_eq!(client.log.bodies(), [sent("other")]);
    }
}

#[tokio::test]
async fn log_in_may_bring_a_configured_token_that_was_never_sent() {
    for client in clients(|| [json(KEPT)]) {
        client.credentials.log_out().await.unwrap();
        client.credentials.log_in(brought("first")).await.unwrap();
        client.next().await.unwrap();
        assert_eq!(client.log.bodies(), [sent("first")]);
    }
    for client in clients(|| [answer(400, r#"{"error":"invalid_grant"}"#), json(KEPT)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_denied());
        for _ in 0..2 {
            // At the latest after the end of its session it is refused at once.
            let _ = client.credentials.log_in(brought("first")).await;
            assert!(client.next().await.unwrap_err().is_denied());
            client.credentials.log_out().await.unwrap();
            assert!(client.next().await.unwrap_err().is_denied());
        }
        assert_eq!(client.log.len(), 1);
    }
    for client in clients(|| [json(ROTATED), json(KEPT)]) {
        client.credentials.tokens().await.unwrap();
        for _ in 0..2 {
            client.credentials.log_out().await.unwrap();
            assert!(client.next().await.unwrap_err().is_denied());
            client.log_in_with_spent("first").await;
            assert!(client.next().await.unwrap_err().is_denied());
        }
        assert_eq!(client.log.len(), 1);
    }
}

#[tokio::test]
async fn denied_refresh_token_is_not_sent_again_after_a_log_in() {
    let invalid_grant = || answer(400, r#"{"error":"invalid_grant"}"#);
    for client in clients(|| [invalid_grant(), json(KEPT), json(KEPT)]) {
        for _ in 0..2 {
            client.credentials.log_in(brought("brought")).await.unwrap();
            assert!(client.next().await.unwrap_err().is_denied());
            assert_eq!(client.log.len(), 1);
        }
        client.credentials.log_in(brought("other")).await.unwrap();
        client.next().await.unwrap();
        // Its session is over.
        client.log_in_with_spent("brought").await;
        let _ = client.next().await;
        assert_eq!(client.log.bodies(), [sent("brought"), sent("other")]);
    }
}

#[tokio::test]
async fn leftover_refresh_token_that_was_denied_is_not_sent_again() {
    let denied = || answer(400, r#"{"error":"invalid_grant"}"#);
    for client in clients(|| [json(r#"{"refresh_token":"second"}"#), denied(), json(KEPT)]) {
        for _ in 0..4 {
            assert!(client.next().await.is_err());
        }
        assert_eq!(client.log.bodies(), [sent("first"), sent("second")]);
    }
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
            for client in clients(|| {
                [
                    json(&first.replace("NEXT", "second")),
                    json(&second.replace("NEXT", "third")),
                    json(r#"{"access_token":"a","refresh_token":"fourth"}"#),
                    json(KEPT),
                ]
            }) {
                for _ in 0..2 {
                    // The outcome for the refresh token is known, so that nothing is ambiguous.
                    assert!(!client.next().await.unwrap_err().is_ambiguous());
                }
                for _ in 0..2 {
                    client.next().await.unwrap();
                }
                let all = ["first", "second", "third", "fourth"];
                assert_eq!(client.log.bodies(), all.map(sent));
            }
        }
    }
}

#[tokio::test]
async fn leftover_refresh_token_is_not_sent_after_a_log_out() {
    for client in clients(|| [json(r#"{"refresh_token":"second"}"#)]) {
        assert!(client.credentials.tokens().await.is_err());
        client.credentials.log_out().await.unwrap();
        assert!(client.next().await.unwrap_err().is_denied());
        assert_eq!(client.log.len(), 1);
    }
}

#[tokio::test]
async fn configured_token_is_sent_again_after_a_lost_answer() {
    for client in clients(|| [reset(), answer(502, ""), json(ROTATED)]) {
        for attempts in [1, 2] {
            assert!(client.next().await.unwrap_err().is_ambiguous());
            assert_eq!(client.log.len(), attempts);
        }
        client.next().await.unwrap();
        assert_eq!(client.log.bodies(), [sent("first"), sent("first"), sent("first")]);
    }
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
async fn refresh_token_that_was_left_over_is_spent_once() {
    for client in clients(|| {
        [
            json(r#"{"refresh_token":"second"}"#),
            json(r#"{"access_token":"a","refresh_token":"third"}"#),
            json(KEPT),
        ]
    }) {
        assert!(client.next().await.is_err());
        client.next().await.unwrap();
        client.credentials.log_out().await.unwrap();
        for spent in ["first", "second"] {
            client.log_in_with_spent(spent).await;
            assert!(client.next().await.unwrap_err().is_denied());
        }
        assert_eq!(client.log.bodies(), [sent("first"), sent("second")]);
    }
}

#[tokio::test]
async fn configured_token_replaced_by_a_useless_answer_is_not_resent() {
    for client in clients(|| [json(r#"{"refresh_token":"second"}"#), json(KEPT)]) {
        assert!(client.credentials.tokens().await.is_err());
        client.log_in_with_spent("first").await;
        match client.has_store {
            // The session that is stored goes on.
            true => {
                client.next().await.unwrap();
                assert_eq!(client.log.bodies(), [sent("first"), sent("second")]);
            }
            false => {
                assert!(client.next().await.unwrap_err().is_denied());
                assert_eq!(client.log.bodies(), [sent("first")]);
            }
        }
    }
}

#[tokio::test]
async fn leftover_refresh_token_does_not_inherit_an_older_expiry() {
    for has_store in [false, true] {
        let (endpoint, log) = endpoint([json(r#"{"refresh_token":"second"}"#), json(KEPT)]);
        let clock = Manual::new();
        let grant = RefreshTokenGrant::new(endpoint.clock(clock.clone()), "");
        let client =
            Client { credentials: credentials(grant, has_store, &clock), log, clock, has_store };
        let previous = TokenSet::bearer("a")
            .unwrap()
            .with_refresh_token("first")
            .with_refresh_token_expires_at(UNIX_EPOCH + Duration::from_secs(START + 60));
        client.credentials.log_in(previous).await.unwrap();
        assert!(client.credentials.refresh().await.is_err());
        let tokens = client.next().await.unwrap();
        assert_eq!(client.log.bodies(), [sent("first"), sent("second")]);
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "second");
        assert_eq!(tokens.refresh_token_expires_at(), None);
    }
}

// ===== Two at a time =====

/// How long a refresh without an answer is waited for.
const LOST: Duration = Duration::from_secs(50);

/// S14
#[tokio::test]
async fn concurrent_refreshes_send_a_refresh_token_once() {
    for client in clients(|| [json(ROTATED)]) {
        let all = (0..50).map(|_| client.credentials.tokens());
        let all = futures_util::future::join_all(all).await;
        assert!(all.into_iter().all(|tokens| tokens.is_ok()));
        assert_eq!(client.log.bodies(), [sent("first")]);
    }
}

/// S14
#[tokio::test]
async fn refresh_token_in_flight_is_not_sent_by_another_refresh() {
    // With a store, the refresh holds its lock.
    let [client, _] = clients(|| [Reply::Hang, json(ROTATED), json(KEPT)]);
    let mut waiting = task::spawn(client.credentials.tokens());
    assert_pending!(waiting.poll());
    sent_so_far(&client, 1).await;
    client.clock.advance(LOST);
    for _ in 0..3 {
        let error = client.credentials.tokens().await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        client.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(client.log.bodies(), [sent("first")]);

    // A different token does not wait.
    client.credentials.log_in(brought("other")).await.unwrap();
    client.next().await.unwrap();
    assert_eq!(client.log.bodies(), [sent("first"), sent("other")]);
}

#[test]
fn refresh_token_may_be_sent_again_after_its_refresh_is_gone() {
    for client in clients(|| [Reply::Hang, json(KEPT), json(KEPT)]) {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().unwrap()
        };
        // The runtime ends during the refresh.
        runtime().block_on(async {
            let mut waiting = task::spawn(client.credentials.tokens());
            assert_pending!(waiting.poll());
            sent_so_far(&client, 1).await;
        });
        runtime().block_on(async {
            for _ in 0..2 {
                client.next().await.unwrap();
            }
        });
        assert_eq!(client.log.len(), 3);
    }
}

#[tokio::test]
async fn token_that_never_rotates_may_be_sent_twice_at_once() {
    let mut dialect = Dialect::rfc6749();
    dialect.rotates = false;
    let [client, _] = clients_in(&dialect, || [Reply::Hang, json(KEPT)]);
    let mut waiting = task::spawn(client.credentials.tokens());
    assert_pending!(waiting.poll());
    sent_so_far(&client, 1).await;
    client.clock.advance(LOST);
    client.credentials.tokens().await.unwrap();
    assert_eq!(client.log.bodies(), [sent("first"), sent("first")]);
}

/// Lets the refresh go on until so many token requests are sent.
async fn sent_so_far(client: &Client, requests: usize) {
    while client.log.len() < requests {
        tokio::task::yield_now().await;
    }
}

// ===== The grace window =====

fn graceful<const N: usize>(window: u64, replies: impl Fn() -> [Reply; N]) -> [Client; 2] {
    let mut dialect = Dialect::rfc6749();
    dialect.reuse_grace = Some(Duration::from_secs(window));
    clients_in(&dialect, replies)
}

#[tokio::test]
async fn lost_response_is_requested_once_more_in_the_grace_window() {
    for client in graceful(30, || [reset(), json(ROTATED)]) {
        assert!(client.credentials.tokens().await.is_ok());
        assert_eq!(client.log.bodies(), [sent("first"), sent("first")]);
    }
    for client in graceful(30, || [reset(), answer(502, ""), json(ROTATED)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 2);
    }
}

#[tokio::test]
async fn grace_window_begins_with_the_first_sending() {
    for client in graceful(3600, || [reset(), reset(), reset(), reset(), json(KEPT)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 2);
        // Inside, but it was asked again already: after a pause, one time.
        client.clock.advance(Duration::from_secs(59));
        assert!(client.credentials.refresh().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 2);
        client.clock.advance(Duration::from_secs(60));
        assert!(client.credentials.refresh().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 3);
        assert!(client.next().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 4);
    }
}

#[tokio::test]
async fn attempt_that_did_not_count_opens_no_second_grace_window() {
    for client in graceful(3600, || [reset(), reset(), refused(), reset(), json(KEPT)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 2);
        client.clock.advance(Duration::from_secs(120));
        assert!(client.credentials.refresh().await.unwrap_err().is_transient());
        client.clock.advance(Duration::from_secs(120));
        assert!(client.credentials.refresh().await.unwrap_err().is_ambiguous());
        assert_eq!(client.log.len(), 4);
    }
}

#[tokio::test]
async fn machine_asleep_in_the_grace_window_does_not_ask_again() {
    for has_store in [false, true] {
        let (endpoint, log) = endpoint([reset(), json(KEPT)]);
        let clock = Manual::new();
        let mut dialect = Dialect::rfc6749();
        dialect.reuse_grace = Some(Duration::from_secs(30));
        let asleep = clock.clone();
        let endpoint = endpoint.dialect(dialect).clock(clock.clone()).client_auth(
            ClientAuth::custom(move || {
                asleep.advance(Duration::from_secs(31));
                std::future::ready(Ok(AuthParams::new()))
            }),
        );
        let credentials = credentials(RefreshTokenGrant::new(endpoint, "first"), has_store, &clock);
        assert!(credentials.tokens().await.unwrap_err().is_ambiguous());
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn request_that_was_not_sent_does_not_open_the_grace_window() {
    for client in graceful(30, || [refused(), reset(), json(KEPT)]) {
        assert!(client.credentials.tokens().await.unwrap_err().is_transient());
        client.clock.advance(Duration::from_secs(31));
        assert!(client.credentials.tokens().await.is_ok());
        assert_eq!(client.log.len(), 3);
    }
}

#[tokio::test]
async fn uncounted_second_request_leaves_the_outcome_unknown() {
    let too_many = || answer_with(429, &[("retry-after", "7")], "");
    for (second, is_answer) in [(refused as fn() -> Reply, false), (too_many, true)] {
        for client in graceful(30, || [reset(), second()]) {
            let error = client.credentials.tokens().await.unwrap_err();
            assert!(error.is_ambiguous(), "{error}");
            assert_eq!(error.retry_after().is_some(), is_answer);
            let shown = error.to_string();
            assert!(shown.contains("connection reset; when sent again, "), "{shown}");
        }
    }
    for code in ["invalid_grant", "interaction_required"] {
        let denied = || answer(400, format!(r#"{{"error":"{code}"}}"#));
        for client in graceful(30, || [reset(), denied()]) {
            assert!(client.credentials.tokens().await.unwrap_err().is_denied(), "{code}");
        }
    }
}

#[tokio::test]
async fn unknown_code_of_a_second_request_leaves_the_outcome_unknown() {
    for client in graceful(30, || [reset(), answer(400, r#"{"error":"token_already_used"}"#)]) {
        let error = client.credentials.tokens().await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        assert_eq!(error.code(), Some("token_already_used"));
        assert_eq!(client.log.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn grace_window_leaves_time_for_a_second_request() {
    for has_store in [false, true] {
        let (endpoint, log) = endpoint([Reply::Hang, Reply::Hang]);
        let mut dialect = Dialect::rfc6749();
        dialect.reuse_grace = Some(Duration::from_secs(30));
        let clock = tower_refresh::testing::TokioClock::new();
        let grant = RefreshTokenGrant::new(endpoint.dialect(dialect).clock(clock.clone()), "first");
        let policy = RefreshPolicy::default().clock(clock);
        let builder = Credentials::builder(grant).policy(policy);
        let credentials = match has_store {
            true => builder.store(MemoryStore::new()).build(),
            false => builder.build(),
        };
        let start = tokio::time::sleep(Duration::ZERO).deadline();
        assert!(credentials.tokens().await.unwrap_err().is_ambiguous());
        let took = tokio::time::sleep(Duration::ZERO).deadline() - start;
        assert!(took < Duration::from_secs(30), "{took:?}");
        assert_eq!(log.len(), 2);
    }
}

// ===== repetition after a denial =====

/// A80: `refresh` repeats a denied request at once only with a fresh proof. Repeating a wrong password locks the account.
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
        assert!(credentials.tokens().await.unwrap_err().is_denied(), "{at}");
        assert_eq!(credentials.refresh().await.is_ok(), requests == 2, "{at}");
        assert_eq!(log.len(), requests, "{at}");
    }
}

/// A31, OpenID Connect Core §3.1.2.6: the user must do something first, and the refresh token still stands.
#[tokio::test]
async fn refresh_token_is_sent_again_after_a_conditional_denial() {
    let conditional = answer(400, r#"{"error":"interaction_required"}"#);
    let (endpoint, log) = endpoint([conditional, json(KEPT)]);
    let credentials = Credentials::new(RefreshTokenGrant::new(endpoint, "first"));
    assert!(credentials.tokens().await.unwrap_err().is_denied());
    credentials.refresh().await.unwrap();
    assert_eq!(log.bodies(), [sent("first"), sent("first")]);
}
