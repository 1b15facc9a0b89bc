//! Nothing that can be formatted contains a secret: one test formats everything and greps.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::error::Error;
use std::fmt::{self, Debug, Display, Write as _};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{advance, sleep};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{
    AuthParams, BodyFormat, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant,
    Revocation, TokenEndpoint,
};
use tower_refresh::testing::{AuthorizationServer, Fault, ManualClock, TokioClock};
use tower_refresh::{
    AccessToken, Cause, Challenge, Clock as _, Credentials, Event, Events, FallbackError,
    RefreshLayer, RefreshPolicy, RefreshToken, Renewal, Skip, StaticToken, TokenError, TokenFile,
    TokenSet, TokenSource, Unauthorized,
};

use crate::folder::Folder;
use crate::harness::{self, HOUR, MINUTE, let_others_run, policy, puppet, token_of};
use crate::log::Log;

// The test searches for the letters and digits at the beginning of each. The rest exists to be encoded.
const ACCESS: &str = "Ac7xQw9RaLmN-access.token/with+odd=";
const REFRESH: &str = "Rf5tYu2KbPzV-refresh&tok%en=+ \"q\\/";
const ID: &str = "Id8vBn3McXsW.id.token";
const CLIENT_SECRET: &str = "Cs4gHj6DfLkQ:client/secret%with odd+chars&=é";
const PASSWORD: &str = "Pw2zXc9VbNmA pass&word";
const QUERY: &str = "Qy6tRe1WuIoP";
const ASSERTION: &str = "As3kLd8FgHjM.assertion";
const HEADER: &str = "Hd1pOi5UyTrE=header";

#[test]
fn nothing_that_can_be_formatted_contains_a_secret() {
    let log = Log::start(tracing::Level::TRACE);
    let mut paper = Paper::default();
    for (name, secret) in [
        ("access token", ACCESS),
        ("refresh token", REFRESH),
        ("id token", ID),
        ("client secret", CLIENT_SECRET),
        ("password", PASSWORD),
        ("secret in the query", QUERY),
        ("assertion", ASSERTION),
        ("header of client authentication", HEADER),
    ] {
        paper.secret(name, secret.get(..12).unwrap());
    }

    let builder = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.on_thread_start(log.on_thread_start()).enable_all();
        builder
    };
    let paused = builder().start_paused(true).build().unwrap();
    paused.block_on(async {
        values(&mut paper);
        settings(&mut paper);
        files(&mut paper).await;
        requests(&mut paper).await;
        events(&mut paper).await;
        echoes(&mut paper).await;
        unnamed_origins().await;
        answers(&mut paper).await;
    });
    let real = builder().build().unwrap();
    real.block_on(async {
        for http2 in [false, true] {
            sockets(&mut paper, http2).await;
        }
    });

    let log = log.take();
    for said in [
        "refresh failed, and",
        "refresh denied",
        "outcome of a refresh unknown",
        "refresh counts as lost",
        "result of a refresh not used",
        "token rejected again right after a refresh",
        "token accepted by a target that had rejected it",
        "token refreshed",
        "refreshes work again",
        "refresh{",
        "logged in",
        "logged out",
        "no token attached",
        "its origin is not named",
        "unknown field in a token answer",
        "its value cannot be read",
        "scope of the token narrowed",
        "too long to be kept",
        "is not read, although its name is almost a usual one",
        "has a field that may be one",
        "unknown type of an access token",
        "hyper_util::",
        "h2::",
    ] {
        assert!(log.contains(said), "the log was to contain {said:?}");
    }
    for line in log.lines() {
        paper.text("a line of the log at TRACE", line);
    }
    paper.check();
}

// ===== values =====

fn token_set() -> TokenSet {
    TokenSet::bearer(ACCESS)
        .unwrap()
        .with_expires_in(HOUR)
        .with_refresh_token(REFRESH)
        .with_id_token(ID)
}

