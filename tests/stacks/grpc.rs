//! The layer over tonic's `Channel`, against a tonic server, over real sockets.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response, header};
use http_body_util::Empty;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, GrpcMethod, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response as pb};
use tonic_health::server::HealthReporter;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_refresh::grpc::HoldTrailersLayer;
use tower_refresh::{Credentials, RefreshLayer, Renewal, Skip, TokenError, TokenSet};

use crate::harness::{Mint, let_others_run, policy, puppet, tokens};
use crate::raw_grpc::{Caller, Raw, all, feed, these};

// ===== the server =====

/// Responds with each message as it arrives.
const ECHO: &str = "/raw.Api/Echo";
/// Responds with all messages in one, after the last has arrived.
const JOIN: &str = "/raw.Api/Join";
/// Responds with the first message three times.
const REPEAT: &str = "/raw.Api/Repeat";
/// Sends "hello" before it receives a message, and then behaves like `ECHO`.
const GREET: &str = "/raw.Api/Greet";

/// The metadata of a request that selects how the server refuses it.
const REFUSE: &str = "refuse";

/// A server that accepts the tokens `t1`, `t2`, … of a `Mint` from a settable number on.
#[derive(Clone, Debug, Default)]
struct Api {
    first_accepted: Arc<AtomicUsize>,
    /// The path and the token of each call.
    calls: Arc<Mutex<Vec<(String, String)>>>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Api {
    /// Revokes every token that the mint has issued.
    fn revoke(&self, mint: &Mint) {
        self.first_accepted.store(mint.calls() + 1, Ordering::SeqCst);
    }

    fn refuse_all(&self) {
        self.first_accepted.store(usize::MAX, Ordering::SeqCst);
    }

    /// Returns the tokens of the calls since the last time.
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().drain(..).map(|(_, token)| token).collect()
    }

    async fn channel(&self) -> Channel {
        serve(self.clone()).await
    }

    fn answer(
        &self,
        path: &str,
        request: tonic::Request<Streaming<Bytes>>,
    ) -> Result<tonic::Response<Messages>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap();
        let number = token.strip_prefix("Bearer t").unwrap().parse::<usize>().unwrap();
        self.calls.lock().unwrap().push((path.to_owned(), format!("t{number}")));
        let (hand, answer) = feed();
        let mut response = tonic::Response::new(Box::pin(answer) as Messages);
        if number < self.first_accepted.load(Ordering::SeqCst) {
            let mut status = Status::unauthenticated("who are you? – the server");
            status.metadata_mut().insert("x-realm", MetadataValue::from_static("things"));
            match request.metadata().get(REFUSE).map(|how| how.to_str().unwrap()) {
                None => return Err(status),
                Some("after the head") => {}
                Some("after a message") => hand.send(Ok(Bytes::from_static(b"first"))).unwrap(),
                Some(other) => panic!("no such way: {other}"),
            }
            response.metadata_mut().insert("x-initial", MetadataValue::from_static("initial"));
            hand.send(Err(status)).unwrap();
            return Ok(response);
        }
        let path = path.to_owned();
        tokio::spawn(async move {
            let mut messages = request.into_inner();
            // The caller may have been dropped.
            let say = |message: Bytes| drop(hand.send(Ok(message)));
            if path == GREET {
                say(Bytes::from_static(b"hello"));
            }
            let mut joined = Vec::new();
            while let Ok(Some(message)) = messages.message().await {
                match &*path {
                    JOIN => joined.extend(message),
                    REPEAT => (0..3).for_each(|_| say(message.clone())),
                    _ => say(message),
                }
            }
            if path == JOIN {
                say(joined.into());
            }
        });
        Ok(response)
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            // On the wire, all four kinds are this one.
            let handler = tower::service_fn(move |request| {
                let answer = api.answer(&path, request);
                async move { answer }
            });
            Ok(tonic::server::Grpc::new(Raw).streaming(handler, request).await)
        })
    }
}

