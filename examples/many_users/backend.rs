//! A web backend that calls an API for the user of each session.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{Grant, RefreshTokenGrant, Revocation, TokenEndpoint};
use tower_refresh::{
    BoxError, Credentials, CredentialsPool, PoolKey, PoolStatus, RefreshLayer, TokenError,
};

use crate::storage::{Sessions, Storage};

/// The state that the handlers share. Cloning it is cheap.
#[derive(Clone)]
pub struct Backend {
    sessions: Sessions,
    endpoint: TokenEndpoint,
    revocation: Revocation,
    pool: CredentialsPool<User>,
    api: Arc<str>,
    client: ApiClient,
}

/// A user of the backend: the key of the pool.
///
/// The name is an id that stays the same and is not secret, because events and log lines contain it. Do not use the cookie of the
/// session.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct User(pub Arc<str>);

impl PoolKey for User {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

impl Backend {
    pub fn new(
        endpoint: TokenEndpoint,
        revocation: Revocation,
        api: &str,
        Storage { sessions, tokens: store }: Storage,
    ) -> Result<Self, BoxError> {
        // The closure runs when a user is first needed. The refresh token comes with the log-in. Without a store, it is in memory
        // only, and all users log in again after a restart.
        let for_each = endpoint.clone();
        let pool = CredentialsPool::builder(move |user: &User| {
            let builder = Credentials::builder(RefreshTokenGrant::new(for_each.clone(), ""));
            Ok::<_, TokenError>(match &store {
                Some(store) => builder.store(store.for_name(&*user.0)?),
                None => builder,
            })
        })
        .concurrent_refreshes(8)
        .build();

        let layer =
            RefreshLayer::keyed(pool.clone(), |request| request.extensions().get().cloned())
                .origin(api)?;
        // For https, use hyper-rustls' connector.
        let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let client = BoxCloneSyncService::new(
            ServiceBuilder::new()
                .map_response(|response: http::Response<_>| response.map(Body::new))
                // Limits the whole request: the wait for a token and both attempts. It does not stop a refresh.
                .timeout(Duration::from_secs(30))
                .layer(layer)
                .service(http),
        );
        Ok(Self { sessions, endpoint, revocation, pool, api: api.into(), client })
    }

    pub fn pool(&self) -> &CredentialsPool<User> {
        &self.pool
    }

    pub fn routes(self) -> Router {
        Router::new()
            .route("/login", post(log_in))
            .route("/logout", post(log_out))
            .route("/mail", get(mail))
            .route("/health", get(health))
            .with_state(self)
    }