fn values(paper: &mut Paper) {
    let tokens = token_set().with_scope("read");
    paper.debug("TokenSet", &tokens);
    paper.debug("AccessToken", tokens.access_token());
    paper.debug("AccessToken::header_value", tokens.access_token().header_value());
    paper.debug("RefreshToken", tokens.refresh_token().unwrap());
    paper.debug("RefreshToken", &RefreshToken::from(REFRESH));
    for bad in [format!("{ACCESS}\n"), format!("{ACCESS} {ACCESS}"), format!("é{ACCESS}")] {
        paper.error("AccessToken::new", &AccessToken::new(&bad).unwrap_err());
        paper.error("TokenSet::bearer", &TokenSet::bearer(&bad).unwrap_err());
    }
    paper.debug("StaticToken", &StaticToken::new(ACCESS.parse().unwrap()));

    for field in [
        format!(r#"Bearer realm="{ACCESS}", error="invalid_token", error_description="{ACCESS}""#),
        format!(r#"Bearer error="invalid_token", scope="{ACCESS}", x="\{ACCESS}""#),
        format!("Bearer {ACCESS}"),
        format!(r#"Bearer error="token {ACCESS}""#),
        format!(r#"Bearer {}="expired""#, &ACCESS[..12]),
        format!("{} realm=a", &ACCESS[..12]),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, field.parse().unwrap());
        let challenges = Challenge::parse(&headers);
        assert!(!challenges.is_empty());
        let challenge = challenges.into_iter().next().unwrap();
        paper.debug("Challenge", &challenge);
        paper.debug(
            "Renewal",
            &Renewal::new(Cause::Rejected).with_previous(token_set()).with_challenge(challenge),
        );
    }
}

// ===== settings =====

fn settings(paper: &mut Paper) {
    let http = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let url = format!("https://as.test/token?api_key={QUERY}");
    let endpoint = || TokenEndpoint::new(http, &url).unwrap();
    for auth in client_auths() {
        paper.debug("ClientAuth", &auth);
        let endpoint = endpoint().client_auth(auth);
        paper.debug("TokenEndpoint", &endpoint);
        paper.debug("Revocation", &Revocation::new(endpoint));
    }
    for wrong in [
        format!("https://compass:{QUERY}@as.test/token"),
        format!("http://as.test/token?api_key={QUERY}"),
        format!("https://as.test/token?api_key={QUERY}#a"),
        format!("https://as.test/token?api key={QUERY}"),
        format!("/token?api_key={QUERY}"),
    ] {
        paper.error("TokenEndpoint::new", &TokenEndpoint::new(http, &wrong).unwrap_err());
        paper.error("TokenEndpoint::with_url", &endpoint().with_url(&wrong).unwrap_err());
    }
    paper.debug("AuthParams", &authentication());

    let refresh = RefreshTokenGrant::new(endpoint(), REFRESH).param("extra", PASSWORD);
    paper.debug("RefreshTokenGrant", &refresh);
    let client = ClientCredentialsGrant::new(endpoint()).param("extra", PASSWORD);
    paper.debug("ClientCredentialsGrant", &client);
    let grant = Grant::new(endpoint(), "password")
        .param("username", "ann")
        .param("password", PASSWORD)
        .params_with(|_| async { Ok([("assertion", ASSERTION)]) });
    paper.debug("Grant", &grant);
    let fallback = refresh.or_else(grant);
    paper.debug("Fallback", &fallback);
    paper.debug("BoxTokenSource", &fallback.clone().boxed());
    for dialect in [Dialect::rfc6749(), Dialect::camel_case(), Dialect::json_body()] {
        paper.debug("Dialect", &dialect);
    }

    let credentials = Credentials::with_policy(fallback, policy());
    paper.debug("RefreshPolicy", &policy());
    paper.debug("Credentials", &credentials);
    paper.debug("Status", &credentials.status());
    paper.debug("Events", &credentials.subscribe());
    for origin in [
        format!("https://api.test?api_key={QUERY}"),
        format!("https://ann:{QUERY}@api.test"),
        format!("{QUERY}@api.test"),
        format!("wss://ann:{QUERY}@api.test/{QUERY}"),
    ] {
        let layer = RefreshLayer::new(credentials.clone());
        for error in [layer.clone().origin(&origin), layer.plaintext_origin(&origin)] {
            let error = error.unwrap_err();
            paper.debug("OriginError", &error);
            paper.text("{} of OriginError", &error.to_string());
        }
    }
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
    paper.debug("RefreshLayer", &layer);
    paper.debug("Refresh", &tower::Layer::layer(&layer, ()));
    paper.debug("Skip", &Skip::Token);
    paper.debug("Unauthorized", &Unauthorized::default());

    let server = AuthorizationServer::builder().client("compass", CLIENT_SECRET);
    let server = server.user("ann", PASSWORD);
    paper.debug("AuthorizationServerBuilder", &server);
    let server = server.build();
    paper.learn(&server.issue());
    paper.debug("AuthorizationServer", &server);
    paper.debug("ServerService", &server.service());
    let fault = Fault::oauth_error(CLIENT_SECRET)
        .body(format!("{REFRESH} {PASSWORD}"))
        .header(LOCATION, HeaderValue::from_static(HEADER));
    paper.debug("Fault", &fault);
    server.token_faults().once(fault);
    paper.debug("Faults", server.token_faults());
    paper.debug("Counters", &server.counters());
    paper.debug("ManualClock", &ManualClock::new());
    paper.debug("TokioClock", &TokioClock::new());
    paper.debug("Timestamp", &ManualClock::new().now());
}

fn authentication() -> AuthParams {
    AuthParams::new()
        .param("client_assertion", ASSERTION)
        .header(HeaderName::from_static("x-client"), HeaderValue::from_static(HEADER))
}

fn client_auths() -> [ClientAuth; 6] {
    [
        ClientAuth::default(),
        ClientAuth::basic("compass", CLIENT_SECRET),
        ClientAuth::basic_unencoded("compass", CLIENT_SECRET),
        ClientAuth::post("compass", CLIENT_SECRET),
        ClientAuth::public("compass"),
        ClientAuth::custom(|| async { Ok(authentication()) }),
    ]
}

async fn files(paper: &mut Paper) {
    let folder = Folder::new();
    let path = folder.path("token");
    for content in [format!("{ACCESS} {ACCESS}"), format!("{ACCESS}\n\n{REFRESH}"), ACCESS.into()] {
        std::fs::write(&path, content).unwrap();
        let file = TokenFile::new(&path);
        paper.debug("TokenFile", &file);
        match file.fetch(Renewal::new(Cause::Missing)).await {
            Ok(tokens) => {
                paper.debug("TokenFile's TokenSet", &tokens);
                let renewal = Renewal::new(Cause::Rejected).with_previous(tokens);
                paper.error("TokenFile", &file.fetch(renewal).await.unwrap_err());
            }
            Err(error) => paper.error("TokenFile", &error),
        }
    }
    std::fs::write(&path, [ACCESS.as_bytes(), &[0xff]].concat()).unwrap();
    let file = TokenFile::new(&path);
    paper.error("TokenFile", &file.fetch(Renewal::new(Cause::Missing)).await.unwrap_err());
}

// ===== a request on its way =====

type Body = UnsyncBoxBody<Bytes, BoxError>;

async fn requests(paper: &mut Paper) {
    let (source, mut strings) = puppet();
    let (api, mut server) = tower_test::mock::pair::<Request<Full<Bytes>>, Response<Body>>();
    let credentials = Credentials::with_policy(source, policy());
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
    let mut client = ServiceBuilder::new().layer(&layer).service(api);
    let uri = format!("https://api.test/things?api_key={QUERY}");
    let get = || Request::get(&uri).body(Full::<Bytes>::default()).unwrap();
    let mut states = BTreeSet::new();
    let rejection = || {
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{ACCESS}""#);
        let late = StreamBody::new(stream::pending::<Result<_, BoxError>>());
        Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, challenge)
            .body(late.boxed_unsync())
            .unwrap()
    };

    let mut sent = Box::pin(client.ready().await.unwrap().call(get()));
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));
    paper.debug("Status", &credentials.status());
    let asked = strings.next().await;
    paper.debug("Renewal", &asked.renewal);
    server.allow(0);
    asked.answer(token_set());
    let_others_run().await;
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));
    server.allow(1);
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));

    let (request, answer) = server.next_request().await.unwrap();
    let shown = paper.debug("the request's headers", request.headers());
    assert!(shown.contains("Sensitive"), "{shown}");
    assert_eq!(token_of(&request), Some(ACCESS));
    let no_query = Request::from_parts(
        {
            let (mut parts, _) = request.into_parts();
            parts.uri = "https://api.test/things".parse().unwrap();
            parts
        },
        (),
    );
    let shown = paper.debug("the request", &no_query);
    assert!(shown.contains("Sensitive"), "{shown}");

    answer.send_response(rejection());
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));
    let asked = strings.next().await;
    assert!(asked.renewal.challenge().is_some());
    paper.debug("Renewal", &asked.renewal);
    paper.debug("Asked", &asked);
    paper.debug("Status", &credentials.status());
    asked.answer(token_set());
    let_others_run().await;
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));
    server.allow(1);
    sleep(Duration::from_millis(60)).await;
    assert!(poll_once(sent.as_mut()).await.is_pending());
    states.insert(paper.debug("ResponseFuture", &sent));
    let (_, answer) = server.next_request().await.unwrap();
    answer.send_response(rejection());
    let Poll::Ready(Ok(answer)) = poll_once(sent.as_mut()).await else { panic!("not answered") };
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    states.insert(paper.debug("ResponseFuture", &sent));

    let unnamed = RefreshLayer::new(credentials.clone());
    let (api, _server) = tower_test::mock::pair::<Request<Full<Bytes>>, Response<Body>>();
    let mut client = ServiceBuilder::new().layer(unnamed).service(api);
    let failed = client.ready().await.unwrap().call(get());
    states.insert(paper.debug("ResponseFuture", &failed));
    let error = failed.await.unwrap_err().downcast::<TokenError>().unwrap();
    paper.error("TokenError of the layer", &error);
    for userinfo in [format!("https://ann:{QUERY}@api.test/"), format!("https://{QUERY}@api.test/")]
    {
        let request = Request::get(userinfo).body(Full::<Bytes>::default()).unwrap();
        let mut client = ServiceBuilder::new().layer(&layer).service(client.get_ref().clone());
        let error = client.ready().await.unwrap().call(request).await.unwrap_err();
        paper.error("TokenError of the layer", &error.downcast::<TokenError>().unwrap());
    }

    let states = states.iter().map(|shown| shown.split('"').nth(1).unwrap()).collect::<Vec<_>>();
    let all = ["Draining", "Failed", "Over", "Readying", "Renewing", "Sending", "Waiting"];
    assert_eq!(states, all);

    // Another header, another scheme, and no scheme.
    let header = HeaderName::from_static("x-api-token");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
        requests.lock().unwrap().push(request);
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
    });
    let source = StaticToken::new(ACCESS.parse().unwrap());
    let layer =
        RefreshLayer::new(source).origin("https://api.test").unwrap().header(header.clone());
    for layer in [layer.clone(), layer.clone().scheme("OAuth"), layer.without_scheme()] {
        let client = ServiceBuilder::new().layer(layer).service(api.clone());
        let request = Request::get("https://api.test").body(Full::<Bytes>::default()).unwrap();
        client.oneshot(request).await.unwrap();
        let request = seen.lock().unwrap().pop().unwrap();
        let shown = paper.debug("the request", &request);
        assert!(shown.contains("\"x-api-token\": Sensitive"), "{shown}");
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

// ===== events =====

async fn events(paper: &mut Paper) {
    let mut seen = BTreeSet::new();

    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut events = credentials.subscribe();
    for error in [
        TokenError::transient("later"),
        TokenError::ambiguous("who knows"),
        TokenError::misconfigured("mend me"),
        TokenError::denied("log in"),
    ] {
        let (answer, ()) = tokio::join!(credentials.tokens(), async {
            strings.next().await.fail(error);
        });
        paper.error("Credentials::tokens", &answer.unwrap_err());
        paper.debug("Status", &credentials.status());
        credentials.log_in(token_set()).await.unwrap();
        paper.debug("Status", &credentials.status());
        credentials.log_out().await.unwrap();
        paper.debug("Status", &credentials.status());
    }
    // A refresh that completes too late, and one that never completes.
    let waiting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.tokens().await }
    });
    let late = strings.next().await;
    let replacing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_in(token_set()).await }
    });
    let_others_run().await;
    late.answer(token_set());
    replacing.await.unwrap().unwrap();
    paper.debug("what Credentials::tokens returns", &waiting.await.unwrap());
    credentials.log_out().await.unwrap();
    paper.error("Credentials::tokens", &credentials.tokens().await.unwrap_err());
    let lost = strings.next().await;
    advance(Duration::from_secs(301)).await;
    let (_, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.answer(token_set());
    });
    paper.debug("Asked", &lost);
    collect(paper, &mut events, &mut seen).await;

    // One endpoint that rejects everything.
    let number = Arc::new(AtomicUsize::new(0));
    let source = move |_: Renewal| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        async move { TokenSet::bearer(format!("{ACCESS}{number}")).map(|set| set.with_expires_in(HOUR)) }
    };
    let credentials = Credentials::with_policy(source, policy());
    let mut events = credentials.subscribe();
    let layer = RefreshLayer::new(credentials.clone());
    let repaired = Arc::new(AtomicBool::new(false));
    let is_repaired = Arc::clone(&repaired);
    let client = harness::client(layer, move |_, _| {
        let repaired = is_repaired.load(Ordering::SeqCst);
        async move { if repaired { StatusCode::OK } else { StatusCode::UNAUTHORIZED } }
    });
    client.clone().oneshot(harness::get("/broken")).await.unwrap();
    paper.debug("Status", &credentials.status());
    let backed_off = client.clone().oneshot(harness::get("/broken")).await.unwrap();
    paper.debug("the response", &backed_off);
    paper.error("the response's TokenError", backed_off.extensions().get::<TokenError>().unwrap());
    repaired.store(true, Ordering::SeqCst);
    let answer = client.clone().oneshot(harness::get("/broken")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    collect(paper, &mut events, &mut seen).await;

    let mut slow = credentials.subscribe();
    for _ in 0..70 {
        credentials.log_in(token_set()).await.unwrap();
    }
    collect(paper, &mut slow, &mut seen).await;

    let all = [
        "Lagged",
        "LoggedIn",
        "LoggedOut",
        "RefreshFailed",
        "RefreshLost",
        "RefreshStarted",
        "RefreshSuperseded",
        "Refreshed",
        "RejectionBackoffEnded",
        "RejectionBackoffStarted",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

async fn collect(paper: &mut Paper, events: &mut Events, seen: &mut BTreeSet<String>) {
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), events.recv()).await
    {
        let shown = paper.debug("Event", &event);
        seen.insert(shown.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned());
        if let Event::RefreshFailed { error, .. } = event {
            paper.error("Event::RefreshFailed", &error);
        }
    }
}