async fn serve<S, B>(service: S) -> Channel
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<tower::BoxError>> + Send + 'static,
{
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn mint() -> Mint {
    Mint::without_expiry().delay(Duration::ZERO)
}

fn over(
    mint: &Mint,
    channel: Channel,
) -> Caller<
    impl Service<Request<Body>, Response = Response<Body>, Error = tower::BoxError, Future: Send>
    + Clone,
> {
    Caller::new(ServiceBuilder::new().layer(RefreshLayer::new(mint.clone())).service(channel))
}

fn bytes(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

/// Fails a test that hangs.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("the test hangs")
}

// ===== four kinds of call =====

#[tokio::test]
async fn every_kind_of_call_is_retried_unseen_after_a_revocation() {
    let (api, mint) = (Api::default(), mint());
    let mut caller = over(&mint, api.channel().await);
    let abc = bytes(&["a", "b", "c"]);

    for round in 1..=3 {
        assert_eq!(caller.unary(ECHO, "one").await.unwrap(), "one");
        let tokens = api.calls();
        assert_eq!(tokens.last(), Some(&mint.newest()));
        assert_eq!(tokens.len(), if round == 1 { 1 } else { 2 });

        api.revoke(&mint);
        assert_eq!(caller.client_streaming(JOIN, these(&abc)).await.unwrap(), "abc");
        assert_eq!(api.calls().len(), 2);

        api.revoke(&mint);
        assert_eq!(caller.server_streaming(REPEAT, "a").await.unwrap(), bytes(&["a", "a", "a"]));
        assert_eq!(api.calls().len(), 2);

        api.revoke(&mint);
        let echo = caller.streaming(ECHO, these(&abc)).await.unwrap();
        assert_eq!(all(echo).await.unwrap(), abc);
        assert_eq!(api.calls().len(), 2);

        api.revoke(&mint);
    }
}

#[tokio::test]
async fn call_refused_twice_returns_the_status_of_the_server() {
    let (api, mint) = (Api::default(), mint());
    let mut caller = over(&mint, api.channel().await);
    api.refuse_all();
    let status = caller.unary(ECHO, "one").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "who are you? – the server");
    assert_eq!(status.metadata().get("x-realm").unwrap(), "things");
    assert_eq!(api.calls(), ["t1", "t2"]);
}

#[tokio::test]
async fn hundred_concurrent_calls_refresh_a_revoked_token_once() {
    let (api, mint) = (Api::default(), mint());
    let caller = over(&mint, api.channel().await);
    for round in 1..=3 {
        let calls = (0..100).map(|number| {
            let mut caller = caller.clone();
            async move {
                let abc = bytes(&["a", "b", "c"]);
                match number % 4 {
                    0 => assert_eq!(caller.unary(ECHO, "one").await?, "one"),
                    1 => assert_eq!(caller.client_streaming(JOIN, these(&abc)).await?, "abc"),
                    2 => assert_eq!(caller.server_streaming(REPEAT, "a").await?.len(), 3),
                    _ => assert_eq!(all(caller.streaming(ECHO, these(&abc)).await?).await?, abc),
                }
                Ok::<_, Status>(())
            }
        });
        futures_util::future::try_join_all(calls).await.unwrap();
        assert_eq!(mint.calls(), round);
        api.revoke(&mint);
    }
}

// ===== streams =====

#[tokio::test]
async fn open_stream_continues_after_its_token_is_revoked() {
    let (api, mint) = (Api::default(), mint());
    let mut caller = over(&mint, api.channel().await);
    let (hand, messages) = feed();
    let mut echo = caller.streaming(ECHO, messages).await.unwrap();
    hand.send(Bytes::from_static(b"before")).unwrap();
    assert_eq!(soon(echo.message()).await.unwrap().unwrap(), "before");

    api.revoke(&mint);
    assert_eq!(caller.unary(ECHO, "another").await.unwrap(), "another");
    assert_eq!(mint.calls(), 2);

    hand.send(Bytes::from_static(b"after")).unwrap();
    assert_eq!(soon(echo.message()).await.unwrap().unwrap(), "after");
    drop(hand);
    assert!(soon(echo.message()).await.unwrap().is_none());
    assert_eq!(api.calls(), ["t1", "t1", "t2"], "the stream is the first of them");
}

