//! A token request that passes through a `RefreshLayer`: by mistake its own, or that of other credentials.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::buffer::BufferLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{MemoryStore, TokenStore as _};
use tower_refresh::testing::{AuthorizationServer, Fault, ResponseBody};
use tower_refresh::{Credentials, RefreshLayer, TokenError, TokenSource, source_fn};

use crate::harness::{HOUR, policy};

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody>, BoxError>;

const URL: &str = "https://as.test/token";

/// S13
#[tokio::test(start_paused = true)]
async fn token_endpoint_behind_its_own_layer_is_misconfigured_at_once() {
    for way in [Way::Direct, Way::Buffered, Way::Spawned, Way::SpawnedBySource] {
        for is_stored in [false, true] {
            let server = AuthorizationServer::new();
            let slot: Arc<OnceLock<Client>> = Arc::default();
            let endpoint = TokenEndpoint::new(way.client(Arc::clone(&slot)), URL).unwrap();
            let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
            let grant =
                match way {
                    Way::SpawnedBySource => source_fn(move |renewal| {
                        let grant = grant.clone();
                        async move {
                            tokio::spawn(async move { grant.fetch(renewal).await }).await.unwrap()
                        }
                    })
                    .boxed(),
                    _ => grant.boxed(),
                };
            let store = MemoryStore::new();
            let source = match is_stored {
                true => Credentials::builder(grant).store(store.clone()),
                false => Credentials::builder(grant),
            };
            let credentials = source.policy(policy()).build();
            let layer = RefreshLayer::new(credentials.clone()).origin("https://as.test").unwrap();
            let client = ServiceBuilder::new().layer(layer).service(server.token_service());
            slot.set(BoxCloneSyncService::new(client)).ok().unwrap();

            let start = Instant::now();
            let error = credentials.tokens().await.unwrap_err();
            assert!(error.is_misconfigured(), "{way:?} {is_stored}: {error}");
            assert!(
                error.to_string().contains("must not pass through the RefreshLayer"),
                "{error}"
            );
            assert_eq!(start.elapsed(), std::time::Duration::ZERO, "{way:?} {is_stored}");
            let record = store.load().await.unwrap();
            assert!(record.is_none_or(|record| !record.has_open_intent()), "{way:?}");
            assert_eq!(server.counters().token_requests, 0);
        }
    }
}

/// S13
#[tokio::test(start_paused = true)]
async fn custom_source_behind_its_own_layer_and_a_buffer_is_refused() {
    let server = AuthorizationServer::new();
    let slot: Arc<OnceLock<Client>> = Arc::default();
    let client = Way::Buffered.client(Arc::clone(&slot));
    let source = source_fn(move |_| {
        let client = client.clone();
        let request = Request::get("https://as.test/token").body(Full::default()).unwrap();
        async move { Err(TokenError::transient(client.oneshot(request).await.unwrap_err())) }
    });
    let credentials = Credentials::with_policy(source, policy());
    let layer = RefreshLayer::new(credentials.clone()).origin("https://as.test").unwrap();
    let client = ServiceBuilder::new().layer(layer).service(server.resource_service());
    slot.set(BoxCloneSyncService::new(client)).ok().unwrap();

    let start = Instant::now();
    let error = credentials.tokens().await.unwrap_err();
    assert!(error.to_string().contains("must not pass through the RefreshLayer"), "{error}");
    assert_eq!(start.elapsed(), std::time::Duration::ZERO);
}

/// S13
#[tokio::test(start_paused = true)]
async fn rejected_token_request_does_not_wait_for_its_own_refresh() {
    for way in [Way::Direct, Way::Buffered, Way::Spawned] {
        let server = AuthorizationServer::new();
        let slot: Arc<OnceLock<Client>> = Arc::default();
        let endpoint = TokenEndpoint::new(way.client(Arc::clone(&slot)), URL).unwrap();
        let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let credentials = Credentials::with_policy(grant, policy());
        let layer = RefreshLayer::new(credentials.clone()).origin("https://as.test").unwrap();
        let client = ServiceBuilder::new().layer(layer).service(server.token_service());
        slot.set(BoxCloneSyncService::new(client)).ok().unwrap();

        credentials.log_in(server.issue()).await.unwrap();
        server.token_faults().always(Fault::status(StatusCode::UNAUTHORIZED));
        let start = Instant::now();
        assert!(credentials.refresh().await.is_err());
        assert_eq!(start.elapsed(), std::time::Duration::ZERO, "{way:?}");
        assert_eq!(server.counters().token_requests, 1, "{way:?}");
    }
}