// ===== a token endpoint that echoes requests =====

/// A request, and a way to quote it.
type Quote = fn(&Sent) -> String;

const QUOTES: [(&str, Quote); 10] = [
    ("the body", |sent| sent.body.clone()),
    ("the body, once more encoded", |sent| {
        form_urlencoded::byte_serialize(sent.body.as_bytes()).collect()
    }),
    ("the parameters", |sent| {
        let values = sent.values.iter().map(|value| format!("'{value}' is wrong"));
        values.collect::<Vec<_>>().join(", ")
    }),
    ("the parameters in reverse, cut short", |sent| {
        let values = sent.values.iter().rev();
        let short = values.map(|value| value.chars().take(value.chars().count().min(12)).collect());
        format!("token={}...: expired", short.collect::<Vec<String>>().join("...: token="))
    }),
    ("the parameters in a page", |sent| {
        let escape = |value: &String| value.replace('&', "&amp;").replace('"', "&quot;");
        sent.values.iter().map(escape).collect::<Vec<_>>().join("<br>")
    }),
    ("the parameters as JSON in ASCII", |sent| {
        let json = serde_json::to_string(&sent.values).unwrap();
        json.replace('é', "\\u00e9").replace('/', "\\/").replace('&', "\\u0026")
    }),
    ("the body in other escapes", |sent| match sent.body.starts_with('{') {
        true => sent.body.clone(),
        false => sent.body.replace("%2F", "%2f").replace("%3A", "%3a").replace('+', "%20"),
    }),
    ("the headers", |sent| sent.headers.clone()),
    ("the Basic credentials", |sent| sent.basic.clone()),
    ("the URL", |sent| format!("POST {} failed", sent.url)),
];