#[tokio::test]
async fn both_directions_of_a_retried_call_flow_before_either_ends() {
    let (api, mint) = (Api::default(), mint());
    let mut caller = over(&mint, api.channel().await);
    for attempts in 1..=2 {
        let (hand, messages) = feed();
        hand.send(Bytes::from_static(b"a")).unwrap();
        let mut echo = soon(caller.streaming(ECHO, messages)).await.unwrap();
        for (answer, next) in [("a", "b"), ("b", "c"), ("c", "d")] {
            assert_eq!(soon(echo.message()).await.unwrap().unwrap(), answer);
            hand.send(Bytes::from_static(next.as_bytes())).unwrap();
        }
        drop(hand);
        assert_eq!(soon(all(echo)).await.unwrap(), ["d"]);
        assert_eq!(api.calls().len(), attempts);
        api.revoke(&mint);
    }
}

#[tokio::test]
async fn client_can_wait_for_the_first_message_of_the_server() {
    let (api, mint) = (Api::default(), mint());
    let mut caller = over(&mint, api.channel().await);
    for attempts in 1..=2 {
        let (hand, messages) = feed();
        let mut greeting = soon(caller.streaming(GREET, messages)).await.unwrap();
        assert_eq!(soon(greeting.message()).await.unwrap().unwrap(), "hello");
        hand.send(Bytes::from_static(b"good day")).unwrap();
        drop(hand);
        assert_eq!(soon(all(greeting)).await.unwrap(), ["good day"]);
        assert_eq!(api.calls().len(), attempts);
        api.revoke(&mint);
    }
}

// ===== calls without a retry =====

