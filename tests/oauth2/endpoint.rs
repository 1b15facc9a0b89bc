//! A client and its authorization server, end to end, in tokio's paused time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{advance, sleep};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{
    ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant, Revocation,
    TokenEndpoint,
};
use tower_refresh::testing::{
    AuthorizationServer, AuthorizationServerBuilder, Counters, Fault, ResponseBody, Rotation,
    ServerService, TokioClock,
};
use tower_refresh::{
    Credentials, Event, Events, Refresh, RefreshLayer, RefreshPolicy, TokenError, TokenSource,
    TokenStatus,
};

use crate::harness::{self, HOUR, MINUTE, SECOND, let_others_run};

// ===== rotation =====

#[tokio::test(start_paused = true)]
async fn fifty_callers_over_200_expiries_spend_no_token_twice() {
    let world = World::of(AuthorizationServer::builder().access_token_lifetime(MINUTE));
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    // Long enough for all callers to arrive while the one refresh is in flight.
    world.server.token_faults().always(Fault::normal().delay(Duration::from_millis(200)));

    let mut first_wait = 0;
    for round in 0..400 {
        let callers = (0..50_u64).map(|number| {
            let client = &client;
            async move {
                sleep(Duration::from_millis(number * 3)).await;
                client.get("/").await.unwrap().status()
            }
        });
        let before = world.counters().token_requests;
        assert!(join_all(callers).await.into_iter().all(|status| status == StatusCode::OK));
        client.credentials.flush().await.unwrap();
        first_wait += world.counters().token_requests - before;
        // Every other round the callers arrive after the token has expired, else while it is stale.
        advance(if round % 2 == 0 { MINUTE } else { Duration::from_secs(50) }).await;
    }

    let counters = world.counters();
    assert_eq!(first_wait, 400);
    assert_eq!(counters.refresh_token_requests, 400);
    assert_eq!(counters.token_requests_granted, 400, "{counters:?}");
    assert_rotation_was_clean(&counters);
    assert_eq!(counters.max_concurrent_token_requests, 1);
    assert_eq!(counters.resource_requests_ok, 400 * 50);
    assert_eq!(counters.resource_requests, 400 * 50);
    // The client holds the refresh token that the server accepts next.
    let tokens = client.credentials.tokens().await.unwrap();
    assert!(world.server.is_unspent(tokens.refresh_token().unwrap().expose_secret()));
}

#[tokio::test(start_paused = true)]
async fn revocation_amid_fifty_callers_costs_one_refresh() {
    let world = World::of(AuthorizationServer::builder());
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    client.get("/").await.unwrap();
    for _ in 0..50 {
        let callers = (0..50_u64).map(|number| {
            let (client, server) = (&client, &world.server);
            async move {
                sleep(Duration::from_millis(number)).await;
                if number == 25 {
                    server.revoke_all_access_tokens();
                }
                client.get("/delay/10").await.unwrap().status()
            }
        });
        assert!(join_all(callers).await.into_iter().all(|status| status == StatusCode::OK));
    }
    let counters = world.counters();
    assert_eq!(counters.refresh_token_requests, 51, "{counters:?}");
    assert!(counters.resource_requests_unauthorized >= 50, "{counters:?}");
    assert_rotation_was_clean(&counters);
}

// ===== lost responses =====