struct Sent {
    url: String,
    body: String,
    values: Vec<String>,
    headers: String,
    basic: String,
}

impl Sent {
    async fn read(request: Request<Full<Bytes>>) -> Self {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let mut values = Vec::new();
        let read_form = |form: &str| -> Vec<String> {
            form_urlencoded::parse(form.as_bytes()).map(|(_, value)| value.into_owned()).collect()
        };
        values.extend(read_form(head.uri.query().unwrap_or_default()));
        match serde_json::from_str(&body) {
            Ok(serde_json::Value::Object(object)) => {
                values.extend(object.values().filter_map(|value| Some(value.as_str()?.to_owned())));
            }
            _ => values.extend(read_form(&body)),
        }
        let mut headers = String::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            write!(headers, "{name}: {value}; ").unwrap();
        }
        let basic = head.headers.get(AUTHORIZATION).and_then(|value| {
            let pair = value.to_str().ok()?.strip_prefix("Basic ")?;
            String::from_utf8(STANDARD.decode(pair).ok()?).ok()
        });
        let basic = basic.unwrap_or_default();
        Self { url: head.uri.to_string(), body, values, headers, basic }
    }
}

/// Where the quote goes.
type Reply = fn(&str) -> Result<Response<Body>, BoxError>;

const REPLIES: [(&str, Reply); 17] = [
    ("invalid_grant", |quote| json(400, "invalid_grant", quote)),
    ("invalid_client", |quote| json(401, "invalid_client", quote)),
    ("unknown code", |quote| json(400, quote, "unknown")),
    ("temporarily_unavailable", |quote| json(400, "temporarily_unavailable", quote)),
    ("429", |quote| json(429, "slow_down", quote)),
    ("503", |quote| json(503, quote, quote)),
    ("500", |quote| json(500, quote, quote)),
    ("200 with an error", |quote| json(200, quote, quote)),
    ("200 with a token type", |quote| {
        let body = serde_json::json!({ "access_token": "a", "token_type": quote });
        Ok(response(200, body.to_string()))
    }),
    ("200 with a bad token", |quote| {
        let body = serde_json::json!({ "access_token": format!("{quote}\n"), "expires_in": quote });
        Ok(response(200, body.to_string()))
    }),
    ("200 with a page", |quote| Ok(response(200, format!("<h1>{quote}</h1>")))),
    ("403 with a page", |quote| Ok(response(403, format!("<h1>{quote}</h1>")))),
    ("502 with a page", |quote| Ok(response(502, format!("<h1>{quote}</h1>")))),
    ("302", |quote| {
        let mut response = response(302, String::new());
        let location: String = form_urlencoded::byte_serialize(quote.as_bytes()).collect();
        let location = format!("https://elsewhere.test/?{location}");
        response.headers_mut().insert(LOCATION, location.parse().unwrap());
        Ok(response)
    }),
    ("an error of the client", |quote| Err(ClientError::new(quote).into())),
    ("no connection", |quote| {
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, ClientError::new(quote)).into())
    }),
    ("a cut", |quote| {
        let frames = [
            Ok(http_body::Frame::data(Bytes::from_static(b"{"))),
            Err(ClientError::new(quote).into()),
        ];
        Ok(Response::new(StreamBody::new(stream::iter(frames).boxed()).boxed_unsync()))
    }),
];