    /// Sends a request to the API with the token of the session's user.
    async fn call(
        &self,
        session: &Session,
        mut request: Request<Body>,
    ) -> Result<Response, Failure> {
        request.extensions_mut().insert(session.user.clone());
        let result = self.client.clone().oneshot(request).await;
        // The request was not sent, or the API rejects the token and there is no newer one.
        if let Some(reason) = TokenError::of(&result) {
            if reason.must_log_in() {
                self.sessions.end(&session.id).await?;
            }
            return Err(reason.clone().into());
        }
        match result? {
            response if response.status() == StatusCode::UNAUTHORIZED => {
                Err(Failure::Api("the API rejects the token".into()))
            }
            response => Ok(response),
        }
    }
}

// ===== handlers =====

/// Logs a user in with a form.
///
/// The server of this example has no pages. With a real one, send the browser there, and exchange the code that it returns with:
/// `Grant::new(endpoint, "authorization_code").param("code", code)` and so on.
async fn log_in(State(backend): State<Backend>, form: Bytes) -> Result<Response, Failure> {
    let fields: HashMap<_, _> = form_urlencoded::parse(&form).collect();
    let (Some(name), Some(password)) = (fields.get("user"), fields.get("password")) else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    let grant = Grant::new(backend.endpoint.clone(), "password")
        .param("username", &**name)
        .param("password", &**password);
    let tokens = Credentials::new(grant).tokens().await?;
    // The authorization server has checked the name: it may be a key from here on.
    let user = User(Arc::from(&**name));
    backend.pool.log_in(&user, tokens).await?;
    let id = backend.sessions.begin(user).await?;
    Ok((StatusCode::NO_CONTENT, set_cookie(&id, "")).into_response())
}

/// Logs the user out here, and revokes the tokens at the authorization server.
async fn log_out(State(backend): State<Backend>, session: Session) -> Result<Response, Failure> {
    backend.sessions.end(&session.id).await?;
    // The tokens may be in the store only.
    let tokens = backend.pool.get(&session.user)?.tokens().await;
    // Before the revocation, so that no request has them refreshed meanwhile.
    let removed = backend.pool.log_out(&session.user).await;
    // Also if the store has failed.
    let revoked = match tokens {
        Ok(tokens) => backend.revocation.revoke(&tokens).await,
        Err(error) if error.is_denied() => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = revoked {
        tracing::warn!(%error, "tokens not revoked");
    }
    removed?;
    Ok((StatusCode::NO_CONTENT, set_cookie("", "; Max-Age=0")).into_response())
}

async fn mail(State(backend): State<Backend>, session: Session) -> Result<Response, Failure> {
    let request = Request::get(format!("{}/mail", backend.api)).body(Body::empty())?;
    let response = backend.call(&session, request).await?;
    // The API of this example returns the number of the log-in that the token is for.
    let owner = response.headers().get("echo-log-in");
    let owner = owner.map(|owner| owner.as_bytes().to_vec()).unwrap_or_default();
    Ok((response.status(), owner).into_response())
}

/// Shows the state of the pool. Keep it from the public: it names the token endpoint and its errors.
///
/// The status code is 200 during an outage of the token endpoint too: if a load balancer removed the backend, no user would be served.
async fn health(State(backend): State<Backend>) -> Result<Response, Failure> {
    let status: PoolStatus = backend.pool.pool_status();
    let json = serde_json::to_string(&status)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

// ===== sessions =====

/// The session that the cookie of a request names. A request without one is answered with 401.
struct Session {
    id: String,
    user: User,
}

impl FromRequestParts<Backend> for Session {
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, backend: &Backend) -> Result<Self, Failure> {
        let id = cookie(&head.headers).ok_or(Failure::MustLogIn)?;
        let user = backend.sessions.user(id).await?.ok_or(Failure::MustLogIn)?;
        Ok(Self { id: id.to_owned(), user })
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).into_iter();
    let mut cookies = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split("; "));
    cookies.find_map(|cookie| cookie.strip_prefix("session="))
}

fn set_cookie(id: &str, more: &str) -> [(HeaderName, String); 1] {
    let cookie = format!("session={id}; Path=/; HttpOnly; Secure; SameSite=Lax{more}");
    [(header::SET_COOKIE, cookie)]
}

// ===== errors =====

/// The reason why a request has no answer of the API. The caller gets a status only.
enum Failure {
    MustLogIn,
    /// The request may succeed later.
    Later(Duration),
    Api(BoxError),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        if error.must_log_in() {
            Self::MustLogIn
        } else if error.is_session_over() {
            // The user has logged in or out meanwhile. The next request belongs to the new session.
            Self::Later(Duration::ZERO)
        } else if error.is_transient() || error.is_ambiguous() {
            let after = error.asked_again_in().or(error.retry_after());
            Self::Later(after.unwrap_or(Duration::from_secs(1)))
        } else {
            Self::Api(error.into())
        }
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        match TokenError::find(&*error) {
            Some(reason) => Self::from(reason.clone()),
            None => Self::Api(error),
        }
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        Self::Api(error.into())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Api(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            // A backend with pages redirects the browser to the log-in.
            Self::MustLogIn => StatusCode::UNAUTHORIZED.into_response(),
            Self::Later(after) => {
                let seconds = after.as_secs_f64().ceil().to_string();
                let retry_after = [(header::RETRY_AFTER, seconds)];
                (StatusCode::SERVICE_UNAVAILABLE, retry_after).into_response()
            }
            Self::Api(error) => {
                tracing::error!(%error, because = error.source(), "no response from the API");
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }
}
