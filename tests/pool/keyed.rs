//! The layer whose requests name their key.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::store::MemoryStore;
use tower_refresh::{
    BoxError, Credentials, CredentialsPool, RefreshLayer, StaticToken, TokenError, TokenSet,
};

use crate::users::{Users, names};

#[derive(Clone)]
struct User(String);

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<String>, BoxError>;

/// Responds with the token of the request.
fn echo(pool: CredentialsPool<String>) -> Client {
    client(pool, false)
}

fn client(pool: CredentialsPool<String>, without_key_untouched: bool) -> Client {
    let layer = RefreshLayer::keyed(pool, |request| {
        request.extensions().get().map(|User(user)| user.clone())
    });
    let layer = match without_key_untouched {
        true => layer.without_key_untouched(),
        false => layer,
    };
    let layer = layer.origin("https://api.test").unwrap();
    BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service_fn(
        async |request: Request<Full<Bytes>>| {
            let token = request.headers().get(header::AUTHORIZATION);
            let token = token.map(|token| token.to_str().unwrap().to_owned());
            Ok::<_, Infallible>(Response::new(token.unwrap_or_default()))
        },
    ))
}

fn fixed(_: &Users) -> CredentialsPool<String> {
    CredentialsPool::new(|user: &String| {
        Ok::<_, TokenError>(Credentials::builder(StaticToken::new(user.parse()?)))
    })
}

fn request() -> http::request::Builder {
    Request::get("https://api.test/")
}

async fn send(client: &Client, request: http::request::Builder) -> Result<String, TokenError> {
    let response = client.clone().oneshot(request.body(Full::default()).unwrap()).await;
    match response {
        Ok(response) => Ok(response.into_body()),
        Err(error) => Err(error.downcast_ref::<TokenError>().unwrap().clone()),
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_is_sent_with_the_token_of_its_own_key() {
    let client = echo(fixed(&Users::new()));
    let users = names(100);
    let responses = users.iter().map(|user| send(&client, request().extension(User(user.clone()))));
    for (user, response) in users.iter().zip(join_all(responses).await) {
        assert_eq!(response.unwrap(), format!("Bearer {user}"));
    }
}

#[tokio::test(start_paused = true)]
async fn request_without_a_key_or_with_an_empty_one_fails() {
    let client = echo(fixed(&Users::new()));
    let error = send(&client, request()).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("names no key"), "{error}");
    for empty in ["", " ", "\t\n"] {
        let error = send(&client, request().extension(User(empty.into()))).await.unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("empty name"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_without_a_key_is_sent_unchanged_if_so_configured() {
    let client = client(fixed(&Users::new()), true);
    assert_eq!(send(&client, request()).await.unwrap(), "");
    let with_key = send(&client, request().extension(User("alice".into()))).await;
    assert_eq!(with_key.unwrap(), "Bearer alice");
    let empty = send(&client, request().extension(User("".into()))).await.unwrap_err();
    assert!(empty.is_misconfigured());
}

#[tokio::test(start_paused = true)]
async fn credentials_in_the_extensions_come_before_the_key() {
    let client = echo(fixed(&Users::new()));
    let own = Credentials::new(StaticToken::new("own".parse().unwrap()));
    let with_own = request().extension(User("alice".into())).extension(own);
    assert_eq!(send(&client, with_own).await.unwrap(), "Bearer own");
}

#[tokio::test(start_paused = true)]
async fn error_of_the_closure_is_that_of_the_request() {
    let pool = CredentialsPool::new(|user: &String| match user.as_str() {
        "mallory" => Err(TokenError::denied("no such user")),
        user => Ok(Credentials::builder(StaticToken::new(user.parse()?))),
    });
    let client = echo(pool.clone());
    let error = send(&client, request().extension(User("mallory".into()))).await.unwrap_err();
    assert!(error.is_denied());
    assert_eq!(pool.len(), 0);
    assert!(send(&client, request().extension(User("alice".into()))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn rejections_cost_each_key_one_refresh_and_one_retry() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::new(move |user: &String| make.stored(user));
    let layer = RefreshLayer::keyed(pool, |request| {
        request.extensions().get().map(|User(user)| user.clone())
    });
    let client = ServiceBuilder::new()
        .layer(layer.origin("https://api.test").unwrap())
        .service(users.server.resource_service());
    let send_all = async || {
        let requests = names(50).into_iter().cycle().take(200).map(|user| {
            let request = request().extension(User(user)).body(Full::<Bytes>::default());
            client.clone().oneshot(request.unwrap())
        });
        for response in join_all(requests).await {
            assert_eq!(response.unwrap().status(), StatusCode::OK);
        }
    };
    send_all().await;
    users.server.revoke_all_access_tokens();
    send_all().await;
    assert_eq!(users.server.counters().refresh_token_requests, 100);
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn log_out_of_one_key_leaves_the_others_logged_in() {
    let pool = CredentialsPool::new(|_: &String| {
        Credentials::builder(|renewal: tower_refresh::Renewal| async move {
            renewal.refresh_token().map(drop)?;
            TokenSet::bearer("never")
        })
    });
    let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
    for user in [&alice, &bob] {
        pool.log_in(user, TokenSet::bearer(user).unwrap()).await.unwrap();
    }
    pool.log_out(&alice).await.unwrap();
    let client = echo(pool);
    assert!(send(&client, request().extension(User(alice))).await.unwrap_err().is_denied());
    assert_eq!(send(&client, request().extension(User(bob))).await.unwrap(), "Bearer bob");
}

#[tokio::test(start_paused = true)]
async fn keys_that_share_a_store_by_mistake_share_no_token() {
    let store = MemoryStore::new();
    let pool = CredentialsPool::new(move |_: &String| {
        Credentials::builder(|renewal: tower_refresh::Renewal| async move {
            renewal.refresh_token().map(drop)?;
            TokenSet::bearer("never")
        })
        .name("the same for all")
        .store(store.clone())
    });
    let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
    pool.log_in(&alice, TokenSet::bearer("of-alice").unwrap()).await.unwrap();
    let client = echo(pool.clone());
    assert_eq!(send(&client, request().extension(User(alice))).await.unwrap(), "Bearer of-alice");
    let error = send(&client, request().extension(User(bob))).await.unwrap_err();
    assert!(error.to_string().contains("bob"), "{error}");
}