fn json(status: u16, code: &str, description: &str) -> Result<Response<Body>, BoxError> {
    let body = serde_json::json!({ "error": code, "error_description": description });
    Ok(response(status, body.to_string()))
}

fn response(status: u16, body: String) -> Response<Body> {
    let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// An error like those of HTTP clients: it shows the URL, and its causes have details.
#[derive(Debug)]
struct ClientError(String, Option<Box<ClientError>>);

impl ClientError {
    fn new(quote: &str) -> Self {
        let cause = Self(format!("could not write '{quote}'"), None);
        let url = format!("https://as.test/token?api_key={QUERY}&b=c");
        Self(format!("error sending request for url ({url}): {quote}"), Some(Box::new(cause)))
    }
}

impl Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

async fn echoes(paper: &mut Paper) {
    let mut kinds = BTreeSet::new();
    for (how, reply) in REPLIES {
        for (what, quote) in QUOTES {
            // So that each size limit falls before, into and behind a secret.
            for ahead in [0, 50, 190] {
                for (label, error) in echo(move |sent| reply(&pad(ahead, &quote(sent)))).await {
                    kinds.insert([
                        error.is_transient(),
                        error.is_ambiguous(),
                        error.is_denied(),
                        error.is_misconfigured(),
                    ]);
                    paper.error(&format!("TokenError ({label}; {how} quotes {what})"), &error);
                }
            }
        }
    }
    assert_eq!(kinds.len(), 4);
}

fn pad(ahead: usize, quote: &str) -> String {
    format!("{}{quote}", ". ".repeat(ahead / 2))
}

/// Sends every kind of request to an endpoint, and returns the errors.
async fn echo(
    reply: impl Fn(&Sent) -> Result<Response<Body>, BoxError> + Clone + Send + Sync + 'static,
) -> Vec<(&'static str, TokenError)> {
    let http = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let reply = reply.clone();
        async move { reply(&Sent::read(request).await) }
    });
    let url = format!("https://as.test/token?api_key={QUERY}");
    let endpoint = TokenEndpoint::new(http, url).unwrap();
    let mut json = Dialect::json_body();
    json.errors_with_200 = true;
    let mut query = Dialect::rfc6749();
    query.body = BodyFormat::Query;
    query.allow_secrets_in_query = true;
    let [_, basic, unencoded, body, _, custom] = client_auths();

    let mut errors = Vec::new();
    for (label, dialect, auth) in [
        ("form and Basic", Dialect::rfc6749(), basic.clone()),
        ("form and Basic unencoded", Dialect::rfc6749(), unencoded),
        ("form and body", Dialect::rfc6749(), body.clone()),
        ("JSON and body", json, body.clone()),
        ("query and body", query, body),
        ("form and custom", Dialect::rfc6749(), custom),
    ] {
        let endpoint = endpoint.clone().dialect(dialect).client_auth(auth);
        let grant = RefreshTokenGrant::new(endpoint.clone(), REFRESH);
        errors.push((label, grant.fetch(Renewal::new(Cause::Missing)).await));
        let grant = Grant::new(endpoint.clone(), "password")
            .param("username", "ann")
            .param("password", PASSWORD)
            .params_with(|_| async { Ok([("assertion", ASSERTION)]) });
        errors.push((label, grant.fetch(Renewal::new(Cause::Missing)).await));
        let both = RefreshTokenGrant::new(endpoint.clone(), REFRESH).or_else(grant);
        errors.push((label, both.fetch(Renewal::new(Cause::Missing)).await));
        let grant = ClientCredentialsGrant::new(endpoint.clone()).param("password", PASSWORD);
        errors.push((label, grant.fetch(Renewal::new(Cause::Missing)).await));
        let revoked = Revocation::new(endpoint).revoke(&token_set()).await;
        errors.push((label, revoked.map(|()| token_set())));
    }
    errors.into_iter().filter_map(|(label, result)| Some((label, result.err()?))).collect()
}

