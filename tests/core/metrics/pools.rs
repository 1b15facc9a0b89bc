//! The metrics of pools.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::advance;
use tower::{Layer as _, ServiceExt as _};
use tower_refresh::store::MemoryStore;
use tower_refresh::testing::TokioClock;
use tower_refresh::{
    Credentials, CredentialsPool, RefreshLayer, Renewal, SourceInfo, TokenError, TokenSet,
    TokenSource,
};

use super::{API, test};
use crate::harness::{HOUR, MINUTE, Puppet, policy, puppet, tokens};

/// A source that names a token endpoint, so that its outage is noticed.
struct Named(Puppet);

impl TokenSource for Named {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.0.fetch(renewal).await
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new().token_endpoint("https://auth.test")
    }
}

#[test]
fn pool_shows_its_size_evictions_and_places_under_its_own_name() {
    test(async |metrics| {
        let (source, mut strings) = puppet();
        let pool = CredentialsPool::builder(move |_: &String| {
            Credentials::builder(source.clone()).policy(policy())
        })
        .name("api")
        .idle(MINUTE)
        .concurrent_refreshes(2)
        .clock(TokioClock::new())
        .build();
        let users = ["alice", "bob", "carol"].map(|user| pool.get(&user.to_owned()).unwrap());
        metrics.assert("tower_refresh_pool_size", &[], 3.0);
        let all = join_all(users.iter().map(Credentials::tokens));
        let answers = async {
            let first = strings.next().await;
            let second = strings.next().await;
            metrics.assert("tower_refresh_pool_places_usage", &[], 2.0);
            metrics.assert("tower_refresh_pool_places_limit", &[], 2.0);
            metrics.assert("tower_refresh_active_refreshes", &[], 3.0);
            first.fail(TokenError::denied("over"));
            second.answer(tokens("t"));
            strings.next().await.answer(tokens("t"));
        };
        tokio::join!(all, answers);
        metrics.assert("tower_refresh_pool_places_usage", &[], 0.0);
        metrics.assert_backoff("denied", 1.0);
        metrics.assert_refreshes("missing", "success", None, 2.0);
        assert!(!metrics.has("tower_refresh_token_expiry_seconds", &[]));

        drop(users);
        advance(2 * MINUTE).await;
        // The user without tokens loses nothing.
        assert_eq!(pool.len(), 2);
        metrics.assert("tower_refresh_pool_size", &[], 2.0);
        metrics.assert("tower_refresh_pool_evictions_total", &[("cause", "idle")], 1.0);
        metrics.assert_backoff("denied", 0.0);
        drop(pool);
        metrics.assert("tower_refresh_pool_size", &[], 0.0);
        metrics.assert("tower_refresh_pool_evictions_total", &[("cause", "idle")], 1.0);
    });
}

#[test]
fn pool_evicts_over_its_capacity_and_counts_it() {
    test(async |metrics| {
        let pool = CredentialsPool::builder(|_: &u64| {
            Credentials::builder(|_: Renewal| async { Ok(tokens("t")) })
        })
        .name("api")
        .capacity(4)
        .build();
        for user in 0..20 {
            pool.get(&user).unwrap();
        }
        let size = metrics.scrape().value("tower_refresh_pool_size", &[API]);
        assert_eq!(size as usize, pool.len());
        let evicted = [("cause", "capacity")];
        metrics.assert("tower_refresh_pool_evictions_total", &evicted, 20.0 - size);
    });
}

#[test]
fn refresh_that_an_outage_holds_back_counts_as_not_tried() {
    test(async |metrics| {
        let (source, mut strings) = puppet();
        let pool = CredentialsPool::builder(move |_: &u64| {
            Credentials::builder(Named(source.clone())).policy(policy())
        })
        .name("api")
        .clock(TokioClock::new())
        .build();
        let users: Vec<_> = (0..4).map(|user| pool.get(&user).unwrap()).collect();
        for user in &users[..3] {
            let answers = async { strings.next().await.fail(TokenError::transient("down")) };
            let _ = tokio::join!(user.tokens(), answers);
        }
        users[3].tokens().await.unwrap_err();
        metrics.assert_refreshes("missing", "failure", Some("transient"), 3.0);
        metrics.assert_refreshes("missing", "not_tried", Some("transient"), 1.0);
    });
}

#[test]
fn requests_without_credentials_count_for_the_pool() {
    test(async |metrics| {
        let pool = CredentialsPool::builder(|_: &u64| {
            Credentials::builder(|_: Renewal| async { Ok(tokens("t")) })
        });
        let pool = pool.name("api").build();
        let layer = RefreshLayer::keyed(pool, |_| None).origin("https://api.test").unwrap();
        let api = tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let client = layer.layer(api);
        let get = |url| Request::get(url).body(Full::default()).unwrap();
        client.clone().oneshot(get("https://elsewhere.test/")).await.unwrap();
        metrics.assert_requests("untouched", 1.0);
        client.clone().oneshot(get("https://api.test/")).await.unwrap_err();
        metrics.assert_requests("not_sent", 1.0);
    });
}

#[test]
fn no_label_shows_a_token_an_origin_or_the_key_of_a_user() {
    test(async |metrics| {
        let pool = CredentialsPool::new(|_: &String| {
            let fetch = |_: Renewal| async { Ok(tokens("secret").with_expires_in(HOUR)) };
            Credentials::builder(fetch).store(MemoryStore::new())
        });
        let layer = RefreshLayer::keyed(pool, |request| request.extensions().get().cloned());
        let layer = layer.origin("https://origin.test").unwrap();
        let api = tower::service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let client = layer.layer(api);
        let mut request = Request::new(Full::default());
        *request.uri_mut() = "https://origin.test/path?query".parse().unwrap();
        request.extensions_mut().insert("alice".to_owned());
        client.oneshot(request).await.unwrap();
        let scrape = metrics.scrape().to_string();
        assert!(scrape.contains("\"pool\""), "{scrape}");
        for secret in ["secret", "alice", "origin", "path", "query"] {
            assert!(!scrape.contains(secret), "{secret} in\n{scrape}");
        }
    });
}
