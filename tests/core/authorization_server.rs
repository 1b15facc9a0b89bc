//! The authorization server for tests keeps what its documentation promises.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt};
use tower_refresh::Clock;
use tower_refresh::testing::{
    AuthorizationServer, ConnectionDropped, Fault, ManualClock, ResponseBody, Rotation, TokioClock,
};

// ===== modes =====

#[tokio::test]
async fn strict_rotation_revokes_the_whole_family_on_reuse() {
    let server = AuthorizationServer::new();
    let first = server.issue();
    let spent = first.refresh_token().unwrap().expose_secret();
    let next = refresh(&server, spent).await.json(StatusCode::OK).await;
    let (access, newest) = (text(&next, "access_token"), text(&next, "refresh_token"));
    assert!(server.is_live(access) && server.is_unspent(newest) && !server.is_unspent(spent));
    assert!(server.is_live(first.access_token().expose_secret()));

    let error = refresh(&server, spent).await.json(StatusCode::BAD_REQUEST).await;

    assert_eq!(text(&error, "error"), "invalid_grant");
    assert!(!server.is_live(access) && !server.is_unspent(newest));
    assert!(!server.is_live(first.access_token().expose_secret()));
    let error = refresh(&server, newest).await.json(StatusCode::BAD_REQUEST).await;
    assert_eq!(text(&error, "error"), "invalid_grant");
    let counters = server.counters();
    assert_eq!(counters.refresh_token_reuses, 1);
    assert_eq!(counters.families_revoked, 1);
    assert_eq!(server.refresh_token_uses(spent), 2);
    assert_eq!(counters.refresh_token_uses.into_iter().collect::<Vec<_>>(), [(1, 2), (2, 1)]);
}

#[tokio::test]
async fn exchanged_token_has_the_log_in_of_its_subject() {
    let clock = ManualClock::new();
    let server = AuthorizationServer::builder()
        .scope("a b")
        .revokes_previous(true)
        .clock(clock.clone())
        .build();
    let other = server.issue();
    let user = server.issue();
    let subject = user.access_token().expose_secret();
    let token_type = "urn:ietf:params:oauth:token-type:access_token";
    let exchange = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={subject}&subject_token_type={token_type}"
    );
    let on_behalf_of = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&requested_token_use=on_behalf_of&assertion={subject}"
    );
    let actor = other.access_token().expose_secret();
    let actor = format!("&actor_token={actor}&actor_token_type={token_type}");
    for (form, audience) in [
        (format!("{exchange}&audience=x&audience=y&resource=urn:z&scope=b"), "x y urn:z"),
        (format!("{exchange}{actor}"), ""),
        (format!("{on_behalf_of}&resource=urn:z"), "urn:z"),
    ] {
        let issued = server.token_service().oneshot(post(&form)).await.json(StatusCode::OK).await;
        assert_eq!(issued.get("issued_token_type").is_some(), form.contains("exchange"), "{form}");
        assert!(issued.get("refresh_token").is_none());
        let token = text(&issued, "access_token");
        assert_eq!(server.log_in_of(token), Some(2), "{form}");
        assert_eq!(server.audience_of(token).as_deref(), Some(audience), "{form}");
        assert!(server.is_live(token) && server.is_live(subject));
    }
    assert_eq!(
        [server.log_in_of("other"), server.log_in_of(other.access_token().expose_secret())],
        [None, Some(1)]
    );

    for (form, code) in [
        (exchange.replace(subject, "other"), "invalid_request"),
        (exchange.replace("subject_token_type", "x"), "invalid_request"),
        (
            format!("{exchange}&requested_token_type=urn:ietf:params:oauth:token-type:jwt"),
            "invalid_request",
        ),
        (format!("{exchange}&actor_token=other&actor_token_type={token_type}"), "invalid_request"),
        (format!("{exchange}&scope=c"), "invalid_scope"),
        (on_behalf_of.replace(subject, "other"), "invalid_grant"),
        (on_behalf_of.replace("on_behalf_of", "logon_cert"), "invalid_request"),
    ] {
        let error =
            server.token_service().oneshot(post(&form)).await.json(StatusCode::BAD_REQUEST).await;
        assert_eq!(text(&error, "error"), code, "{form}");
    }
    clock.advance(Duration::from_secs(3600));
    for (form, code) in [(exchange, "invalid_request"), (on_behalf_of, "invalid_grant")] {
        let error =
            server.token_service().oneshot(post(&form)).await.json(StatusCode::BAD_REQUEST).await;
        assert_eq!(
            (text(&error, "error"), text(&error, "error_description")),
            (code, "the access token is expired")
        );
    }
    let counters = server.counters();
    assert_eq!((counters.token_exchange_requests, counters.jwt_bearer_requests), (8, 4));
}

#[tokio::test]
async fn a_reuse_leaves_other_families_alone() {
    let server = AuthorizationServer::new();
    let (one, other) = (server.issue_refresh_token(), server.issue());
    refresh(&server, one.expose_secret()).await.unwrap();
    refresh(&server, one.expose_secret()).await.unwrap();
    assert!(server.is_live(other.access_token().expose_secret()));
    assert!(server.is_unspent(other.refresh_token().unwrap().expose_secret()));
}