// ===== lines about origins, challenges and fields =====

/// Requests and responses with secrets wherever a log line could repeat them.
async fn unnamed_origins() {
    let answer = |request: Request<Full<Bytes>>| async move {
        let host = request.uri().host().unwrap_or_default();
        let challenge = match host.starts_with('a') {
            true => format!(r#"Bearer error="{ACCESS}", realm="{ACCESS}""#),
            false => format!(r#"{ACCESS} error="invalid_token", scope="{ACCESS}""#),
        };
        let response = Response::builder().status(StatusCode::UNAUTHORIZED);
        let response = response.header(WWW_AUTHENTICATE, challenge);
        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
    };
    let layer = RefreshLayer::new(StaticToken::new(ACCESS.parse().unwrap()));
    let layer = layer.origin("https://api.test").unwrap();
    let client = ServiceBuilder::new().layer(layer).service_fn(answer);
    for uri in [
        format!("https://ann:{PASSWORD_IN_URL}@a.test/{QUERY}?key={QUERY}"),
        format!("https://{PASSWORD_IN_URL}@b.test/?key={QUERY}"),
        format!("http://api.test/?key={QUERY}"),
        format!("https://api.test/?key={QUERY}"),
    ] {
        let mut request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        client.clone().oneshot(request.clone()).await.unwrap();
        let host = format!("ann:{PASSWORD_IN_URL}@api.test:8443");
        request.headers_mut().insert(http::header::HOST, host.parse().unwrap());
        let _ = client.clone().oneshot(request).await;
    }
}

const PASSWORD_IN_URL: &str = "Qy6tRe1WuIoP";

/// Answers with secrets in the names and values of fields.
async fn answers(paper: &mut Paper) {
    let mut dialect = Dialect::rfc6749();
    dialect.fields.id_token = vec!["/id".into()];
    dialect.fields.extra.insert("kept".into(), vec!["/kept".into()]);
    for fields in [
        serde_json::json!({ "unknown": ACCESS, "nested": { "x": REFRESH }, ACCESS: 1, "Ac7xQw9RaLmN": 1 }),
        serde_json::json!({ "ttl_Ac7xQw9RaLmN": 60 }),
        serde_json::json!({ "expires_in": ACCESS, "scope": { ACCESS: 1 }, "token_type": ACCESS }),
        serde_json::json!({ "refresh_token": [REFRESH], "id_token": ID, "expires_at": { "x": ID } }),
        serde_json::json!({ "kept": REFRESH.repeat(400), "token_type": CLIENT_SECRET, "scope": "read" }),
    ] {
        let mut body = serde_json::json!({ "access_token": ACCESS });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let http = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let body = Full::<Bytes>::from(body.to_string());
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let endpoint = TokenEndpoint::new(http, format!("https://as.test/token?api_key={QUERY}"));
        let endpoint = endpoint.unwrap().dialect(dialect.clone());
        let endpoint = endpoint.client_auth(ClientAuth::basic("compass", CLIENT_SECRET));
        let grant = RefreshTokenGrant::new(endpoint, REFRESH).scope("read write");
        for _ in 0..2 {
            match grant.fetch(Renewal::new(Cause::Missing)).await {
                Ok(tokens) => drop(paper.debug("TokenSet", &tokens)),
                Err(error) => paper.error("TokenError", &error),
            }
        }
    }
}

// ===== the wire =====

async fn sockets(paper: &mut Paper, http2: bool) {
    let server = AuthorizationServer::builder()
        .client("compass", CLIENT_SECRET)
        .user("ann", PASSWORD)
        .build();
    let serving = server.serve().await.unwrap();
    paper.debug("Serving", &serving);
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let url = serving.url(&format!("/token?api_key={QUERY}"));
    let endpoint = TokenEndpoint::new(http.clone(), url)
        .unwrap()
        .client_auth(ClientAuth::basic("compass", CLIENT_SECRET));
    let first = server.issue();
    paper.learn(&first);
    let refresh = RefreshTokenGrant::new(endpoint.clone(), first.refresh_token().unwrap().clone());
    let log_in = Grant::new(endpoint.clone(), "password")
        .param("username", "ann")
        .param("password", PASSWORD);
    let clock = ManualClock::new();
    let policy = RefreshPolicy::default().clock(clock.clone());
    let credentials = Credentials::with_policy(refresh.or_else(log_in), policy);
    let layer = RefreshLayer::new(credentials.clone()).origin(serving.origin()).unwrap();
    let client = ServiceBuilder::new().layer(layer).service(http);
    let get = async |path: &str| {
        let path = format!("{path}?api_key={QUERY}");
        let request = Request::get(serving.url(&path)).body(Full::<Bytes>::default()).unwrap();
        let answer = client.clone().oneshot(request).await;
        answer.map(|answer| answer.status())
    };
    let ok = Some(StatusCode::OK);

    // First token, refresh, rejection and retry.
    assert_eq!(get("/").await.ok(), ok);
    paper.learn(&credentials.tokens().await.unwrap());
    paper.learn(&credentials.refresh().await.unwrap());
    assert_eq!(get("/").await.ok(), ok);
    server.revoke_all_access_tokens();
    assert_eq!(get("/").await.ok(), ok);
    let mut tokens = credentials.tokens().await.unwrap();
    paper.learn(&tokens);

    // The rejection backoff.
    assert_eq!(get("/unauthorized").await.ok(), Some(StatusCode::UNAUTHORIZED));
    paper.learn(&credentials.tokens().await.unwrap());
    clock.advance(MINUTE);
    server.revoke_all_access_tokens();
    assert_eq!(get("/").await.ok(), ok);

    // Failures of each kind, with the request quoted in the response.
    for (status, code) in [
        (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        (StatusCode::BAD_GATEWAY, "invalid_grant"),
        (StatusCode::BAD_REQUEST, "invalid_client"),
        (StatusCode::BAD_REQUEST, "invalid_grant"),
    ] {
        tokens = server.issue();
        paper.learn(&tokens);
        credentials.log_in(tokens.clone()).await.unwrap();
        // The first response is to the refresh token. Only a denial leads to a second, to the password.
        for sent in [tokens.refresh_token().unwrap().expose_secret(), PASSWORD] {
            let description = format!("{sent}, {CLIENT_SECRET}");
            let body = serde_json::json!({ "error": code, "error_description": description });
            server.token_faults().once(Fault::status(status).body(body.to_string()));
        }
        server.revoke_all_access_tokens();
        assert_eq!(get("/").await.ok(), Some(StatusCode::UNAUTHORIZED), "{status} {code}");
        paper.error("the error of Status", &credentials.status().error.unwrap());
        // After a misconfiguration the refresh token is sent again. The password is not, which the second response would show.
        if code != "invalid_client" {
            paper.error("Credentials::refresh", &credentials.refresh().await.unwrap_err());
        }
        paper.debug("Status", &credentials.status());
        server.token_faults().clear();
    }
    server.token_faults().once(Fault::drop_connection());
    credentials.log_in(tokens.clone()).await.unwrap();
    paper.error("Credentials::refresh", &credentials.refresh().await.unwrap_err());

    // Denied, and the password logs in again; log-out.
    server.revoke_refresh_token(tokens.refresh_token().unwrap().expose_secret());
    credentials.log_in(tokens).await.unwrap();
    assert_eq!(get("/").await.ok(), ok);
    let tokens = credentials.tokens().await.unwrap();
    paper.learn(&tokens);
    credentials.log_out().await.unwrap();
    let revocation = Revocation::new(endpoint.with_url(serving.url("/revoke")).unwrap());
    revocation.revoke(&tokens).await.unwrap();
    credentials.flush().await.unwrap();
    paper.debug("Counters", &server.counters());
}

// ===== the texts, and the search =====

#[derive(Default)]
struct Paper {
    /// The secrets, and what each is.
    needles: Vec<(String, String)>,
    /// Each text once, and its first origin.
    written: HashMap<String, String>,
}

impl Paper {
    /// Looks for a secret of letters and digits: its beginning, its end, base64 of it wherever it stands in what was
    /// encoded, and its bytes as numbers.
    fn secret(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 12 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let mut add = |how: &str, needle: &str| {
            self.needles.push((format!("{name} ({how})"), needle.to_owned()));
        };
        add("its beginning", &secret[..8]);
        add("its end", &secret[secret.len() - 8..]);
        for before in 0..3 {
            let encoded = STANDARD.encode(["x".repeat(before).as_str(), secret].concat());
            // The part that no neighbour changes.
            let clean = (before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6;
            add("base64", &encoded[clean]);
        }
        add("bytes", format!("{:?}", &secret.as_bytes()[..8]).trim_matches(['[', ']']));
    }

    /// Searches for tokens that the server has issued.
    fn learn(&mut self, tokens: &TokenSet) {
        for token in [
            Some(tokens.access_token().expose_secret()),
            tokens.refresh_token().map(RefreshToken::expose_secret),
        ]
        .into_iter()
        .flatten()
        {
            // `rt-3-…`: the number is no secret.
            let (name, secret) = token.rsplit_once('-').unwrap();
            self.secret(name, secret);
        }
    }

    fn text(&mut self, label: &str, text: &str) {
        if !self.written.contains_key(text) {
            self.written.insert(text.to_owned(), label.to_owned());
        }
    }

    fn debug(&mut self, label: &str, value: &dyn Debug) -> String {
        let shown = format!("{value:?}");
        self.text(&format!("{{:?}} of {label}"), &shown);
        self.text(&format!("{{:#?}} of {label}"), &format!("{value:#?}"));
        shown
    }

    fn error(&mut self, label: &str, error: &TokenError) {
        self.text(&format!("code of {label}"), error.code().unwrap_or_default());
        self.text(&format!("description of {label}"), error.description().unwrap_or_default());
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        let mut depth = 0;
        while let Some(error) = next {
            let label = format!("{label}, source {depth}");
            self.text(&format!("{{:?}} of {label}"), &format!("{error:?}"));
            self.text(&format!("{{}} of {label}"), &error.to_string());
            next = error.source();
            depth += 1;
        }
        self.debug(&format!("what {label} was made of"), &error.get_ref());
        self.text(&format!("{{}} of what {label} was made of"), &error.get_ref().to_string());
        if let Some(both) = error.get_ref().downcast_ref::<FallbackError>() {
            self.error(&format!("denial of {label}"), both.denial());
            self.error(&format!("second error of {label}"), both.error());
        }
    }

    fn check(&self) {
        let mut leaks = BTreeSet::new();
        for (text, label) in &self.written {
            for (name, needle) in &self.needles {
                if let Some(at) = text.find(needle) {
                    let before: String = text[..at].chars().rev().take(60).collect();
                    let before: String = before.chars().rev().collect();
                    let after: String = text[at + needle.len()..].chars().take(20).collect();
                    leaks.insert(format!("{name} in {label}:\n    …{before}{needle}{after}…"));
                }
            }
        }
        if !leaks.is_empty() {
            let shown: Vec<_> = leaks.iter().take(20).map(String::as_str).collect();
            panic!("{} leaks, of which these:\n{}", leaks.len(), shown.join("\n"));
        }
        assert!(self.written.len() > 1000);
    }
}
