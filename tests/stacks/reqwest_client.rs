//! `ReqwestClient`: reqwest's builder and responses, through the layer, over real sockets.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::multipart::Form;
use reqwest::redirect::Policy;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower::timeout::error::Elapsed;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::trace::TraceLayer;
use tower_refresh::reqwest::{RequestBuilder, ReqwestClient, ReqwestError};
use tower_refresh::{
    BoxError, Credentials, CredentialsPool, RefreshLayer, ReplayLimit, Skip, StaticToken,
    TokenError,
};

use crate::echo::Echo;
use crate::harness::{ClosedPort, Mint};

// ===== requests =====

#[tokio::test]
async fn builder_and_response_have_reqwests_methods() {
    let api = Api::serve().await;
    let request = api.client.get(api.echo.url("/notes?page=2")).query(&[("order", "new")]);
    let request = request.header("accept-language", "de").headers(one_header("x-trace", "7"));
    let response = api.send(request).await;
    assert_eq!(response.url().as_str(), api.echo.url("/notes?page=2&order=new"));
    assert_eq!(response.remote_addr().map(|at| format!("http://{at}")), Some(api.echo.origin));
    assert!(response.content_length().is_some());
    let received: Value = response.error_for_status().unwrap().json().await.unwrap();
    assert_eq!(received["method"], "GET");
    assert_eq!(received["uri"], "/notes?page=2&order=new");
    assert_eq!(received["accept-language"], "de");
    assert_eq!(received["x-trace"], "7");
    assert_eq!(received["authorization"], "Bearer t1");
}

#[tokio::test]
async fn every_method_starts_a_request_with_its_own_name() {
    let api = Api::serve().await;
    let (client, url) = (&api.client, api.echo.url("/"));
    let options = client.request(Method::OPTIONS, &url);
    for request in [
        client.get(&url),
        client.post(&url),
        client.put(&url),
        client.patch(&url),
        client.delete(&url),
        client.head(&url),
        options,
    ] {
        api.send(request).await;
    }
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    assert_eq!(api.echo.received("method"), methods);
}

#[tokio::test]
async fn rejected_bodies_of_the_builder_are_sent_again() {
    type WithBody = fn(RequestBuilder) -> RequestBuilder;

    let bodies: [(&str, WithBody); 3] = [
        ("{\"a\":1}", |request| request.json(&serde_json::json!({ "a": 1 }))),
        ("a=1", |request| request.form(&[("a", "1")])),
        ("text", |request| request.body("text")),
    ];
    for (body, with_body) in bodies {
        let api = Api::serve().await;
        api.echo.reject("t1");
        let request = with_body(api.client.post(api.echo.url("/?q=1")));
        assert_eq!(api.send(request).await.status(), StatusCode::OK);
        assert_eq!(api.echo.received("body"), [body, body]);
        assert_eq!(api.echo.received("uri"), ["/?q=1", "/?q=1"]);
        assert_eq!(api.echo.received("authorization"), ["Bearer t1", "Bearer t2"]);
        let types = api.echo.received("content-type");
        assert_eq!(types[0], types[1]);
    }
}

#[tokio::test]
async fn rejected_multipart_form_is_sent_again_with_its_length() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let form = Form::new().text("title", "open").text("word", "sesame");
    let request = api.client.post(api.echo.url("/")).map(|request| request.multipart(form));
    assert_eq!(api.send(request).await.status(), StatusCode::OK);
    for field in ["body", "content-length", "content-type"] {
        let both = api.echo.received(field);
        assert!(!both[0].is_empty(), "{field}");
        assert_eq!(both[0], both[1]);
    }
}

#[tokio::test]
async fn rejected_stream_is_sent_again_within_the_limit() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let request = api.client.put(api.echo.url("/")).body(streamed(["one ", "two"]));
    assert_eq!(api.send(request).await.status(), StatusCode::OK);
    assert_eq!(api.echo.received("body"), ["one two", "one two"]);

    let api = Api::serve().await;
    api.echo.reject("t1");
    let request = api.client.put(api.echo.url("/")).body(streamed(["one ", "two"]));
    let response = api.send(request.extension(ReplayLimit(5))).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.url().as_str(), api.echo.url("/"));
    assert_eq!(response.text().await.unwrap(), "the token was revoked");
}

#[tokio::test]
async fn concurrent_rejected_requests_share_one_refresh() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let responses =
        join_all((0..50).map(|_| api.send(api.client.post(api.echo.url("/")).body("x")))).await;
    assert!(responses.iter().all(|response| response.status() == StatusCode::OK));
    assert_eq!(api.source.calls(), 2);
}