#[tokio::test(start_paused = true)]
async fn after_a_lost_response_one_attempt_follows_at_expiry() {
    let world = World::of(AuthorizationServer::builder());
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    let mut events = client.credentials.subscribe();
    client.get("/").await.unwrap();
    world.server.token_faults().once(Fault::drop_connection().after_processing());
    advance(56 * MINUTE).await;
    assert_eq!(client.credentials.status().token, TokenStatus::Stale);
    client.get("/").await.unwrap();
    client.credentials.flush().await.unwrap();
    assert_eq!(world.counters().token_requests, 2);
    assert!(client.credentials.status().error.unwrap().is_ambiguous());

    // No request fails, and an explicit refresh returns the error.
    for _ in 0..220 {
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        advance(SECOND).await;
    }
    assert!(client.credentials.refresh().await.unwrap_err().is_ambiguous());
    let_others_run().await;
    assert_eq!(world.counters().token_requests, 2);

    // Now one attempt follows for all callers, and its outcome is shared.
    advance(20 * SECOND).await;
    assert_eq!(client.credentials.status().token, TokenStatus::Expired);
    for _ in 0..3 {
        for answer in join_all((0..50).map(|_| client.get("/"))).await {
            let error = answer.unwrap_err().downcast::<TokenError>().unwrap();
            assert!(error.is_denied(), "{error}");
            assert_eq!(error.code(), Some("invalid_grant"));
        }
        advance(HOUR).await;
    }
    let counters = world.counters();
    assert_eq!(counters.token_requests, 3);
    assert_eq!(counters.refusals.into_iter().collect::<Vec<_>>(), [("invalid_grant", 1)]);
    assert_eq!(counters.resource_requests, 222);

    let failures = failures(&mut events).await;
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].is_ambiguous() && failures[1].is_denied(), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn refresh_token_is_not_sent_while_a_lost_refresh_sends_it() {
    let world = World::of(AuthorizationServer::builder());
    world.server.token_faults().once(Fault::normal().delay(MINUTE));
    let policy = harness::policy().clock(world.clock.clone()).timeout(5 * SECOND);
    let credentials =
        Credentials::with_policy(world.refresh_token_grant(Dialect::rfc6749()), policy);
    assert!(credentials.tokens().await.unwrap_err().is_transient());

    // After ten timeouts the credentials ask again, and know that the first request is still open.
    sleep(46 * SECOND).await;
    let error = credentials.tokens().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(world.counters().token_requests, 1);

    // The late answer is used after all.
    sleep(10 * SECOND).await;
    credentials.flush().await.unwrap();
    credentials.tokens().await.unwrap();
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
    let counters = world.counters();
    assert_eq!(counters.token_requests, 1);
    assert_rotation_was_clean(&counters);
}

#[tokio::test(start_paused = true)]
async fn connection_dropped_before_the_token_is_spent_is_harmless() {
    let world = World::of(AuthorizationServer::builder());
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    client.get("/").await.unwrap();
    world.server.token_faults().once(Fault::drop_connection());
    advance(56 * MINUTE).await;
    client.get("/").await.unwrap();
    client.credentials.flush().await.unwrap();
    // The client cannot know this, and waits nevertheless.
    assert_eq!(world.counters().token_requests, 2);
    advance(5 * MINUTE).await;
    client.get("/").await.unwrap();
    assert_rotation_was_clean(&world.counters());
}

#[tokio::test(start_paused = true)]
async fn lost_response_is_repaired_inside_the_grace_window() {
    for fault in [
        Fault::drop_connection().after_processing(),
        Fault::status(StatusCode::BAD_GATEWAY).body("<h1>Bad gateway</h1>").after_processing(),
        Fault::unavailable().after_processing(),
        Fault::normal().truncate().after_processing(),
        Fault::hang().after_processing(),
    ] {
        let world = World::of(AuthorizationServer::builder().rotation(Rotation::Grace(MINUTE)));
        let mut dialect = Dialect::rfc6749();
        dialect.reuse_grace = Some(MINUTE);
        let client = world.client(world.refresh_token_grant(dialect));
        let mut events = client.credentials.subscribe();
        client.get("/").await.unwrap();
        world.server.token_faults().once(fault.clone());
        // The worst moment: no caller has a token, and all of them wait.
        advance(HOUR).await;
        for answer in join_all((0..50).map(|_| client.get("/"))).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{fault:?}");
        }
        let counters = world.counters();
        assert_eq!(counters.token_requests, 3, "{fault:?}");
        assert_eq!(counters.refresh_tokens_answered_again, 1, "{fault:?}");
        assert_eq!(counters.refresh_token_reuses, 0, "{fault:?}");
        assert_eq!(counters.families_revoked, 0, "{fault:?}");
        assert!(failures(&mut events).await.is_empty(), "{fault:?}");

        // The session continues with the successor.
        advance(HOUR).await;
        client.get("/").await.unwrap();
        assert_eq!(world.counters().token_requests, 4);
        assert_eq!(world.counters().refresh_tokens_answered_again, 1);
    }
}

// ===== outages =====

#[tokio::test(start_paused = true)]
async fn outage_within_the_stale_window_fails_no_request() {
    for (fault, most) in [
        (Fault::unavailable().retry_after(30 * SECOND), 8),
        (Fault::unavailable(), 16),
        (Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(MINUTE), 4),
    ] {
        let world = World::of(AuthorizationServer::builder());
        let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
        client.get("/").await.unwrap();
        world.server.token_faults().during(54 * MINUTE..59 * MINUTE - 30 * SECOND, fault.clone());
        advance(54 * MINUTE).await;
        for _ in 0..12 * 60 {
            let answer = client.get("/").await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{fault:?}");
            let_others_run().await;
            advance(SECOND).await;
        }
        let counters = world.counters();
        assert!((1..=most).contains(&counters.token_requests_faulted), "{fault:?}: {counters:?}");
        assert_eq!(counters.token_requests_granted, 2, "{fault:?}: {counters:?}");
        assert_eq!(counters.resource_requests_ok, 1 + 12 * 60, "{fault:?}");
        assert_rotation_was_clean(&counters);
        assert!(client.credentials.status().error.is_none());
    }
}