#[tokio::test(start_paused = true)]
async fn one_of_sixteen_concurrent_uses_succeeds_and_ends_the_family() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    let slow = Fault::normal().delay(Duration::from_millis(50));
    server.token_faults().always(slow);

    let answers = join_all((0..16).map(|_| refresh(&server, token.expose_secret()))).await;

    let (mut granted, mut refused) = (Vec::new(), 0);
    for answer in answers {
        match answer.as_ref().unwrap().status() {
            StatusCode::OK => granted.push(answer.json(StatusCode::OK).await),
            StatusCode::BAD_REQUEST => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((granted.len(), refused), (1, 15));
    assert!(!server.is_live(text(&granted[0], "access_token")));
    assert!(!server.is_unspent(text(&granted[0], "refresh_token")));
    let counters = server.counters();
    assert_eq!(counters.max_concurrent_token_requests, 16);
    assert_eq!(counters.refresh_token_reuses, 15);
    assert_eq!(counters.families_revoked, 1);
    assert_eq!(server.refresh_token_uses(token.expose_secret()), 16);
    assert_eq!((counters.token_requests_granted, counters.token_requests_refused), (1, 15));
    assert_eq!(counters.refusals["invalid_grant"], 15);
}

#[tokio::test]
async fn spent_token_returns_its_successor_only_in_the_grace_window() {
    let clock = ManualClock::new();
    let server = AuthorizationServer::builder()
        .rotation(Rotation::Grace(Duration::from_secs(10)))
        .clock(clock.clone())
        .build();
    let token = server.issue_refresh_token();
    let first = refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;

    clock.advance(Duration::from_millis(9_999));
    let second = refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;
    assert_eq!(first["refresh_token"], second["refresh_token"]);
    assert_ne!(first["access_token"], second["access_token"]);
    assert!(server.is_live(text(&first, "access_token")));
    assert_eq!(server.counters().refresh_tokens_answered_again, 1);
    assert_eq!(server.counters().refresh_token_reuses, 0);

    clock.advance(Duration::from_millis(1));
    refresh(&server, token.expose_secret()).await.json(StatusCode::BAD_REQUEST).await;
    assert_eq!(server.counters().refresh_token_reuses, 1);
    assert!(!server.is_live(text(&second, "access_token")));
}

#[tokio::test]
async fn without_rotation_the_token_stays_and_the_answer_has_none() {
    let server = AuthorizationServer::builder().rotation(Rotation::Never).build();
    let token = server.issue_refresh_token();
    for _ in 0..3 {
        let answer = refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;
        assert!(answer.get("refresh_token").is_none());
    }
    assert!(server.is_unspent(token.expose_secret()));
    assert_eq!(server.refresh_token_uses(token.expose_secret()), 3);
    assert_eq!(server.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn revokes_previous_ends_only_the_access_token_before_it() {
    let server = AuthorizationServer::builder().revokes_previous(true).build();
    let (first, other) = (server.issue(), server.issue());
    let answer = refresh(&server, first.refresh_token().unwrap().expose_secret()).await;
    let answer = answer.json(StatusCode::OK).await;
    assert!(!server.is_live(first.access_token().expose_secret()));
    assert!(server.is_live(text(&answer, "access_token")));
    assert!(server.is_live(other.access_token().expose_secret()));
}

#[tokio::test]
async fn tokens_expire_by_the_monotonic_clock_of_the_server() {
    let clock = ManualClock::new();
    let server = AuthorizationServer::builder()
        .access_token_lifetime(Duration::from_secs(2))
        .refresh_token_lifetime(Duration::from_secs(60))
        .clock(clock.clone())
        .build();
    let tokens = server.issue();
    let access = tokens.access_token().expose_secret();

    clock.advance_wall(Duration::from_secs(3600));
    clock.advance(Duration::from_millis(1_999));
    assert!(server.is_live(access));
    clock.advance(Duration::from_millis(1));
    assert!(!server.is_live(access));

    clock.advance(Duration::from_secs(58));
    let token = tokens.refresh_token().unwrap().expose_secret();
    assert!(!server.is_unspent(token));
    let error = refresh(&server, token).await.json(StatusCode::BAD_REQUEST).await;
    assert_eq!(text(&error, "error"), "invalid_grant");
    assert_eq!(server.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn lifetimes_are_sent_as_integers_or_with_a_fraction() {
    for (lifetime, sent) in [(2_000, "2"), (1_500, "1.5"), (250, "0.25"), (0, "0")] {
        let server = AuthorizationServer::builder()
            .access_token_lifetime(Duration::from_millis(lifetime))
            .refresh_token_lifetime(Duration::from_millis(lifetime + 1_000))
            .build();
        let token = server.issue_refresh_token();
        let answer = refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;
        assert_eq!(answer["expires_in"].to_string(), sent);
        assert!(answer["refresh_token_expires_in"].is_number());
        assert_eq!(answer["token_type"], "Bearer");
    }
}

#[test]
fn a_log_in_by_the_test_brings_what_a_client_would_have_got() {
    let server = AuthorizationServer::builder()
        .access_token_lifetime(Duration::from_millis(1_500))
        .scope("a b")
        .build();
    let tokens = server.issue();
    let lifetime = tokens.lifetime_at(std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(lifetime, Some(Duration::from_millis(1_500)));
    assert_eq!(tokens.scope(), Some("a b"));
    assert!(server.is_live(tokens.access_token().expose_secret()));
    assert!(server.is_unspent(tokens.refresh_token().unwrap().expose_secret()));
    // No request was made.
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn issued_tokens_are_never_the_same_twice() {
    let server = AuthorizationServer::new();
    let (one, two) = (server.issue(), server.issue());
    let other = AuthorizationServer::new().issue();
    let secret =
        |tokens: &tower_refresh::TokenSet| tokens.access_token().expose_secret().to_owned();
    assert!(secret(&one).starts_with("at-1-") && secret(&two).starts_with("at-2-"));
    assert_ne!(secret(&one), secret(&other));
}

// ===== the token endpoint =====

#[tokio::test]
async fn a_client_with_a_secret_is_known_by_header_or_body() {
    const SECRET: &str = "s3cr3t:with/odd%chars+&= é";
    let server = AuthorizationServer::builder().client("com:pass", SECRET).build();
    let token = server.issue_refresh_token();
    let body = format!("grant_type=refresh_token&refresh_token={}", token.expose_secret());
    let encode = |raw: &str| form_urlencoded::byte_serialize(raw.as_bytes()).collect::<String>();
    let basic =
        |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let both = format!("{body}&client_id=com%3Apass&client_secret={}", encode(SECRET));

    let refused = [
        (None, body.clone(), "invalid_client"),
        (Some(basic("com%3Apass", "wrong")), body.clone(), "invalid_client"),
        (Some(basic("com%3Apass", SECRET)), body.clone(), "invalid_client"),
        (Some("Bearer x".to_owned()), body.clone(), "invalid_client"),
        (Some("x".to_owned()), body.clone(), "invalid_client"),
        (None, format!("{body}&client_id=com%3Apass"), "invalid_client"),
        (
            Some(basic("com%3Apass", &encode(SECRET))),
            format!("{body}&client_id=x"),
            "invalid_client",
        ),
        (Some(basic("com%3Apass", &encode(SECRET))), both.clone(), "invalid_request"),
    ];
    for (header, body, code) in refused {
        let mut request = post(&body);
        if let Some(header) = &header {
            request.headers_mut().insert(AUTHORIZATION, header.parse().unwrap());
        }
        let response = server.token_service().oneshot(request).await.unwrap();
        if code == "invalid_client" {
            assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic"));
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{header:?} {body}");
        }
        let status = response.status();
        assert_eq!(text(&Ok(response).json(status).await, "error"), code, "{header:?} {body}");
    }
    // None of these requests used the token.
    assert_eq!(server.refresh_token_uses(token.expose_secret()), 0);
    assert_eq!(server.counters().refusals["invalid_client"], 7);

    let answer = server.token_service().oneshot(post(&both)).await;
    let token = answer.json(StatusCode::OK).await;
    let body = format!("grant_type=refresh_token&refresh_token={}", text(&token, "refresh_token"));
    let mut request = post(&body);
    let header = basic("com%3Apass", &encode(SECRET)).parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, header);
    server.token_service().oneshot(request).await.json(StatusCode::OK).await;
}

#[tokio::test]
async fn lenient_server_accepts_unencoded_basic_credentials() {
    let server = AuthorizationServer::builder().client_unencoded("id", "a%2Bb:c+").build();
    for (pair, status) in [("id:a%2Bb:c+", 200), ("id:a%252Bb%3Ac%2B", 401)] {
        let mut request = post("grant_type=client_credentials");
        let header = format!("basic {}", STANDARD.encode(pair)).parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, header);
        let response = server.token_service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn each_grant_returns_the_tokens_it_should() {
    let server = AuthorizationServer::builder().user("ann", "pass word").build();
    let ask = |body: &str| server.token_service().oneshot(post(body));

    let client = ask("grant_type=client_credentials&scope=a+b").await.json(StatusCode::OK).await;
    assert!(client.get("refresh_token").is_none());
    assert_eq!(client["scope"], "a b");
    assert!(server.is_live(text(&client, "access_token")));

    let user = ask("grant_type=password&username=ann&password=pass+word").await;
    let user = user.json(StatusCode::OK).await;
    assert!(server.is_unspent(text(&user, "refresh_token")));
    assert!(user.get("scope").is_none());

    let counters = server.counters();
    assert_eq!(counters.client_credentials_requests, 1);
    assert_eq!(counters.password_requests, 1);
    assert_eq!(counters.token_requests_granted, 2);
    assert_eq!(counters.access_tokens_issued, 2);
}

#[tokio::test]
async fn refusals_use_the_error_codes_of_rfc_6749() {
    let server = AuthorizationServer::builder().scope("a b").user("ann", "secret").build();
    let token = server.issue_refresh_token();
    let token = token.expose_secret();
    for (body, code) in [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=device", "unsupported_grant_type"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=nobody", "invalid_grant"),
        (
            &format!("grant_type=refresh_token&refresh_token={token}&refresh_token={token}"),
            "invalid_request",
        ),
        (&format!("grant_type=refresh_token&refresh_token={token}&scope=a+c"), "invalid_scope"),
        ("grant_type=client_credentials&scope=c", "invalid_scope"),
        ("grant_type=password&username=ann", "invalid_request"),
        ("grant_type=password&username=ann&password=wrong", "invalid_grant"),
    ] {
        let response = server.token_service().oneshot(post(body)).await;
        assert_eq!(response.as_ref().unwrap().headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.as_ref().unwrap().headers()[CONTENT_TYPE], "application/json");
        let error = response.json(StatusCode::BAD_REQUEST).await;
        assert_eq!(text(&error, "error"), code, "{body}");
    }
    assert!(server.is_unspent(token));

    let mut request = post("grant_type=client_credentials");
    *request.method_mut() = Method::GET;
    let response = server.token_service().oneshot(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );

    let mut request = post("grant_type=client_credentials");
    request.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    server.token_service().oneshot(request).await.json(StatusCode::BAD_REQUEST).await;

    let public = AuthorizationServer::builder().public_client("app").build();
    let ask = |body: &str| public.token_service().oneshot(post(body));
    let error = ask("grant_type=client_credentials&client_id=app").await;
    assert_eq!(text(&error.json(StatusCode::BAD_REQUEST).await, "error"), "unauthorized_client");
    ask("grant_type=client_credentials").await.json(StatusCode::UNAUTHORIZED).await;
    let token = public.issue_refresh_token();
    let body =
        format!("grant_type=refresh_token&client_id=app&refresh_token={}", token.expose_secret());
    ask(&body).await.json(StatusCode::OK).await;
}

#[tokio::test]
async fn revocation_over_http_and_by_the_test() {
    let server = AuthorizationServer::new();
    let revoke = |token: &str| {
        let mut request = post(&format!("token={token}"));
        *request.uri_mut() = "/revoke".parse().unwrap();
        server.service().oneshot(request)
    };
    let tokens = server.issue();
    let access = tokens.access_token().expose_secret();
    let token = tokens.refresh_token().unwrap().expose_secret();

    assert_eq!(revoke("nobody").await.unwrap().status(), StatusCode::OK);
    assert_eq!(revoke(access).await.unwrap().status(), StatusCode::OK);
    assert!(!server.is_live(access) && server.is_unspent(token));
    let next = refresh(&server, token).await.json(StatusCode::OK).await;
    // Revoking a spent token ends its family too.
    assert_eq!(revoke(token).await.unwrap().status(), StatusCode::OK);
    assert!(!server.is_live(text(&next, "access_token")));
    assert!(!server.is_unspent(text(&next, "refresh_token")));
    assert_eq!(revoke("").await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(server.counters().revocation_requests, 4);
    assert_eq!(server.counters().families_revoked, 0);

    let (one, two) = (server.issue(), server.issue());
    assert!(server.revoke_access_token(one.access_token().expose_secret()));
    assert!(!server.revoke_access_token(one.access_token().expose_secret()));
    assert!(server.is_live(two.access_token().expose_secret()));
    server.revoke_all_access_tokens();
    assert!(!server.is_live(two.access_token().expose_secret()));
    let token = two.refresh_token().unwrap().expose_secret();
    assert!(server.is_unspent(token));
    assert!(server.revoke_refresh_token(token) && !server.revoke_refresh_token(token));
    assert!(!server.is_unspent(token));
}

// ===== the protected resource =====

#[tokio::test]
async fn resource_responds_as_rfc_6750_requires() {
    let server = AuthorizationServer::new();
    let tokens = server.issue();
    let good = format!("bearer {}", tokens.access_token().expose_secret());
    for (header, path, status, challenge) in [
        (None, "/a", 401, Some(r#"Bearer realm="resource""#)),
        (Some("Basic eDp5"), "/a", 401, Some(r#"Bearer realm="resource""#)),
        (Some("Bearer x"), "/a", 401, Some(r#"Bearer realm="resource", error="invalid_token""#)),
        (Some(&*good), "/a", 200, None),
        (
            Some(&*good),
            "/unauthorized",
            401,
            Some(r#"Bearer realm="resource", error="invalid_token""#),
        ),
        (None, "/unauthorized", 401, Some(r#"Bearer realm="resource""#)),
        (
            Some(&*good),
            "/forbidden",
            403,
            Some(r#"Bearer realm="resource", error="insufficient_scope", scope="forbidden""#),
        ),
        (Some(&*good), "/status/503/x", 503, None),
        (
            Some("Bearer x"),
            "/status/503",
            401,
            Some(r#"Bearer realm="resource", error="invalid_token""#),
        ),
    ] {
        let mut request = Request::get(path);
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let request = request.body(String::new()).unwrap();
        let response = server.resource_service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{header:?} {path}");
        let sent = response.headers().get(WWW_AUTHENTICATE);
        assert_eq!(sent.map(|value| value.to_str().unwrap()), challenge, "{path}");
    }
    let request = Request::get("/")
        .header(AUTHORIZATION, &good)
        .header(AUTHORIZATION, &good)
        .body(String::new())
        .unwrap();
    let response = server.resource_service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);

    let counters = server.counters();
    assert_eq!(counters.resource_requests, 10);
    assert_eq!(counters.resource_requests_ok, 1);
    assert_eq!(counters.resource_requests_unauthorized, 6);
    assert_eq!(counters.resource_requests_other, 3);
}

#[tokio::test]
async fn resource_echoes_the_request_and_the_token_it_received() {
    let server = AuthorizationServer::new();
    server.issue();
    let tokens = server.issue();
    let mut request = get("/things/7?q=1", tokens.access_token().expose_secret());
    *request.method_mut() = Method::PUT;
    *request.body_mut() = Full::from("hello");
    let response = server.service().oneshot(request).await.unwrap();
    for (name, value) in [
        ("echo-method", "PUT"),
        ("echo-path", "/things/7"),
        ("echo-length", "5"),
        ("echo-token", "at-2"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(bytes(response).await, "hello");

    let request = get("/size/20000/unauthorized", tokens.access_token().expose_secret());
    let response = server.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bytes(response).await.len(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn the_path_delays_the_answer_or_its_body_but_not_the_decision() {
    let clock = TokioClock::new();
    let server = AuthorizationServer::builder()
        .access_token_lifetime(Duration::from_millis(100))
        .clock(clock)
        .build();
    let tokens = server.issue();
    let token = tokens.access_token().expose_secret();
    let start = TokioClock::new();

    // Valid when the request arrives, expired when the response is sent.
    let response = server.service().oneshot(get("/delay/250", token)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(start.now().monotonic().as_millis(), 250);

    let response = server.service().oneshot(get("/late/20", token)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(start.now().monotonic().as_millis(), 250);
    assert!(!bytes(response).await.is_empty());
    // tokio rounds up to the next millisecond.
    assert!((270..=271).contains(&start.now().monotonic().as_millis()));
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_body() {
    let server = AuthorizationServer::new();
    let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let request = Request::post("/early").body(never).unwrap();
    let response = server.resource_service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

// ===== faults =====

#[tokio::test]
async fn dropped_before_the_token_is_spent_it_can_be_sent_again() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    server.token_faults().once(Fault::drop_connection());

    let error = refresh(&server, token.expose_secret()).await.unwrap_err();
    assert!(error.to_string().contains("dropped the connection"));
    assert!(server.is_unspent(token.expose_secret()));
    refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;

    let counters = server.counters();
    assert_eq!((counters.token_requests_faulted, counters.token_requests_granted), (1, 1));
    assert_eq!(counters.refresh_token_reuses, 0);
    assert_eq!(server.refresh_token_uses(token.expose_secret()), 1);
}

#[tokio::test]
async fn dropped_after_the_token_was_spent_sending_it_again_is_reuse() {
    let server = AuthorizationServer::new();
    let tokens = server.issue();
    let token = tokens.refresh_token().unwrap().expose_secret();
    server.token_faults().once(Fault::drop_connection().after_processing());

    refresh(&server, token).await.unwrap_err();
    assert!(!server.is_unspent(token));
    assert!(server.is_live(tokens.access_token().expose_secret()));
    assert_eq!(server.counters().access_tokens_issued, 2);
    let error = refresh(&server, token).await.json(StatusCode::BAD_REQUEST).await;
    assert_eq!(text(&error, "error"), "invalid_grant");
    assert_eq!(server.counters().refresh_token_reuses, 1);
    assert_eq!(server.counters().families_revoked, 1);
    assert!(!server.is_live(tokens.access_token().expose_secret()));
}

#[tokio::test]
async fn any_status_headers_and_body_before_or_after_processing() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    let page = Fault::status(StatusCode::BAD_GATEWAY)
        .header(CONTENT_TYPE, "text/html".parse().unwrap())
        .body("<h1>oops</h1>");
    server.token_faults().once(page.clone());
    server.token_faults().once(Fault::oauth_error("slow_down"));
    server.token_faults().once(page.after_processing());

    let response = refresh(&server, token.expose_secret()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html");
    assert_eq!(bytes(response).await, "<h1>oops</h1>");
    let error = refresh(&server, token.expose_secret()).await.json(StatusCode::BAD_REQUEST).await;
    assert_eq!(text(&error, "error"), "slow_down");
    assert!(server.is_unspent(token.expose_secret()));

    let response = refresh(&server, token.expose_secret()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!server.is_unspent(token.expose_secret()));
    assert_eq!(server.counters().token_requests_faulted, 3);
}

#[tokio::test(start_paused = true)]
async fn a_delay_comes_before_processing_or_after_it() {
    let server = AuthorizationServer::new();
    for after in [false, true] {
        let token = server.issue_refresh_token();
        let fault = Fault::normal().delay(Duration::from_secs(3));
        server.token_faults().once(if after { fault.after_processing() } else { fault });
        let start = TokioClock::new();
        let mut answer = task::spawn(refresh(&server, token.expose_secret()));
        assert_pending!(answer.poll());
        assert_eq!(server.is_unspent(token.expose_secret()), !after);
        answer.await.json(StatusCode::OK).await;
        assert_eq!(start.now().monotonic().as_secs(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_token_request_leaves_the_token_unspent_or_spent() {
    let server = AuthorizationServer::new();
    for after in [false, true] {
        let token = server.issue_refresh_token();
        let fault = Fault::hang();
        server.token_faults().once(if after { fault.after_processing() } else { fault });
        let limit = Duration::from_secs(3600);
        tokio::time::timeout(limit, refresh(&server, token.expose_secret())).await.unwrap_err();
        assert_eq!(server.is_unspent(token.expose_secret()), !after);
    }
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.token_requests_abandoned), (2, 2));
    assert_eq!(counters.max_concurrent_token_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dripped_body_comes_byte_by_byte() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    let drip = Fault::normal().drip(3, Duration::from_millis(100));
    server.token_faults().once(drip);
    let start = TokioClock::new();
    let mut response = refresh(&server, token.expose_secret()).await.unwrap();
    assert_eq!(start.now().monotonic(), Duration::ZERO);

    let length = response.size_hint().exact().unwrap() as usize;
    let mut pieces = Vec::new();
    while let Some(frame) = response.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    assert!(pieces.len() > 20 && pieces.iter().all(|piece| piece.len() <= 3));
    assert_eq!(start.now().monotonic().as_millis() as usize / 100, pieces.len() - 1);
    let whole = pieces.concat();
    assert_eq!(whole.len(), length);
    let answer: Value = serde_json::from_slice(&whole).unwrap();
    assert!(server.is_live(text(&answer, "access_token")));
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_ends_in_an_error_half_way() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    server.token_faults().once(Fault::normal().truncate());
    let mut response = refresh(&server, token.expose_secret()).await.unwrap();
    let length = response.size_hint().exact().unwrap() as usize;

    let half = response.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(half.len(), length / 2);
    assert!(!response.is_end_stream());
    response.frame().await.unwrap().unwrap_err();
    assert!(response.frame().await.is_none());
    // The request was processed.
    assert!(!server.is_unspent(token.expose_secret()));
}

#[tokio::test(start_paused = true)]
async fn late_body_arrives_a_while_after_its_head() {
    let server = AuthorizationServer::new();
    let fault =
        Fault::status(StatusCode::UNAUTHORIZED).body("no").delay_body(Duration::from_secs(1));
    server.resource_faults().once(fault);
    let start = TokioClock::new();
    let response = server.service().oneshot(get("/", "x")).await.unwrap();
    assert_eq!(start.now().monotonic(), Duration::ZERO);
    assert_eq!(bytes(response).await, "no");
    assert_eq!(start.now().monotonic().as_secs(), 1);
}

#[tokio::test]
async fn an_outage_lasts_as_long_as_its_window() {
    let clock = ManualClock::new();
    let server = AuthorizationServer::builder().clock(clock.clone()).build();
    let window = Duration::from_secs(3)..Duration::from_secs(5);
    let outage = Fault::unavailable().retry_after(Duration::from_millis(1_200));
    server.token_faults().during(window, outage);
    server.resource_faults().during(Duration::ZERO..Duration::from_secs(4), Fault::unavailable());

    for (seconds, token_down, resource_down) in
        [(0, false, true), (2, false, true), (3, true, true), (4, true, false), (5, false, false)]
    {
        let tokens = server.issue();
        let token = tokens.refresh_token().unwrap();
        let response = refresh(&server, token.expose_secret()).await.unwrap();
        let down = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(down, token_down, "{seconds}");
        assert_eq!(response.headers().get(RETRY_AFTER).is_some_and(|value| value == "2"), down);
        let request = get("/", tokens.access_token().expose_secret());
        let response = server.service().oneshot(request).await.unwrap();
        let down = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(down, resource_down, "{seconds}");
        assert!(!response.headers().contains_key(RETRY_AFTER));
        clock.advance(Duration::from_secs(if seconds == 0 { 2 } else { 1 }));
    }
}

#[tokio::test]
async fn unavailable_is_the_server_before_and_a_gateway_afterwards() {
    let server = AuthorizationServer::new();
    let token = server.issue_refresh_token();
    for (fault, expected) in [
        (Fault::unavailable(), r#"{"error":"temporarily_unavailable"}"#),
        (Fault::unavailable().body("down"), "down"),
        (Fault::unavailable().after_processing(), ""),
    ] {
        server.token_faults().once(fault.retry_after(Duration::from_secs(9)));
        let response = refresh(&server, token.expose_secret()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "9");
        assert_eq!(bytes(response).await, expected);
    }
    assert_eq!(server.refresh_token_uses(token.expose_secret()), 1);
}

#[tokio::test]
async fn one_off_faults_come_first_then_standing_ones_in_their_order() {
    let server = AuthorizationServer::new();
    let fault = |status| Fault::status(StatusCode::from_u16(status).unwrap());
    let faults = server.resource_faults();
    faults.when(move |number| (number % 2 == 0).then(|| fault(502)));
    faults.always(fault(503));
    faults.times(2, fault(500));
    faults.times(0, fault(599));
    faults.once(fault(501));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let response = server.service().oneshot(get("/", "x")).await.unwrap();
        seen.push(response.status().as_u16());
    }
    assert_eq!(seen, [500, 500, 501, 502, 503, 502]);

    faults.once(fault(500));
    faults.clear();
    let response = server.service().oneshot(get("/", "x")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_fault_may_ask_for_the_status_of_the_honest_answer() {
    let server = AuthorizationServer::new();
    let tokens = server.issue();
    let fault = Fault::drop_connection().only_if(StatusCode::UNAUTHORIZED);
    server.resource_faults().always(fault);
    let good = get("/", tokens.access_token().expose_secret());
    assert_eq!(server.service().oneshot(good).await.unwrap().status(), StatusCode::OK);
    server.service().oneshot(get("/", "x")).await.unwrap_err();
    let counters = server.counters();
    assert_eq!((counters.resource_requests_ok, counters.resource_requests_dropped), (1, 1));
}

#[tokio::test]
async fn the_closure_that_decides_may_use_the_server() {
    let server = AuthorizationServer::new();
    let handle = server.clone();
    server.token_faults().when(move |_| {
        let healthy = handle.counters().token_requests > 1;
        handle.resource_faults().once(Fault::unavailable());
        (!healthy).then(Fault::unavailable)
    });
    let token = server.issue_refresh_token();
    let response = refresh(&server, token.expose_secret()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    refresh(&server, token.expose_secret()).await.json(StatusCode::OK).await;
}

// ===== over a socket =====

#[tokio::test]
async fn it_serves_http_1_and_2_on_one_port_and_counts_connections() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    assert_eq!(serving.origin(), format!("http://{}", serving.address()));
    assert_eq!(serving.url("token"), serving.url("/token"));

    for (client, version, connections) in
        [(client(false), Version::HTTP_11, 1), (client(true), Version::HTTP_2, 2)]
    {
        let tokens = server.issue();
        for _ in 0..3 {
            let token = tokens.access_token().expose_secret();
            let request = get(&serving.url("/things"), token);
            let response = client.request(request).await.unwrap();
            assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
            response.into_body().collect().await.unwrap();
        }
        let token = tokens.refresh_token().unwrap().expose_secret();
        let mut request = post(&format!("grant_type=refresh_token&refresh_token={token}"));
        *request.uri_mut() = serving.url("/token").parse().unwrap();
        let response = client.request(request).await.unwrap();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(server.is_live(text(&answer, "access_token")));
        assert_eq!(serving.connections(), connections);
    }
    assert_eq!(server.counters().connections, 2);
    assert_eq!(server.serve().await.unwrap().connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_concurrent_uses_over_sockets_one_succeeds() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let token = server.issue_refresh_token();
    let client = client(false);
    let uses = (0..16).map(|_| {
        let body = format!("grant_type=refresh_token&refresh_token={}", token.expose_secret());
        let mut request = post(&body);
        *request.uri_mut() = serving.url("/token").parse().unwrap();
        tokio::spawn(client.request(request))
    });
    let uses = join_all(uses.collect::<Vec<_>>()).await;
    let statuses = uses.into_iter().map(|answer| answer.unwrap().unwrap().status());
    let (granted, refused) = statuses.partition::<Vec<_>, _>(|status| status.is_success());
    assert_eq!((granted.len(), refused), (1, vec![StatusCode::BAD_REQUEST; 15]));
    assert_eq!(server.counters().families_revoked, 1);
    assert_eq!(server.counters().connections, serving.connections());
}

#[tokio::test]
async fn a_dropped_connection_is_closed_without_a_byte() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    for after in [false, true] {
        let token = server.issue_refresh_token();
        let fault = Fault::drop_connection();
        server.token_faults().once(if after { fault.after_processing() } else { fault });
        let body = format!("grant_type=refresh_token&refresh_token={}", token.expose_secret());
        let mut stream = send(serving.address(), "POST /token", &body).await;
        assert_eq!(rest(&mut stream).await, "");
        assert_eq!(server.is_unspent(token.expose_secret()), !after);
    }

    // With HTTP/2 no stream of the connection survives.
    let client = client(true);
    server.resource_faults().once(Fault::hang());
    let hanging = tokio::spawn(client.request(get(&serving.url("/"), "x")));
    wait_until(|| server.counters().resource_requests == 1).await;
    server.resource_faults().once(Fault::drop_connection());
    client.request(get(&serving.url("/"), "x")).await.unwrap_err();
    let hanging = timeout(LIMIT, hanging).await.unwrap();
    hanging.unwrap().unwrap_err();
    assert_eq!(serving.connections(), 3);
}

#[tokio::test]
async fn cut_body_is_shorter_than_its_content_length() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let fault = Fault::status(StatusCode::OK).body("0123456789").truncate();
    server.resource_faults().always(fault);

    let mut stream = send(serving.address(), "GET /", "").await;
    let answer = rest(&mut stream).await;
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n01234"), "{answer}");

    let response = client(true).request(get(&serving.url("/"), "x")).await.unwrap();
    response.into_body().collect().await.unwrap_err();
}

#[tokio::test]
async fn a_dripped_body_leaves_in_pieces() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let drip = Fault::status(StatusCode::OK).body("abc").drip(1, Duration::from_millis(30));
    server.resource_faults().once(drip);
    let response = client(false).request(get(&serving.url("/"), "x")).await.unwrap();
    let mut body = response.into_body();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    // A busy machine may read two of them at once.
    assert!(pieces.len() > 1, "{pieces:?}");
    assert_eq!(pieces.concat(), b"abc");
}

#[tokio::test]
async fn dropping_what_serves_ends_every_task_and_connection() {
    let server = AuthorizationServer::new();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let serving = server.serve().await.unwrap();
    let address = serving.address();
    server.resource_faults().always(Fault::hang());
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut hanging = send(address, "GET /", "").await;
    let client = client(true);
    let multiplexed = tokio::spawn(client.request(get(&serving.url("/"), "x")));
    wait_until(|| server.counters().resource_requests == 2 && serving.connections() == 3).await;

    drop(serving);

    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut hanging).await, "");
    let multiplexed = timeout(LIMIT, multiplexed).await.unwrap();
    multiplexed.unwrap().unwrap_err();
    drop(client);
    wait_until(|| tasks() == before).await;
    TcpStream::connect(address).await.unwrap_err();
    assert_eq!(server.counters().resource_requests_abandoned, 2);
}

#[tokio::test]
async fn shutdown_lets_the_answer_under_way_finish() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let address = serving.address();
    let slow = Fault::status(StatusCode::OK).body("done").delay(Duration::from_millis(50));
    server.resource_faults().always(slow);
    let mut stream = send(address, "GET /", "").await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    wait_until(|| server.counters().resource_requests == 1 && serving.connections() == 2).await;

    timeout(LIMIT, serving.shutdown()).await.unwrap();

    assert!(rest(&mut stream).await.ends_with("\r\n\r\ndone"));
    assert_eq!(rest(&mut idle).await, "");
    TcpStream::connect(address).await.unwrap_err();
}

#[tokio::test]
async fn giving_up_on_a_shutdown_closes_what_is_left() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    server.resource_faults().always(Fault::hang());
    let mut stream = send(serving.address(), "GET /", "").await;
    wait_until(|| server.counters().resource_requests == 1).await;
    let limit = Duration::from_millis(20);
    timeout(limit, serving.shutdown()).await.unwrap_err();
    assert_eq!(rest(&mut stream).await, "");
}

// ===== debug output =====

#[tokio::test]
async fn nothing_that_can_be_formatted_shows_a_secret() {
    let builder = AuthorizationServer::builder()
        .client("compass", "sesame-client")
        .user("ann", "sesame-user");
    let server = builder.clone().build();
    let tokens = server.issue();
    let fault = Fault::status(StatusCode::OK).body("sesame-body");
    server.token_faults().once(fault.clone());
    let response = server.token_service().oneshot(post("")).await.unwrap();
    let shown = format!(
        "{builder:?} {server:?} {server:#?} {fault:?} {:?} {:?} {:?} {response:?} {tokens:?}",
        server.service(),
        server.token_faults(),
        server.counters(),
    );
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(!shown.contains("at-1") && !shown.contains("rt-1"), "{shown}");
}

#[test]
fn services_are_clone_and_their_futures_send() {
    fn check<S>(service: S)
    where
        S: Service<
                Request<Full<Bytes>>,
                Response = Response<ResponseBody>,
                Error = ConnectionDropped,
                Future: Send + 'static,
            > + Clone
            + Send
            + Sync
            + 'static,
    {
        drop(service);
    }
    check(AuthorizationServer::new().service());
}

// ===== helpers =====

async fn refresh(server: &AuthorizationServer, token: &str) -> Answer {
    let body = format!("grant_type=refresh_token&refresh_token={token}");
    server.token_service().oneshot(post(&body)).await
}

type Answer = Result<Response<ResponseBody>, ConnectionDropped>;

fn post(body: &str) -> Request<Full<Bytes>> {
    Request::post("/token")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

/// Sends a request by hand, so that the test sees every byte of the response.
async fn send(address: std::net::SocketAddr, start: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{start} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    timeout(LIMIT, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    rest
}

async fn wait_until(condition: impl Fn() -> bool) {
    timeout(LIMIT, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition never came true");
}

const LIMIT: Duration = Duration::from_secs(10);

fn get(path: &str, token: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::default())
        .unwrap()
}

async fn bytes(response: Response<ResponseBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

trait AnswerExt {
    async fn json(self, status: StatusCode) -> Value;
}

impl AnswerExt for Answer {
    async fn json(self, status: StatusCode) -> Value {
        let response = self.unwrap();
        assert_eq!(response.status(), status);
        serde_json::from_slice(&bytes(response).await).unwrap()
    }
}