#[tokio::test]
async fn built_request_keeps_its_timeout_and_extensions() {
    let api = Api::serve().await;
    let request = api.client.get(api.echo.url("/hang")).timeout(BRIEF).extension(Skip::Token);
    let request = request.try_clone().unwrap().build().unwrap();
    assert_eq!(request.timeout(), Some(&BRIEF));
    let error = in_time(api.client.execute(request)).await.unwrap_err();
    assert!(is_timeout(&error), "{error}");
    assert_eq!(api.echo.received("authorization"), [""]);

    let plain = reqwest::Client::new().get(api.echo.url("/")).build().unwrap();
    let request = RequestBuilder::from_parts(api.client.clone(), plain);
    api.send(request).await;
    assert_eq!(api.echo.received("authorization"), ["", "Bearer t1"]);
}

// ===== what stays below the layer =====

#[tokio::test]
async fn response_has_the_url_that_redirects_led_to() {
    let api = Api::serve().await;
    let response = api.send(api.client.post(api.echo.url("/moved")).body("note")).await;
    assert_eq!(response.url().as_str(), api.echo.url("/new?a=b"));
    assert_eq!(api.echo.received("body"), ["note", "note"]);
    assert_eq!(api.echo.received("authorization"), ["Bearer t1", "Bearer t1"]);
}

#[tokio::test]
async fn timeout_of_a_request_limits_head_body_and_retry() {
    let api = Api::serve().await;
    let get = |path| api.client.get(api.echo.url(path)).timeout(BRIEF);
    let error = in_time(get("/hang").send()).await.unwrap_err();
    assert!(is_timeout(&error), "{error}");
    let response = in_time(get("/hang-midway").send()).await.unwrap();
    assert!(in_time(response.bytes()).await.unwrap_err().is_timeout());

    api.echo.reject("t1");
    let error = in_time(get("/hang").send()).await.unwrap_err();
    assert!(is_timeout(&error), "{error}");
    let tokens = api.echo.received("authorization");
    assert_eq!(tokens.last().map(String::as_str), Some("Bearer t2"));
}

#[tokio::test]
async fn timeout_and_default_headers_of_the_client_apply() {
    let echo = Echo::serve().await;
    let http = http().timeout(BRIEF).default_headers(one_header("x-trace", "7"));
    let client = ReqwestClient::new(http.build().unwrap(), layer(&Mint::without_expiry(), &echo));
    let error = in_time(client.get(echo.url("/hang")).send()).await.unwrap_err();
    assert!(is_timeout(&error), "{error}");
    assert_eq!(echo.received("x-trace"), ["7"]);
}

#[tokio::test]
async fn cookies_of_the_client_are_stored_and_sent_again() {
    let echo = Echo::serve().await;
    let http = http().cookie_store(true).build().unwrap();
    let client = ReqwestClient::new(http, layer(&Mint::without_expiry(), &echo));
    let response = in_time(client.get(echo.url("/log-in")).send()).await.unwrap();
    let cookies: Vec<_> = response.cookies().map(|cookie| cookie.value().to_owned()).collect();
    assert_eq!(cookies, ["open"]);
    echo.reject("t1");
    in_time(client.get(echo.url("/")).send()).await.unwrap();
    assert_eq!(echo.received("cookie"), ["", "session=open", "session=open"]);
}

#[tokio::test]
async fn upgraded_connection_flows_in_both_directions() {
    let api = Api::serve().await;
    let request = api.client.get(api.echo.url("/upgrade"));
    let request = request.header("connection", "upgrade").header("upgrade", "echo");
    let response = api.send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut upgraded = in_time(response.upgrade()).await.unwrap();
    upgraded.write_all(b"sesame").await.unwrap();
    let mut echoed = [0; 6];
    in_time(upgraded.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"sesame");
}

#[tokio::test]
async fn error_for_status_has_the_status_and_the_url() {
    let api = Api::serve().await;
    let response = api.send(api.client.get(api.echo.url("/teapot?a=b"))).await;
    let error = response.error_for_status().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::IM_A_TEAPOT));
    assert_eq!(error.url().unwrap().as_str(), api.echo.url("/teapot?a=b"));
}

#[tokio::test]
async fn redirect_layer_around_the_layer_checks_each_hop() {
    let (home, foreign) = (Echo::serve().await, Echo::serve().await);
    home.redirect_to(foreign.url("/found"));
    let source = StaticToken::new("sesame".parse().unwrap());
    let layer = RefreshLayer::new(source).origin(&home.origin).unwrap();
    let layer = layer.header(HeaderName::from_static("x-api-token"));
    let layers = ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer);
    let http = http().redirect(Policy::none()).build().unwrap();
    let client = ReqwestClient::new(http, layers);
    let response = in_time(client.get(home.url("/moved")).send()).await.unwrap();
    assert_eq!(response.url().as_str(), foreign.url("/found"));
    assert_eq!(home.received("x-api-token"), ["Bearer sesame"]);
    assert_eq!(foreign.received("x-api-token"), [""]);
}

