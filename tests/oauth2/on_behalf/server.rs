//! Grants on behalf of a user, against the authorization server.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{
    ClientAuth, JwtBearerGrant, RefreshTokenGrant, SecurityToken, TokenEndpoint, TokenExchangeGrant,
};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{Credentials, RefreshLayer};

use crate::scripted::kind;

struct World {
    server: AuthorizationServer,
    endpoint: TokenEndpoint,
}

impl World {
    fn new() -> Self {
        let server = AuthorizationServer::builder().client("backend", "s3cr3t").build();
        let endpoint = TokenEndpoint::new(server.token_service(), "https://as.example.com/token");
        let endpoint = endpoint.unwrap().client_auth(ClientAuth::basic("backend", "s3cr3t"));
        Self { server, endpoint }
    }

    fn user(&self) -> Credentials {
        let refresh_token = self.server.issue_refresh_token();
        Credentials::new(RefreshTokenGrant::new(self.endpoint.clone(), refresh_token))
    }

    /// Sends a request, and returns the number of the log-in and the audience that its token is for.
    async fn get(&self, credentials: &Credentials) -> (String, String) {
        let layer =
            RefreshLayer::new(credentials.clone()).origin("https://api.example.com").unwrap();
        let client = ServiceBuilder::new().layer(layer).service(self.server.resource_service());
        let request = Request::get("https://api.example.com/").body(Empty::<Bytes>::new()).unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let text = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        (text("echo-log-in"), text("echo-audience"))
    }
}

#[tokio::test]
async fn each_user_and_audience_has_a_token_of_its_own() {
    let world = World::new();
    let users = [world.user(), world.user()];
    let mut layers = Vec::new();
    for (log_in, user) in users.iter().enumerate() {
        for audience in ["billing", "reports"] {
            let exchange = TokenExchangeGrant::new(world.endpoint.clone(), user.clone())
                .audience(audience)
                .resource("https://api.example.com");
            let expected =
                ((log_in + 1).to_string(), format!("{audience} https://api.example.com"));
            layers.push((Credentials::new(exchange), expected));
        }
    }
    for _ in 0..3 {
        for (credentials, expected) in &layers {
            assert_eq!(world.get(credentials).await, *expected);
        }
    }
    let counters = world.server.counters();
    assert_eq!(counters.refresh_token_requests, 2);
    assert_eq!(counters.token_exchange_requests, 4);

    // All tokens are revoked: each user and each audience get one new token.
    world.server.revoke_all_access_tokens();
    for (credentials, expected) in &layers {
        assert_eq!(world.get(credentials).await, *expected);
        let token = credentials.current().unwrap();
        let token = token.access_token().expose_secret();
        assert_eq!(world.server.log_in_of(token).unwrap().to_string(), expected.0);
        assert_eq!(world.server.audience_of(token).unwrap(), expected.1);
    }
    let counters = world.server.counters();
    assert_eq!(counters.refresh_token_requests, 4);
    // The first audience of each user is refused with the old token.
    assert_eq!(counters.token_exchange_requests, 4 + 4 + 2);
    assert_eq!((counters.refresh_token_reuses, counters.families_revoked), (0, 0));
}

#[tokio::test]
async fn assertion_of_a_user_is_accepted_on_behalf_of_the_user() {
    let world = World::new();
    let user = world.user();
    let grant = JwtBearerGrant::new(world.endpoint.clone(), user.clone()).scope("mail");
    let credentials = Credentials::new(grant.on_behalf_of());
    assert_eq!(world.get(&credentials).await.0, "1");
    assert_eq!(credentials.tokens().await.unwrap().scope(), Some("mail"));
    world.server.revoke_all_access_tokens();
    assert_eq!(world.get(&credentials).await.0, "1");
    assert_eq!(world.server.counters().jwt_bearer_requests, 3);
    assert_eq!(world.server.counters().refusals["invalid_grant"], 1);
}

#[tokio::test]
async fn end_of_the_session_of_the_user_is_a_denial() {
    let world = World::new();
    let user = world.user();
    let exchange = TokenExchangeGrant::new(world.endpoint.clone(), user.clone());
    let credentials = Credentials::new(exchange.audience("billing"));
    let tokens = user.tokens().await.unwrap();
    world.server.revoke_refresh_token(tokens.refresh_token().unwrap().expose_secret());
    let error = credentials.tokens().await.unwrap_err();
    assert_eq!((kind(&error), error.code()), ("denied", Some("invalid_grant")), "{error}");
    assert!(error.to_string().contains("the subject token was refused"), "{error}");
}

#[tokio::test]
async fn closure_is_asked_for_the_newest_token_of_each_exchange() {
    let world = World::new();
    let session = Arc::new(tokio::sync::RwLock::new(world.server.issue()));
    let kept = Arc::clone(&session);
    let subject = SecurityToken::from_fn(move |_| {
        let session = Arc::clone(&kept);
        async move { Ok(session.read().await.access_token().expose_secret().to_owned()) }
    });
    let credentials = Credentials::new(TokenExchangeGrant::new(world.endpoint.clone(), subject));
    assert_eq!(world.get(&credentials).await.0, "1");
    *session.write().await = world.server.issue();
    credentials.refresh().await.unwrap();
    assert_eq!(world.get(&credentials).await.0, "2");
}
