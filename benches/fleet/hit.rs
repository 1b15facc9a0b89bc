//! The time and the allocations of finding the credentials of a user.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tower::Layer as _;
use tower::util::MapRequest;
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{Credentials, CredentialsPool, PoolKey, RefreshLayer, Renewal};

use crate::support::compare::{Case, Contestants};
use crate::support::requests::{Requests, Values};
use crate::support::services::{Api, Body, Stack, send};
use crate::support::stacks::{Run, TOKEN, refresh};
use crate::token;

const KEYS: usize = 10_000;

/// Prints a column for each type of key. Each request has its key as an extension, also where the stack does not use it.
pub(crate) fn print() {
    let cases = vec![
        case("`u64`", |number| number as u64),
        case("`Arc<str>`", |number| Arc::<str>::from(name(number))),
        case("`String`", name),
    ];
    let names = [
        "one `Credentials`",
        "a pool, 8 of its keys",
        "a pool, all of its keys",
        "by hand: a `HashMap` of headers",
        "a static header",
    ];
    let title = format!("A request with a fresh token, by the type of the key, {KEYS} keys");
    Contestants { names: &names, baseline: 0 }.print(&title, cases, 200, None);
}

fn case<K: PoolKey>(name: &str, key: impl Fn(usize) -> K) -> Case {
    let keys: Arc<[K]> = (0..KEYS).map(key).collect();
    let pool =
        CredentialsPool::builder(|_: &K| Credentials::builder(|_: Renewal| async { token() }))
            // Its parts are equal, and not all of them get the same number of keys.
            .capacity(2 * KEYS)
            .build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for key in &*keys {
            pool.get(key).expect("a name").warm_up().await.expect("a token");
        }
    });
    let keyed = RefreshLayer::keyed(pool, |request| {
        request.extensions().get().map(|Key(key)| K::clone(key))
    });
    let keyed = keyed.origin("https://api.example.com").expect("a valid origin");
    let few: Arc<[K]> = keys[..8].into();
    let contestants = vec![
        run(refresh().layer(Api), &keys),
        run(keyed.layer(Api), &few),
        run(keyed.layer(Api), &keys),
        run(by_hand(&keys), &keys),
        run(AddAuthorizationLayer::bearer(TOKEN).layer(Api), &keys),
    ];
    Case { name: name.to_owned(), contestants }
}

/// Returns a stack that only looks the header up, of tokens that never expire. The bytes of each header are its own.
fn by_hand<K: PoolKey>(keys: &[K]) -> impl Stack + use<K> {
    let header = || HeaderValue::try_from(format!("Bearer {}", "t".repeat(1024))).expect("valid");
    let headers: HashMap<_, _> = keys.iter().map(|key| (key.clone(), header())).collect();
    let headers = RwLock::new(headers);
    MapRequest::new(Api, move |mut request: Request<Body>| {
        let key = request.extensions().get().map(|Key(key)| K::clone(key)).expect("a key");
        let header = headers.read().expect("no panic")[&key].clone();
        request.headers_mut().insert(AUTHORIZATION, header);
        request
    })
}

/// The key of a request, as an extension.
#[derive(Clone)]
struct Key<K>(K);

fn run<K: PoolKey>(mut stack: impl Stack + 'static, keys: &Arc<[K]>) -> Run {
    // Prime to their number, so that all of them are used, and neighbours are not used one after the other.
    const STEP: usize = 7_919;
    let (keys, mut next) = (Arc::clone(keys), 0);
    let requests = Requests::new(8, Values::Static);
    Box::new(move |count| {
        for _ in 0..count {
            next = (next + STEP) % keys.len();
            let mut request = requests.build();
            request.extensions_mut().insert(Key(keys[next].clone()));
            drop(send(&mut stack, request));
        }
    })
}

/// Returns the name of a user, as long as those of many identity providers.
fn name(number: usize) -> String {
    format!("auth0|507f1f77bcf86cd7{number:08}")
}
