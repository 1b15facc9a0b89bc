//! The stacks that the benches compare.

use std::time::Duration;

use tower::filter::AsyncFilterLayer;
use tower::retry::RetryLayer;
use tower::{Layer as _, ServiceBuilder};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{BoxError, Credentials, RefreshLayer, Renewal, TokenSet};

use super::by_hand::{Cache, RetryOnce};
use super::requests::Requests;
use super::services::{Stack, send};

pub(crate) const BARE: usize = 0;
pub(crate) const STATIC: usize = 1;
pub(crate) const PLAIN: usize = 2;
pub(crate) const ARMED: usize = 3;
pub(crate) const RETRY: usize = 4;
pub(crate) const BY_HAND: usize = 5;
pub(crate) const BY_HAND_RETRY: usize = 6;

pub(crate) const NAMES: [&str; 7] = [
    "bare",
    "static header",
    "without retry",
    "armed",
    "`tower::retry`, static header",
    "by hand",
    "`tower::retry`, by hand",
];

/// A stack under measurement: sends this number of requests.
pub(crate) type Run = Box<dyn FnMut(u32)>;

/// Returns all stacks over a service, in the order of [`NAMES`].
pub(crate) fn over<S>(service: &S, requests: &Requests) -> Vec<Run>
where
    S: Stack + Clone + 'static,
    S::Error: Into<BoxError>,
{
    (0..NAMES.len()).map(|stack| one_over(stack, service.clone(), requests.clone())).collect()
}

/// Returns one of the stacks over a service.
pub(crate) fn one_over<S>(stack: usize, service: S, requests: Requests) -> Run
where
    S: Stack + Clone + 'static,
    S::Error: Into<BoxError>,
{
    let fixed = AddAuthorizationLayer::bearer(TOKEN);
    let retry = RetryLayer::new(RetryOnce::default());
    let builder = ServiceBuilder::new();
    match stack {
        BARE => run(service, requests),
        STATIC => run(fixed.layer(service), requests),
        PLAIN => run(refresh().without_retry().layer(service), requests),
        ARMED => run(refresh().layer(service), requests),
        RETRY => run(builder.layer(retry).layer(fixed).service(service), requests),
        _ => {
            let cache = Cache::default();
            let fetch = || async { Ok((TOKEN.to_owned(), HOUR)) };
            let attach = AsyncFilterLayer::new(move |request| cache.clone().attach(request, fetch));
            match stack {
                BY_HAND => run(attach.layer(service), requests),
                _ => run(builder.layer(retry).layer(attach).service(service), requests),
            }
        }
    }
}

/// Returns a layer with a fresh token.
pub(crate) fn refresh() -> RefreshLayer {
    let credentials = Credentials::new(|_: Renewal| async {
        TokenSet::bearer(TOKEN).map(|tokens| tokens.with_expires_in(HOUR))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(credentials.warm_up()).expect("a token");
    RefreshLayer::new(credentials).origin("https://api.example.com").expect("a valid origin")
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) const TOKEN: &str =
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro";

fn run<S: Stack + 'static>(mut stack: S, requests: Requests) -> Run {
    Box::new(move |count| {
        for _ in 0..count {
            drop(send(&mut stack, requests.build()));
        }
    })
}