/// S4
#[tokio::test(start_paused = true)]
async fn refresh_token_is_not_sent_again_after_503_from_a_gateway() {
    let world = World::of(AuthorizationServer::builder());
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    client.get("/").await.unwrap();
    world.server.token_faults().once(Fault::unavailable().after_processing());
    advance(55 * MINUTE).await;
    for _ in 0..4 * 60 {
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        let_others_run().await;
        advance(SECOND).await;
    }
    let counters = world.counters();
    assert_eq!(counters.token_requests, 2);
    assert_eq!((counters.refresh_token_reuses, counters.families_revoked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn longer_outage_is_reported_until_the_next_success() {
    let world = World::of(AuthorizationServer::builder());
    let client = world.client(world.refresh_token_grant(Dialect::rfc6749()));
    client.get("/").await.unwrap();
    let outage = Fault::unavailable().retry_after(10 * SECOND);
    world.server.token_faults().during(50 * MINUTE..70 * MINUTE, outage);
    advance(HOUR).await;
    let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.retry_after(), Some(10 * SECOND));
    advance(15 * MINUTE).await;
    client.get("/").await.unwrap();
    assert_rotation_was_clean(&world.counters());
}

// ===== log in, log out =====

#[tokio::test(start_paused = true)]
async fn rotated_configured_token_is_never_sent_after_a_log_out() {
    let world = World::of(AuthorizationServer::builder());
    let configured = world.server.issue_refresh_token();
    let source = RefreshTokenGrant::new(world.endpoint(), configured.clone());
    let client = world.client(source);
    client.get("/").await.unwrap();
    advance(HOUR).await;
    client.get("/").await.unwrap();
    client.credentials.log_out().await.unwrap();
    for _ in 0..3 {
        let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
        assert!(error.is_denied(), "{error}");
        advance(HOUR).await;
    }
    assert_eq!(world.server.refresh_token_uses(configured.expose_secret()), 1);
    assert_eq!(world.counters().token_requests, 2);
    assert_rotation_was_clean(&world.counters());

    // Likewise if the new session ends: the application logs in, and the server forgets the session.
    let session = world.server.issue();
    client.credentials.log_in(session.clone()).await.unwrap();
    client.get("/").await.unwrap();
    world.server.revoke_refresh_token(session.refresh_token().unwrap().expose_secret());
    world.server.revoke_all_access_tokens();
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    advance(HOUR).await;
    assert!(client.get("/").await.is_err());
    assert_eq!(world.server.refresh_token_uses(configured.expose_secret()), 1);
}

#[tokio::test(start_paused = true)]
async fn unsent_configured_token_is_not_sent_after_a_log_out() {
    let world = World::of(AuthorizationServer::builder());
    let configured = world.server.issue_refresh_token();
    let client = world.client(RefreshTokenGrant::new(world.endpoint(), configured.clone()));
    client.credentials.log_out().await.unwrap();
    let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
    assert!(error.is_denied(), "{error}");
    assert_eq!(world.counters().token_requests, 0);

    // An explicit log-in with it is intended.
    let tokens = world.server.issue().clone().with_refresh_token(configured.clone());
    client.credentials.log_in(tokens).await.unwrap();
    advance(HOUR).await;
    client.get("/").await.unwrap();
    assert_eq!(world.server.refresh_token_uses(configured.expose_secret()), 1);
    assert_rotation_was_clean_but_for(&world.counters(), 1);
}

#[tokio::test(start_paused = true)]
async fn password_grant_takes_over_once_the_token_is_denied() {
    let world = World::of(AuthorizationServer::builder().user("ann", "pass word&=+%"));
    let refresh = world.refresh_token_grant(Dialect::rfc6749());
    let log_in = Grant::new(world.endpoint(), "password")
        .param("username", "ann")
        .param("password", "pass word&=+%");
    let client = world.client(refresh.or_else(log_in));
    client.get("/").await.unwrap();

    // The session ends at the server, and no request fails.
    let tokens = client.credentials.tokens().await.unwrap();
    world.server.revoke_refresh_token(tokens.refresh_token().unwrap().expose_secret());
    for answer in join_all((0..50).map(|_| client.get("/"))).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    let counters = world.counters();
    assert_eq!((counters.refresh_token_requests, counters.password_requests), (2, 1));

    // From here on this is an ordinary session.
    for _ in 0..3 {
        advance(HOUR).await;
        client.get("/").await.unwrap();
    }
    let counters = world.counters();
    assert_eq!((counters.refresh_token_requests, counters.password_requests), (5, 1));
    assert_eq!(counters.refresh_token_reuses, 0);

    // After a log-out as well.
    client.credentials.log_out().await.unwrap();
    client.get("/").await.unwrap();
    let counters = world.counters();
    assert_eq!((counters.refresh_token_requests, counters.password_requests), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn wrong_password_is_denied_and_not_tried_again() {
    let world = World::of(AuthorizationServer::builder().user("ann", "right"));
    let refresh = RefreshTokenGrant::new(world.endpoint(), "rt-unknown");
    let log_in = Grant::new(world.endpoint(), "password")
        .param("username", "ann")
        .param("password", "wrong");
    let client = world.client(refresh.or_else(log_in));
    for _ in 0..3 {
        let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
        assert!(error.is_denied(), "{error}");
        advance(HOUR).await;
    }
    let counters = world.counters();
    assert_eq!((counters.refresh_token_requests, counters.password_requests), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn logging_out_revokes_both_tokens_at_the_server() {
    let world = World::of(AuthorizationServer::builder().client("compass", "s3cr3t:with/odd%&="));
    let auth = ClientAuth::basic("compass", "s3cr3t:with/odd%&=");
    let endpoint = world.endpoint().client_auth(auth);
    let source = RefreshTokenGrant::new(endpoint.clone(), world.server.issue_refresh_token());
    let client = world.client(source);
    client.get("/").await.unwrap();

    let tokens = client.credentials.tokens().await.unwrap();
    let access = tokens.access_token().expose_secret();
    let refresh = tokens.refresh_token().unwrap().expose_secret();
    assert!(world.server.is_live(access) && world.server.is_unspent(refresh));
    client.credentials.log_out().await.unwrap();
    let revocation = Revocation::new(endpoint.with_url("https://auth.test/revoke").unwrap());
    revocation.revoke(&tokens).await.unwrap();
    assert!(!world.server.is_live(access) && !world.server.is_unspent(refresh));
    assert_eq!(world.counters().revocation_requests, 2);
    // A second revocation succeeds too (RFC 7009 §2.2).
    revocation.revoke(&tokens).await.unwrap();

    let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
    assert!(error.is_denied(), "{error}");
    assert_eq!(world.counters().token_requests, 1);
}

// ===== server to server =====

#[tokio::test(start_paused = true)]
async fn a_client_acts_for_itself_and_renews_as_often_as_it_must() {
    for auth in
        [ClientAuth::basic("service", "a:b/c%&= +"), ClientAuth::post("service", "a:b/c%&= +")]
    {
        let server = AuthorizationServer::builder().client("service", "a:b/c%&= +");
        let world = World::of(server.scope("reports:read reports:write"));
        let endpoint = world.endpoint().client_auth(auth);
        let client = world.client(ClientCredentialsGrant::new(endpoint).scope("reports:read"));
        for _ in 0..10 {
            for answer in join_all((0..50).map(|_| client.get("/"))).await {
                assert_eq!(answer.unwrap().status(), StatusCode::OK);
            }
            advance(HOUR).await;
        }
        let tokens = client.credentials.tokens().await.unwrap();
        assert_eq!(tokens.scope(), Some("reports:read"));
        assert!(tokens.refresh_token().is_none());
        let counters = world.counters();
        assert_eq!(counters.client_credentials_requests, 11);
        assert_eq!(counters.token_requests, 11);

        // Without a refresh token a lost response is harmless, and the request is repeated soon.
        world.server.token_faults().once(Fault::drop_connection().after_processing());
        advance(56 * MINUTE).await;
        for _ in 0..10 {
            client.get("/").await.unwrap();
            let_others_run().await;
            advance(SECOND).await;
        }
        assert_eq!(world.counters().client_credentials_requests, 13);
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_client_secret_is_reported_and_not_tried_again() {
    let world = World::of(AuthorizationServer::builder().client("service", "right"));
    let endpoint = world.endpoint().client_auth(ClientAuth::basic("service", "wrong"));
    let client = world.client(ClientCredentialsGrant::new(endpoint));
    for _ in 0..60 {
        let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
        assert!(error.is_misconfigured(), "{error}");
        assert_eq!(error.code(), Some("invalid_client"));
        advance(SECOND).await;
    }
    assert_eq!(world.counters().token_requests, 1);
}

// ===== servers that revoke previous tokens =====

#[tokio::test(start_paused = true)]
async fn server_that_revokes_previous_tokens_gets_no_early_refresh() {
    let server = AuthorizationServer::builder().revokes_previous(true);
    let world = World::of(server.access_token_lifetime(MINUTE));
    let mut dialect = Dialect::rfc6749();
    dialect.revokes_previous = true;
    let client = world.client(world.refresh_token_grant(dialect));
    // A request of 3 s, every second: no early refresh revokes a token in use.
    let callers = (0..600_u64).map(|number| {
        let client = &client;
        async move {
            sleep(Duration::from_secs(number)).await;
            client.get("/delay/3000").await.unwrap().status()
        }
    });
    assert!(join_all(callers).await.into_iter().all(|status| status == StatusCode::OK));
    let counters = world.counters();
    assert_eq!(counters.resource_requests_unauthorized, 0, "{counters:?}");
    assert!((10..=12).contains(&counters.token_requests), "{counters:?}");
    assert_rotation_was_clean(&counters);
}

// ===== helpers =====

struct World {
    server: AuthorizationServer,
    clock: TokioClock,
}

impl World {
    fn of(server: AuthorizationServerBuilder) -> Self {
        let clock = TokioClock::new();
        Self { server: server.clock(clock.clone()).build(), clock }
    }

    fn endpoint(&self) -> TokenEndpoint {
        TokenEndpoint::new(self.server.token_service(), "https://auth.test/token")
            .unwrap()
            .clock(self.clock.clone())
    }

    fn refresh_token_grant(&self, dialect: Dialect) -> RefreshTokenGrant {
        let endpoint = self.endpoint().dialect(dialect);
        RefreshTokenGrant::new(endpoint, self.server.issue_refresh_token())
    }

    fn client(&self, source: impl TokenSource) -> Client {
        let policy = RefreshPolicy::default().clock(self.clock.clone()).jitter(Duration::ZERO);
        let credentials = Credentials::with_policy(source, policy);
        let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
        let service = ServiceBuilder::new().layer(layer).service(self.server.resource_service());
        Client { credentials, service }
    }

    fn counters(&self) -> Counters {
        self.server.counters()
    }
}

struct Client {
    credentials: Credentials,
    service: Refresh<ServerService>,
}

impl Client {
    async fn get(&self, path: &str) -> Result<Response<ResponseBody>, BoxError> {
        let request =
            Request::get(format!("https://api.test{path}")).body(Full::<Bytes>::default()).unwrap();
        self.service.clone().oneshot(request).await
    }
}

/// Asserts that each refresh token was used at most once, each use returned its successor, and no family was revoked.
fn assert_rotation_was_clean(counters: &Counters) {
    assert_rotation_was_clean_but_for(counters, 0);
}

/// Like [`assert_rotation_was_clean`], with other log-ins whose refresh tokens were not used.
fn assert_rotation_was_clean_but_for(counters: &Counters, other_log_ins: u64) {
    let uses: u64 = counters.refresh_token_uses.values().sum();
    let used = counters.refresh_token_uses.values().filter(|uses| **uses > 0).count() as u64;
    assert_eq!(uses, used, "{counters:?}");
    let issued = counters.refresh_token_uses.len() as u64;
    assert_eq!(issued, uses + 1 + other_log_ins, "{counters:?}");
    assert_eq!(counters.refresh_token_reuses, 0, "{counters:?}");
    assert_eq!(counters.families_revoked, 0, "{counters:?}");
    assert!(counters.refusals.is_empty(), "{counters:?}");
}

/// Returns the failures among the events so far.
async fn failures(events: &mut Events) -> Vec<TokenError> {
    let mut failures = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(SECOND, events.recv()).await {
        if let Event::RefreshFailed { error, .. } = event {
            failures.push(error);
        }
    }
    failures
}

#[tokio::test(start_paused = true)]
async fn rotated_configured_token_is_not_sent_even_if_brought_back() {
    let world = World::of(AuthorizationServer::builder());
    let configured = world.server.issue_refresh_token();
    let client = world.client(RefreshTokenGrant::new(world.endpoint(), configured.clone()));
    client.get("/").await.unwrap();
    let tokens = client.credentials.tokens().await.unwrap();
    let tokens = tokens.clone().with_refresh_token(configured.clone());
    client.credentials.log_in(tokens).await.unwrap();
    advance(HOUR).await;
    let error = client.get("/").await.unwrap_err().downcast::<TokenError>().unwrap();
    assert!(error.is_denied(), "{error}");
    assert_eq!(world.server.refresh_token_uses(configured.expose_secret()), 1);
    assert_eq!(world.counters().families_revoked, 0);
}