/// S13
#[tokio::test(start_paused = true)]
async fn layer_beneath_that_refuses_keeps_its_kind_and_spends_nothing() {
    type Make = fn(&'static str) -> TokenError;
    type Kind = fn(&TokenError) -> bool;
    let kinds: [(Make, Kind); 4] = [
        (|why| TokenError::denied(why), TokenError::is_denied),
        (|why| TokenError::misconfigured(why), TokenError::is_misconfigured),
        (|why| TokenError::transient(why), TokenError::is_transient),
        // There, the unknown outcome is that of another request.
        (|why| TokenError::ambiguous(why), TokenError::is_transient),
    ];
    let wrappings: [fn(TokenError) -> BoxError; 3] = [
        |error| error.into(),
        |error| io::Error::other(io::Error::other(error)).into(),
        |error| {
            let mut status = tonic::Status::unauthenticated("no token");
            status.set_source(Arc::new(error));
            status.into()
        },
    ];
    for (make, is_kind) in kinds {
        for wrap in wrappings {
            let server = AuthorizationServer::new();
            let refusals = Arc::new(OnceLock::new());
            let (once, token_service) = (Arc::clone(&refusals), server.token_service());
            let http = service_fn(move |request: Request<Full<Bytes>>| {
                let is_refused = once.set(()).is_ok();
                let server = token_service.clone();
                async move {
                    if is_refused {
                        return Err(wrap(make("log in over there")));
                    }
                    server.oneshot(request).await.map_err(BoxError::from)
                }
            });
            // Through a buffer, which boxes the error once more.
            let http = ServiceBuilder::new().buffer(4).service(http);
            let endpoint = TokenEndpoint::new(http, URL).unwrap();
            let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
            let store = MemoryStore::new();
            let log_in = source_fn(|_| async { Err(TokenError::denied("wrong password")) });
            let credentials = Credentials::builder(grant.or_else(log_in))
                .store(store.clone())
                .policy(policy())
                .build();
            let error = credentials.tokens().await.unwrap_err();
            assert!(is_kind(&error), "{error}");
            assert!(error.to_string().contains("log in over there"), "{error}");
            assert!(!store.load().await.unwrap().unwrap().has_open_intent());

            // The refresh token is unspent, and the source is asked again.
            tokio::time::advance(HOUR).await;
            credentials.tokens().await.unwrap();
            assert_eq!(server.counters().refresh_token_reuses, 0);
        }
    }
}

/// S13
#[tokio::test(start_paused = true)]
async fn token_endpoint_behind_another_layer_gets_its_token() {
    let server = AuthorizationServer::new();
    let gateway =
        RefreshLayer::new(source_fn(|_| async { tower_refresh::TokenSet::bearer("gateway") }));
    let http = ServiceBuilder::new()
        .layer(BufferLayer::new(4))
        .layer(gateway.origin("https://as.test").unwrap())
        .service(server.token_service());
    let endpoint = TokenEndpoint::new(http, URL).unwrap();
    let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    Credentials::with_policy(grant, policy()).tokens().await.unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Buffered,
    Spawned,
    SpawnedBySource,
}

impl Way {
    /// A client that passes through a layer that does not exist yet.
    fn client(self, slot: Arc<OnceLock<Client>>) -> Client {
        // In the task that calls, which is the worker of a buffer, and not in the task that awaits.
        let call = move |request| slot.get().cloned().unwrap().call(request);
        match self {
            Self::Buffered => {
                let buffered = ServiceBuilder::new().buffer(4).service(service_fn(call));
                BoxCloneSyncService::new(buffered)
            }
            Self::Spawned => BoxCloneSyncService::new(service_fn(move |request| {
                let answer = tokio::spawn(call(request));
                async move { answer.await.unwrap() }
            })),
            Self::Direct | Self::SpawnedBySource => BoxCloneSyncService::new(service_fn(call)),
        }
    }
}