// ===== which token a request carries =====

#[tokio::test]
async fn authorization_of_the_caller_is_left_alone() {
    let api = Api::serve().await;
    api.echo.reject("own");
    let response = api.send(api.client.get(api.echo.url("/")).bearer_auth("own")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    api.send(api.client.get(api.echo.url("/")).basic_auth("user", Some("password"))).await;
    let sent = ["Bearer own", "Basic dXNlcjpwYXNzd29yZA=="];
    assert_eq!(api.echo.received("authorization"), sent);
    assert_eq!(api.source.calls(), 0);
}

#[tokio::test]
async fn request_to_an_origin_that_is_not_named_has_no_token() {
    let (api, other) = (Api::serve().await, Echo::serve().await);
    api.send(api.client.get(other.url("/"))).await;
    assert_eq!(other.received("authorization"), [""]);
}

#[tokio::test]
async fn skip_applies_to_the_request_that_has_it() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let request = || api.client.get(api.echo.url("/"));
    assert_eq!(api.send(request().extension(Skip::Token)).await.status(), StatusCode::OK);
    let once = api.send(request().extension(Skip::Retry)).await;
    assert_eq!(once.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.send(request()).await.status(), StatusCode::OK);
    assert_eq!(api.echo.received("authorization"), ["", "Bearer t1", "Bearer t2"]);
}

#[tokio::test]
async fn each_request_carries_the_token_of_the_user_it_names() {
    #[derive(Clone)]
    struct User(&'static str);

    let echo = Echo::serve().await;
    let pool = CredentialsPool::new(|user: &String| {
        Credentials::builder(StaticToken::new(format!("token-of-{user}").parse().unwrap()))
    });
    let layer = RefreshLayer::keyed(pool, |request| {
        request.extensions().get().map(|User(name)| String::from(*name))
    });
    let layer = layer.origin(&echo.origin).unwrap();
    let client = ReqwestClient::new(http().build().unwrap(), layer);
    for user in ["alice", "bob"] {
        in_time(client.get(echo.url("/")).extension(User(user)).send()).await.unwrap();
    }
    let error = in_time(client.get(echo.url("/")).send()).await.unwrap_err();
    assert!(matches!(error, ReqwestError::Token(error) if error.is_misconfigured()));
    assert_eq!(echo.received("authorization"), ["Bearer token-of-alice", "Bearer token-of-bob"]);
}

// ===== errors =====

#[tokio::test]
async fn request_without_a_token_fails_with_the_reason() {
    let api = Api::serve().await;
    api.source.fail(Some(TokenError::denied("expired").with_code("invalid_grant")));
    let result = in_time(api.client.get(api.echo.url("/")).send()).await;
    let reason = ReqwestError::token_error(&result).unwrap();
    assert!(reason.is_denied());
    let source = result.as_ref().unwrap_err().source().unwrap();
    assert_eq!(source.to_string(), reason.to_string());
    assert!(api.echo.received("uri").is_empty());
}

#[tokio::test]
async fn rejection_without_a_newer_token_has_the_reason() {
    let api = Api::serve().await;
    api.send(api.client.get(api.echo.url("/"))).await;
    api.echo.reject("t1");
    api.source.fail(Some(TokenError::denied("expired")));
    let result = in_time(api.client.get(api.echo.url("/")).send()).await;
    assert!(ReqwestError::token_error(&result).unwrap().is_denied());
    let response = result.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.text().await.unwrap(), "the token was revoked");
}

#[tokio::test]
async fn send_ok_returns_the_reason_of_a_rejection_as_its_error() {
    async fn note(client: &ReqwestClient, url: String) -> Result<String, ReqwestError> {
        Ok(client.get(url).send_ok().await?.text().await?)
    }

    let api = Api::serve().await;
    in_time(note(&api.client, api.echo.url("/"))).await.unwrap();
    api.echo.reject("t1");
    api.source.fail(Some(TokenError::denied("expired")));
    let error = in_time(note(&api.client, api.echo.url("/"))).await.unwrap_err();
    assert!(matches!(&error, ReqwestError::Token(error) if error.must_log_in()), "{error:?}");
    assert!(TokenError::find(&error).is_some_and(TokenError::must_log_in));
}

#[tokio::test]
async fn send_ok_returns_the_status_of_another_error_without_query() {
    let api = Api::serve().await;
    let result = in_time(api.client.get(api.echo.url("/teapot?word=sesame")).send_ok()).await;
    assert!(ReqwestError::token_error(&result).is_none());
    let error = result.unwrap_err();
    let ReqwestError::Http(error) = &error else { panic!("{error:?}") };
    assert_eq!(error.status(), Some(StatusCode::IM_A_TEAPOT));
    assert_eq!(error.url().unwrap().as_str(), api.echo.url("/teapot"));
}