/// Revokes the token and makes two calls: the first fails, and the second works.
async fn fails_once<S>(api: &Api, mint: &Mint, mut caller: Caller<S>, skip: Option<Skip>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<tower::BoxError>>,
{
    let text = "longer than ten bytes";
    assert_eq!(caller.unary(JOIN, text).await.unwrap(), text);
    api.revoke(mint);
    api.calls();
    let mut request = tonic::Request::new(Bytes::from_static(text.as_bytes()));
    if let Some(skip) = skip {
        request.extensions_mut().insert(skip);
    }
    let status = caller.unary_request(JOIN, request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "who are you? – the server");
    assert_eq!(api.calls(), ["t1"]);
    assert_eq!(caller.unary(JOIN, text).await.unwrap(), text);
    assert_eq!(api.calls(), ["t2"]);
}

#[tokio::test]
async fn a_call_beyond_the_limit_is_made_once_and_the_next_one_works() {
    let (api, mint) = (Api::default(), mint());
    let layer = RefreshLayer::new(mint.clone()).replay_limit(10);
    let caller = Caller::new(layer.layer(api.channel().await));
    fails_once(&api, &mint, caller, None).await;
}

#[tokio::test]
async fn call_that_skips_the_retry_is_sent_once_and_the_next_works() {
    let (api, mint) = (Api::default(), mint());
    let caller = Caller::new(RefreshLayer::new(mint.clone()).layer(api.channel().await));
    fails_once(&api, &mint, caller, Some(Skip::Retry)).await;
}

#[tokio::test]
async fn without_retry_a_call_is_made_once_and_the_next_one_works() {
    let (api, mint) = (Api::default(), mint());
    let layer = RefreshLayer::new(mint.clone()).without_retry();
    let caller = Caller::new(layer.layer(api.channel().await));
    fails_once(&api, &mint, caller, None).await;
}

// ===== a status in the trailers =====

/// Makes a call that the server refuses in this way.
fn refused(how: &'static str) -> tonic::Request<Bytes> {
    let mut request = tonic::Request::new(Bytes::from_static(b"one"));
    request.metadata_mut().insert(REFUSE, MetadataValue::from_static(how));
    request
}

#[tokio::test]
async fn status_in_trailers_is_returned_unless_trailers_are_held() {
    let (api, mint) = (Api::default(), mint());
    let channel = api.channel().await;
    let layer = RefreshLayer::new(mint.clone());
    let mut plain = Caller::new(layer.clone().layer(channel.clone()));
    let mut holding = Caller::new(
        ServiceBuilder::new().layer(layer).layer(HoldTrailersLayer::new()).service(channel),
    );
    assert_eq!(holding.unary(ECHO, "one").await.unwrap(), "one");
    for how in ["after the head", "after a message"] {
        api.revoke(&mint);
        let status = plain.unary_request(ECHO, refused(how)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{how}");
        api.calls();
        assert_eq!(holding.unary_request(ECHO, refused(how)).await.unwrap(), "one", "{how}");
        assert_eq!(api.calls().len(), 2, "{how}");
    }
}

#[tokio::test]
async fn holding_a_response_does_not_change_its_status() {
    let (api, mint) = (Api::default(), mint());
    let channel = api.channel().await;
    let layer = RefreshLayer::new(mint.clone()).without_retry();
    let mut plain = Caller::new(layer.clone().layer(channel.clone()));
    let mut holding = Caller::new(
        ServiceBuilder::new().layer(layer).layer(HoldTrailersLayer::new()).service(channel),
    );
    api.refuse_all();
    for how in ["after the head", "after a message"] {
        let expected = plain.unary_request(ECHO, refused(how)).await.unwrap_err();
        let status = holding.unary_request(ECHO, refused(how)).await.unwrap_err();
        assert_eq!(status.code(), expected.code());
        assert_eq!(status.message(), "who are you? – the server");
        assert_eq!(status.message(), expected.message());
        assert_eq!(status.metadata().get("x-initial").unwrap(), "initial");
        // tonic omits the metadata of the head if a message follows it.
        let headers = status.metadata().clone().into_headers();
        for (name, value) in &expected.metadata().clone().into_headers() {
            assert!(name == "date" || headers[name] == value, "{how}: {name}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_held_by_mistake_is_late_and_not_dead() {
    let (api, mint) = (Api::default(), mint());
    let hold = HoldTrailersLayer::new().timeout(Duration::from_millis(20));
    let mut caller = Caller::new(
        ServiceBuilder::new()
            .layer(RefreshLayer::new(mint.clone()))
            .layer(hold)
            .service(api.channel().await),
    );
    let (hand, messages) = feed();
    let mut greeting = soon(caller.streaming(GREET, messages)).await.unwrap();
    assert_eq!(soon(greeting.message()).await.unwrap().unwrap(), "hello");
    for word in ["good", "day"] {
        hand.send(Bytes::from_static(word.as_bytes())).unwrap();
        assert_eq!(soon(greeting.message()).await.unwrap().unwrap(), word);
    }
}

// ===== without a token =====

#[tokio::test]
async fn status_explains_why_there_is_no_token() {
    type Make = fn(&'static str) -> TokenError;
    let cases: [(Make, Code); 4] = [
        (|why| TokenError::transient(why), Code::Unavailable),
        (|why| TokenError::ambiguous(why), Code::Unavailable),
        (|why| TokenError::denied(why), Code::Unauthenticated),
        (|why| TokenError::misconfigured(why), Code::FailedPrecondition),
    ];
    let api = Api::default();
    let channel = api.channel().await;
    for (make, code) in cases {
        let source = move |_: Renewal| async move { Err::<TokenSet, _>(make("because")) };
        let layer = RefreshLayer::new(source).origin("https://api.test").unwrap();
        let mut caller = Caller::new(layer.layer(channel.clone()));
        // The first waited for the refresh, and the second fails at once.
        for _ in 0..2 {
            let status = caller.unary(ECHO, "one").await.unwrap_err();
            assert_eq!(status.code(), code);
            assert!(status.message().starts_with(&make("because").to_string()));
            let source = status.source().unwrap().downcast_ref::<TokenError>().unwrap();
            assert_eq!(source.to_string(), status.message());
        }

        // A request that is not gRPC gets the original error.
        let api = tower::service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let request = Request::get("https://api.test/").body(Empty::new()).unwrap();
        let error = layer.layer(api).oneshot(request).await.unwrap_err();
        assert!(error.is::<TokenError>());
    }
    assert!(api.calls().is_empty());
}

#[tokio::test]
async fn status_explains_that_the_origin_may_not_get_the_token() {
    let channel = Api::default().channel().await;
    let service = RefreshLayer::new(mint()).layer(channel);
    let mut client = HealthClient::with_origin(service, "https://api.test".parse().unwrap());
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(".origin("), "{}", status.message());
}

#[tokio::test]
async fn the_servers_status_beats_a_renewal_that_failed() {
    let api = Api::default();
    let source = async |renewal: Renewal| match renewal.previous() {
        None => TokenSet::bearer("t1"),
        Some(_) => Err(TokenError::transient("the token endpoint is down")),
    };
    let mut caller = Caller::new(RefreshLayer::new(source).layer(api.channel().await));
    assert_eq!(caller.unary(ECHO, "one").await.unwrap(), "one");
    api.refuse_all();
    let status = caller.unary(ECHO, "one").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "who are you? – the server");
    assert_eq!(api.calls(), ["t1", "t1"]);
}

#[tokio::test(start_paused = true)]
async fn status_never_claims_that_a_rejected_call_was_not_sent() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old")).await.unwrap();
    let refuse = async |_: Request<Body>| {
        Ok::<_, Infallible>(Status::unauthenticated("expired").into_http::<Body>())
    };
    let limited = ServiceBuilder::new().concurrency_limit(1).service_fn(refuse);
    let layer = RefreshLayer::new(credentials.clone());
    let mut caller = Caller::new(layer.layer(limited.clone()));
    let call = tokio::spawn(async move { caller.unary(ECHO, "one").await });
    let asked = strings.next().await;

    // There is a new token, and the second attempt waits for a permit.
    let mut holder = limited;
    holder.ready().await.unwrap();
    asked.answer(tokens("new"));
    let_others_run().await;
    // The user logs out, and the call belongs to a session that is over.
    credentials.log_out().await.unwrap();
    drop(holder);

    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let message = "the token was rejected, and the request not sent again: token denied: the application logged in or out";
    assert!(status.message().starts_with(message), "{}", status.message());
    assert!(status.source().is_none());
}

// ===== interceptors =====

#[tokio::test]
async fn generated_client_works_with_interceptors_on_either_side() {
    // The metadata of each attempt when it reaches the channel.
    #[derive(Debug, PartialEq)]
    struct Seen {
        outer: bool,
        inner: bool,
        method: Option<String>,
        token: String,
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mint = mint();

    let reporter = HealthReporter::new();
    reporter.set_service_status("things", ServingStatus::Serving).await;
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(reporter),
    );
    let refuse_t1 = |request: tonic::Request<()>| match request.metadata().get("authorization") {
        Some(token) if token == "Bearer t1" => Err(Status::unauthenticated("expired")),
        _ => Ok(request),
    };
    let channel = serve(InterceptorLayer::new(refuse_t1).layer(health)).await;

    let write = Arc::clone(&seen);
    let service = ServiceBuilder::new()
        .layer(RefreshLayer::new(mint.clone()))
        .layer(HoldTrailersLayer::new())
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(InterceptorLayer::new(|mut request: tonic::Request<()>| {
            request.metadata_mut().insert("x-inner", MetadataValue::from_static("inner"));
            Ok(request)
        }))
        .map_request(move |request: Request<Body>| {
            let method = request.extensions().get::<GrpcMethod<'static>>();
            write.lock().unwrap().push(Seen {
                outer: request.headers().contains_key("x-outer"),
                inner: request.headers().contains_key("x-inner"),
                method: method.map(|method| method.method().to_owned()),
                token: request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned(),
            });
            request
        })
        .service(channel);
    let mut client = HealthClient::with_interceptor(service, |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("x-outer", MetadataValue::from_static("outer"));
        Ok(request)
    });
    let question = HealthCheckRequest { service: "things".to_owned() };
    let answer = client.check(question.clone()).await.unwrap().into_inner();
    assert_eq!(answer.status(), pb::ServingStatus::Serving);
    let mut watched = client.watch(question).await.unwrap().into_inner();
    assert_eq!(
        soon(watched.message()).await.unwrap().unwrap().status(),
        pb::ServingStatus::Serving
    );

    let attempt = |method: &str, token: &str| Seen {
        outer: true,
        inner: true,
        method: Some(method.to_owned()),
        token: format!("Bearer {token}"),
    };
    let expected = [attempt("Check", "t1"), attempt("Check", "t2"), attempt("Watch", "t2")];
    assert_eq!(*seen.lock().unwrap(), expected);
}
