//! Allocations of a request with a fresh token: none by the layer, or one buffer if the request can be sent again.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use tower::{Layer as _, Service};
use tower_refresh::{AccessToken, Credentials, RefreshLayer, Renewal, TokenError, TokenSet};

#[test]
fn without_retry_only_the_header_map_allocates() {
    let service = refresh().without_retry().layer(Api);
    assert_allocates_beyond_by_hand(0, service, [0, 1, 3, 8, 20]);
}

#[test]
fn with_retry_armed_it_allocates_one_buffer_more() {
    assert_allocates_beyond_by_hand(1, refresh().layer(Api), [1, 3, 8, 20]);
}

#[cfg(feature = "pool")]
#[test]
fn hit_in_a_pool_allocates_nothing_of_its_own() {
    let pool = tower_refresh::CredentialsPool::new(|_: &u64| Credentials::builder(fetch));
    warm_up(&pool.get(&7).unwrap());
    let layer =
        RefreshLayer::keyed(pool, |request| request.uri().path().ends_with('s').then_some(7));
    let layer = layer.origin("https://api.example.com").unwrap();
    assert_allocates_beyond_by_hand(0, layer.clone().without_retry().layer(Api), [0, 1, 3, 8, 20]);
    assert_allocates_beyond_by_hand(1, layer.layer(Api), [1, 3, 8, 20]);
}

/// C20: the header value is composed for the first request with a token.
#[test]
fn another_scheme_allocates_no_more_than_bearer() {
    for layer in [refresh().scheme("OAuth"), refresh().scheme("Zoho-oauthtoken")] {
        let service = layer.without_retry().layer(Api);
        assert_allocates_beyond_by_hand(0, service, [0, 1, 3, 8, 20]);
    }
}

#[test]
fn a_token_is_cloned_without_allocating() {
    let token = AccessToken::new("sesame").unwrap();
    assert_eq!(measure(|| drop(token.header_value().clone())).count_total, 0);
    let tokens = TokenSet::new(token).with_refresh_token("r");
    assert_eq!(measure(|| drop(tokens.clone())).count_total, 0);
}

#[test]
fn idle_credentials_take_few_bytes_besides_their_token() {
    const TOKEN: usize = 1024;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let idle = || {
        let credentials = Credentials::new(|_: Renewal| async {
            let tokens = TokenSet::bearer("t".repeat(TOKEN))?;
            Ok(tokens.with_expires_in(Duration::from_secs(3600)))
        });
        runtime.block_on(credentials.warm_up()).unwrap();
        runtime.block_on(credentials.flush()).unwrap();
        credentials
    };
    // The first ones also make what all share.
    let mut credentials = vec![idle(), idle()];
    credentials.clear();
    let used = measure(|| credentials.push(idle()));
    println!("idle credentials with a token of {TOKEN} bytes: {} bytes", used.bytes_current);
    assert!(used.bytes_current <= 2048, "{} bytes", used.bytes_current);
}

/// Asserts that a service allocates so many times more than the layer written by hand, for each number of headers.
fn assert_allocates_beyond_by_hand<S>(
    more: u64,
    mut service: S,
    headers: impl IntoIterator<Item = usize>,
) where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>>,
{
    for headers in headers {
        let by_hand = allocations(&mut by_hand(), headers);
        assert_eq!(allocations(&mut service, headers), by_hand + more, "{headers} headers");
    }
}

fn refresh() -> RefreshLayer {
    let credentials = Credentials::new(fetch);
    warm_up(&credentials);
    RefreshLayer::new(credentials).origin("https://api.example.com").unwrap()
}

async fn fetch(_: Renewal) -> Result<TokenSet, TokenError> {
    TokenSet::bearer("sesame").map(|tokens| tokens.with_expires_in(Duration::from_secs(3600)))
}

fn warm_up(credentials: &Credentials) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(credentials.warm_up()).unwrap();
}

/// A layer written by hand, for a token that never changes.
fn by_hand() -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>> {
    let value = HeaderValue::from_static("Bearer sesame");
    tower::util::MapRequest::new(Api, move |mut request: Request<Full<Bytes>>| {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        request
    })
}

fn allocations<S>(service: &mut S, headers: usize) -> u64
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>>,
{
    let send = |service: &mut S, request| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let Poll::Ready(Ok(_)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("the token is available");
        };
    };
    // The first request of a thread sets up what the next ones reuse.
    send(service, request(headers));
    let request = request(headers);
    measure(|| send(service, request)).count_total
}

fn request(headers: usize) -> Request<Full<Bytes>> {
    let mut request = Request::get("https://api.example.com/v1/things");
    for number in 0..headers {
        request = request.header(format!("x-header-{number}"), format!("value {number}"));
    }
    request.body(Full::new(Bytes::from_static(b"{}"))).unwrap()
}

#[derive(Clone)]
struct Api;

impl Service<Request<Full<Bytes>>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(Full::default())))
    }
}