#[tokio::test]
async fn error_of_reqwest_keeps_its_kind_and_no_query() {
    let closed = ClosedPort::new();
    let layer = RefreshLayer::new(Mint::without_expiry()).origin(closed.url("")).unwrap();
    let client = ReqwestClient::new(http().build().unwrap(), layer);
    let result = in_time(client.get(closed.url("/cave?word=sesame")).send()).await;
    assert!(ReqwestError::token_error(&result).is_none());
    let error = result.unwrap_err();
    assert!(matches!(&error, ReqwestError::Http(error) if error.is_connect()));
    let shown = format!("{error} {error:?} {:?}", error.source());
    assert!(shown.contains("/cave") && !shown.contains("sesame"), "{shown}");
}

#[tokio::test]
async fn invalid_argument_of_the_builder_is_an_error_of_send() {
    let api = Api::serve().await;
    for request in [
        api.client.get("no URL"),
        api.client.get("/relative?word=sesame"),
        api.client.get(api.echo.url("/")).header("no name", "value"),
        api.client.get("ftp://127.0.0.1/?word=sesame"),
    ] {
        let error = in_time(request.send()).await.unwrap_err();
        assert!(matches!(&error, ReqwestError::Http(error) if error.is_builder()), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
    }
    assert!(api.echo.received("uri").is_empty());
}

#[tokio::test]
async fn one_error_type_serves_for_a_whole_function() {
    async fn me(client: &ReqwestClient, url: String) -> Result<Value, ReqwestError> {
        Ok(client.get(url).send().await?.error_for_status()?.json().await?)
    }

    let api = Api::serve().await;
    assert_eq!(me(&api.client, api.echo.url("/me")).await.unwrap()["uri"], "/me");
    let error = me(&api.client, api.echo.url("/teapot")).await.unwrap_err();
    assert!(matches!(&error, ReqwestError::Http(error) if error.is_status()));
    let error: BoxError = error.into();
    assert!(error.to_string().contains("/teapot"));
}

// ===== the client =====

#[tokio::test]
async fn layers_around_the_refresh_layer_apply_to_each_request() {
    let echo = Echo::serve().await;
    let layers = ServiceBuilder::new()
        .timeout(BRIEF)
        .layer(TraceLayer::new_for_http())
        .layer(layer(&Mint::without_expiry(), &echo));
    let client = ReqwestClient::new(http().build().unwrap(), layers);
    match in_time(client.get(echo.url("/hang")).send()).await.unwrap_err() {
        ReqwestError::Other(error) => assert!(error.is::<Elapsed>(), "{error}"),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn client_is_shared_and_its_requests_are_spawned() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}

    let api = Api::serve().await;
    shared(&api.client);
    let sending = tokio::spawn(api.client.get(api.echo.url("/")).send());
    assert_eq!(in_time(sending).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[test]
fn debug_output_shows_no_header_and_no_url() {
    let http = http().default_headers(one_header("x-api-key", "sesame")).build().unwrap();
    let client = ReqwestClient::new(http, RefreshLayer::new(Mint::without_expiry()));
    let request = client.get("http://127.0.0.1/?word=sesame").bearer_auth("sesame");
    assert_eq!(format!("{client:?} {request:?}"), "ReqwestClient { .. } RequestBuilder { .. }");
}

// ===== helpers =====

/// A time limit of a request that is never answered.
const BRIEF: Duration = Duration::from_millis(50);

struct Api {
    echo: Echo,
    source: Mint,
    client: ReqwestClient,
}

impl Api {
    async fn serve() -> Self {
        let echo = Echo::serve().await;
        let source = Mint::without_expiry().delay(Duration::ZERO);
        let client = ReqwestClient::new(http().build().unwrap(), layer(&source, &echo));
        Self { echo, source, client }
    }

    async fn send(&self, request: RequestBuilder) -> reqwest::Response {
        in_time(request.send()).await.unwrap()
    }
}

fn layer(source: &Mint, echo: &Echo) -> RefreshLayer {
    RefreshLayer::new(source.clone().delay(Duration::ZERO)).origin(&echo.origin).unwrap()
}

fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn streamed(chunks: [&'static str; 2]) -> reqwest::Body {
    let frames = chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
    reqwest::Body::wrap(StreamBody::new(stream::iter(frames)))
}

fn one_header(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
}

fn is_timeout(error: &ReqwestError) -> bool {
    matches!(error, ReqwestError::Http(error) if error.is_timeout())
}

/// Fails a test that hangs.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.unwrap()
}
