//! Grants on behalf of a user: token exchange and JWT bearer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{
    BodyFormat, ClientAuth, Dialect, JwtBearerGrant, RefreshTokenGrant, SecurityToken,
    TokenEndpoint, TokenExchangeGrant,
};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{
    AccessToken, BoxTokenSource, Cause, Credentials, RefreshLayer, Renewal, StaticToken,
    TokenError, TokenSet, TokenSource,
};

use crate::scripted::{Log, Reply, answer, endpoint, json, kind, reset};

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ISSUED: &str = r#"{"access_token":"issued","token_type":"Bearer","expires_in":60,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}"#;

/// The two grants, with their source of the token as the only difference.
type Make = fn(TokenEndpoint, SecurityToken) -> BoxTokenSource;
const GRANTS: [Make; 2] = [
    |endpoint, token| TokenExchangeGrant::new(endpoint, token).boxed(),
    |endpoint, token| JwtBearerGrant::new(endpoint, token).on_behalf_of().boxed(),
];

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

fn refusal(code: &str) -> Reply {
    answer(400, format!(r#"{{"error":"{code}"}}"#))
}

/// Credentials whose tokens are `user-1`, `user-2`, and so on.
fn numbered_user() -> Credentials {
    let number = AtomicUsize::new(0);
    Credentials::new(move |_: Renewal| {
        let number = number.fetch_add(1, Ordering::Relaxed) + 1;
        async move { TokenSet::bearer(format!("user-{number}")) }
    })
}

fn failing_user(error: TokenError) -> Credentials {
    Credentials::new(move |_: Renewal| std::future::ready(Err::<TokenSet, _>(error.clone())))
}

/// Returns the tokens that were sent.
fn sent(log: &Log) -> Vec<String> {
    let parameters = |body: String| -> Vec<(String, String)> {
        form_urlencoded::parse(body.as_bytes()).into_owned().collect()
    };
    let is_token = |name: &str| ["subject_token", "actor_token", "assertion"].contains(&name);
    let all = log.bodies().into_iter().flat_map(parameters);
    all.filter(|(name, _)| is_token(name)).map(|(_, value)| value).collect()
}

// ===== the request =====

#[tokio::test]
async fn exchange_sends_each_parameter_and_repeats_two() {
    let (endpoint, log) = endpoint([json(ISSUED), json(ISSUED)]);
    let user = "u:s&r".parse::<AccessToken>().unwrap();
    TokenExchangeGrant::new(endpoint.clone(), user.clone()).fetch(missing()).await.unwrap();
    TokenExchangeGrant::new(endpoint.client_auth(ClientAuth::post("compass", "s3cr3t")), user)
        .actor(SecurityToken::new("actor").token_type(JWT))
        .requested_token_type("urn:ietf:params:oauth:token-type:access_token")
        .audience("billing")
        .audience("urn:example:reports")
        .resource("https://api.example.com/v1?a=b")
        .resource("urn:example:api")
        .scope("invoices:read reports")
        .param("tenant", "t1")
        .params_with(|_| async { Ok([("device", "d1")]) })
        .fetch(missing())
        .await
        .unwrap();

    let subject = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
         &subject_token=u%3As%26r&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";
    let others = "&actor_token=actor&actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
         &scope=invoices%3Aread+reports\
         &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
         &audience=billing&audience=urn%3Aexample%3Areports\
         &resource=https%3A%2F%2Fapi.example.com%2Fv1%3Fa%3Db&resource=urn%3Aexample%3Aapi\
         &tenant=t1&device=d1&client_id=compass&client_secret=s3cr3t";
    assert_eq!(log.bodies(), [subject.to_owned(), format!("{subject}{others}")]);
}

#[tokio::test]
async fn json_body_has_repeated_audiences_as_an_array() {
    let mut dialect = Dialect::rfc6749();
    dialect.body = BodyFormat::Json;
    let (endpoint, log) = endpoint([json(ISSUED)]);
    TokenExchangeGrant::new(endpoint.dialect(dialect), "u")
        .audience("a")
        .audience("b")
        .fetch(missing())
        .await
        .unwrap();
    assert!(log.bodies()[0].ends_with(r#","audience":["a","b"]}"#), "{:?}", log.bodies());
}

/// Microsoft Entra ID, "First case: Access token request with a shared secret".
#[tokio::test]
async fn on_behalf_of_request_is_that_of_entra() {
    let (endpoint, log) = endpoint([json(ISSUED)]);
    JwtBearerGrant::new(endpoint.client_auth(ClientAuth::post("535f", "s3cr3t")), "e.y.J")
        .on_behalf_of()
        .scope("https://graph.microsoft.com/User.Read offline_access")
        .fetch(missing())
        .await
        .unwrap();
    assert_eq!(
        log.bodies(),
        ["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=e.y.J\
          &scope=https%3A%2F%2Fgraph.microsoft.com%2FUser.Read+offline_access\
          &requested_token_use=on_behalf_of&client_id=535f&client_secret=s3cr3t"]
    );
}

#[tokio::test]
async fn invalid_resource_or_empty_token_sends_nothing() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([]);
        let error = make(endpoint, SecurityToken::new("")).fetch(missing()).await.unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("is empty"), "{error}");
        assert_eq!(log.len(), 0);
    }
    let (endpoint, log) = endpoint([]);
    for resource in ["billing", "https://api.example.com/#part"] {
        let grant = TokenExchangeGrant::new(endpoint.clone(), "u").resource(resource);
        let error = grant.fetch(missing()).await.unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("`resource`"), "{error}");
    }
    assert_eq!(log.len(), 0);
}

#[tokio::test]
async fn id_token_of_the_credentials_is_sent_for_its_type() {
    let user = Credentials::new(|_: Renewal| async {
        Ok::<_, TokenError>(TokenSet::bearer("access")?.with_id_token("identity"))
    });
    let (endpoint, log) = endpoint([json(ISSUED)]);
    let subject = SecurityToken::from_credentials(user).token_type(ID_TOKEN);
    TokenExchangeGrant::new(endpoint.clone(), subject).fetch(missing()).await.unwrap();
    assert_eq!(sent(&log), ["identity"]);

    let subject = SecurityToken::from_credentials(numbered_user()).token_type(ID_TOKEN);
    let error = TokenExchangeGrant::new(endpoint, subject).fetch(missing()).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("`openid`"), "{error}");
    assert_eq!(log.len(), 1);
}

// ===== the answer =====

#[tokio::test]
async fn issued_token_type_and_scope_are_kept() {
    let (endpoint, _) = endpoint([json(ISSUED)]);
    let grant = TokenExchangeGrant::new(endpoint, "u").scope("a b");
    let tokens = grant.fetch(missing()).await.unwrap();
    let issued = "urn:ietf:params:oauth:token-type:access_token";
    assert_eq!(tokens.extra("issued_token_type"), Some(issued));
    assert_eq!(tokens.scope(), Some("a b"));
    assert!(tokens.refresh_token().is_none());
}

/// RFC 8693 §2.2.1: with `N_A`, the issued token is not an access token.
#[tokio::test]
async fn token_that_is_no_access_token_must_have_been_requested() {
    let id_jag = "urn:ietf:params:oauth:token-type:id-jag";
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    for (token_type, issued, requested, is_usable) in [
        ("N_A", Some(id_jag), Some(id_jag), true),
        ("N_A", Some(id_jag), None, false),
        ("n_a", Some(id_jag), None, false),
        ("N_A", Some(JWT), Some(id_jag), false),
        ("N_A", Some(JWT), Some(access_token), false),
        // A server that calls its access tokens unusable means something else.
        ("N_A", Some(access_token), None, true),
        ("N_A", None, None, true),
        ("Bearer", Some(JWT), None, true),
        ("Bearer", Some(JWT), Some(id_jag), true),
    ] {
        let issued = issued.map_or(String::new(), |it| format!(r#","issued_token_type":"{it}""#));
        let body = format!(r#"{{"access_token":"t","token_type":"{token_type}"{issued}}}"#);
        let (endpoint, log) = endpoint([json(&body)]);
        let mut grant = TokenExchangeGrant::new(endpoint, "u");
        if let Some(requested) = requested {
            grant = grant.requested_token_type(requested);
        }
        let result = grant.fetch(missing()).await;
        assert_eq!(result.is_ok(), is_usable, "{body} {requested:?}");
        if let Err(error) = result {
            assert!(error.is_misconfigured(), "{error}");
            assert!(error.to_string().contains("`requested_token_type`"), "{error}");
        }
        assert_eq!(log.len(), 1);
    }
}

/// The chain of an identity assertion: exchanged at the user's server, presented at that of the API.
#[tokio::test]
async fn issued_assertion_is_the_proof_of_a_further_grant() {
    let id_jag = "urn:ietf:params:oauth:token-type:id-jag";
    let body =
        format!(r#"{{"access_token":"jag","token_type":"N_A","issued_token_type":"{id_jag}"}}"#);
    let (at_home, _) = endpoint([json(&body)]);
    let (abroad, log) = endpoint([json(ISSUED)]);
    let exchange = TokenExchangeGrant::new(at_home, "u").requested_token_type(id_jag);
    JwtBearerGrant::new(abroad, Credentials::new(exchange)).fetch(missing()).await.unwrap();
    assert_eq!(sent(&log), ["jag"]);
}

#[tokio::test]
async fn refresh_token_of_an_exchange_is_kept_and_not_sent() {
    let offline = r#"{"access_token":"issued","refresh_token":"offline"}"#;
    for make in GRANTS {
        let (endpoint, log) = endpoint([json(offline), json(offline)]);
        let credentials = Credentials::new(make(endpoint, "u".into()));
        let tokens = credentials.tokens().await.unwrap();
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "offline");
        credentials.refresh().await.unwrap();
        assert_eq!(sent(&log), ["u", "u"]);
    }
}

#[tokio::test]
async fn refresh_token_of_an_exchange_comes_first_with_or_else() {
    let offline = r#"{"access_token":"issued","refresh_token":"offline"}"#;
    let replies = [json(offline), json(ISSUED), refusal("invalid_grant"), json(ISSUED)];
    let (endpoint, log) = endpoint(replies);
    let exchange = TokenExchangeGrant::new(endpoint.clone(), "u");
    let credentials = Credentials::new(RefreshTokenGrant::new(endpoint, "").or_else(exchange));
    credentials.tokens().await.unwrap();
    for _ in 0..2 {
        credentials.refresh().await.unwrap();
    }
    let refresh = "grant_type=refresh_token&refresh_token=offline";
    assert_eq!(log.bodies()[1..3], [refresh, refresh]);
    assert_eq!(sent(&log), ["u", "u"]);
}

// ===== the source of the token fails =====

#[tokio::test]
async fn error_of_the_source_of_the_token_keeps_its_kind() {
    for make in GRANTS {
        for error in [
            TokenError::denied("log in").with_code("invalid_grant"),
            TokenError::transient("later").with_retry_after(Duration::from_secs(7)),
            TokenError::ambiguous("lost"),
            TokenError::misconfigured("wrong"),
        ] {
            let of_closure = error.clone();
            for token in [
                SecurityToken::from_credentials(failing_user(error.clone())),
                SecurityToken::from_fn(move |_| {
                    std::future::ready(Err::<String, _>(of_closure.clone()))
                }),
            ] {
                let (endpoint, log) = endpoint([]);
                let failed = make(endpoint, token).fetch(missing()).await.unwrap_err();
                assert_eq!(failed.kind(), error.kind());
                assert_eq!(
                    (failed.code(), failed.retry_after()),
                    (error.code(), error.retry_after())
                );
                let shown = failed.to_string();
                let is_named =
                    shown.contains("no subject token: ") || shown.contains("no assertion: ");
                assert!(is_named && shown.contains(&error.get_ref().to_string()), "{shown}");
                assert_eq!(log.len(), 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_source_of_the_token_is_bounded_by_the_timeout() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([]);
        let token = SecurityToken::from_fn(|_| std::future::pending::<Result<String, _>>());
        let endpoint = endpoint.timeout(Duration::from_secs(3));
        let error = make(endpoint, token).fetch(missing()).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("longer than 3s"), "{error}");
        assert_eq!(log.len(), 0);
    }
}

#[tokio::test]
async fn log_in_of_the_user_ends_the_denial_of_the_exchange() {
    for make in GRANTS {
        let user = failing_user(TokenError::denied("log in"));
        let (endpoint, log) = endpoint([json(ISSUED), json(ISSUED)]);
        let token = SecurityToken::from(user.clone());
        // A clone of the token watches for itself.
        let of_another = Credentials::new(make(endpoint.clone(), token.clone()));
        let credentials = Credentials::new(make(endpoint, token));
        for _ in 0..2 {
            assert!(credentials.tokens().await.unwrap_err().is_denied());
            assert!(of_another.tokens().await.unwrap_err().is_denied());
        }
        user.log_in(TokenSet::bearer("logged-in").unwrap()).await.unwrap();
        assert!(credentials.tokens().await.is_ok());
        assert!(of_another.tokens().await.is_ok());
        assert_eq!(sent(&log), ["logged-in", "logged-in"]);
    }
}

// ===== the token is refused =====

#[tokio::test]
async fn refused_token_is_refreshed_and_sent_once_more() {
    for (make, code) in [
        (GRANTS[0], "invalid_request"),
        (GRANTS[0], "invalid_grant"),
        (GRANTS[0], "invalid_token"),
        (GRANTS[1], "invalid_grant"),
    ] {
        let (endpoint, log) = endpoint([refusal(code), json(ISSUED), json(ISSUED)]);
        let source = make(endpoint, numbered_user().into());
        source.fetch(missing()).await.unwrap();
        assert_eq!(sent(&log), ["user-1", "user-2"], "{code}");
        // The next attempt begins with the token that was accepted.
        source.fetch(missing()).await.unwrap();
        assert_eq!(sent(&log), ["user-1", "user-2", "user-2"], "{code}");
    }
}

#[tokio::test]
async fn token_that_another_grant_had_refreshed_is_used() {
    let user = numbered_user();
    let (one, of_one) = endpoint([json(ISSUED), refusal("invalid_request"), json(ISSUED)]);
    let one = TokenExchangeGrant::new(one, user.clone());
    one.fetch(missing()).await.unwrap();
    user.refresh().await.unwrap();
    one.fetch(missing()).await.unwrap();
    assert_eq!(sent(&of_one), ["user-1", "user-2", "user-3"]);
}

#[tokio::test]
async fn two_refusals_are_the_result_and_no_third_is_sent() {
    for (make, code, expected) in [
        (GRANTS[0], "invalid_request", "misconfigured"),
        (GRANTS[0], "invalid_grant", "denied"),
        (GRANTS[1], "invalid_grant", "denied"),
    ] {
        for token in [
            numbered_user().into(),
            SecurityToken::from_fn(|renewal| async move { Ok(format!("{:?}", renewal.cause())) }),
        ] {
            let (endpoint, log) = endpoint([refusal(code), refusal(code), json(ISSUED)]);
            let credentials = Credentials::new(make(endpoint, token));
            for _ in 0..2 {
                let error = credentials.tokens().await.unwrap_err();
                assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{error}");
                assert!(error.to_string().contains("was refused before"), "{error}");
            }
            assert_eq!(log.len(), 2, "{:?}", sent(&log));
        }
    }
}

#[tokio::test]
async fn second_answer_of_another_kind_is_the_result() {
    for (reply, expected) in [
        (answer(503, r#"{"error":"slow_down"}"#), "transient"),
        (refusal("invalid_target"), "misconfigured"),
    ] {
        let (endpoint, log) = endpoint([refusal("invalid_grant"), reply]);
        let error = GRANTS[0](endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{error}");
        assert_eq!(log.len(), 2);
    }
}

/// RFC 8693 §2.2.2: `invalid_request` is the code for an expired subject token.
#[tokio::test]
async fn refused_token_without_a_successor_means_log_in_again() {
    for (make, code) in
        [(GRANTS[0], "invalid_request"), (GRANTS[0], "invalid_token"), (GRANTS[1], "invalid_grant")]
    {
        for token in [SecurityToken::new("same"), SecurityToken::from_fn(|_| async { Ok("same") })]
        {
            let (endpoint, log) = endpoint([refusal(code)]);
            let error = make(endpoint, token).fetch(missing()).await.unwrap_err();
            assert_eq!((kind(&error), error.code()), ("denied", Some(code)), "{error}");
            assert!(error.to_string().contains("may have expired"), "{error}");
            assert_eq!(log.len(), 1);
        }
    }
}

#[tokio::test]
async fn fixed_token_is_not_sent_again_after_a_denial() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([refusal("invalid_grant"), json(ISSUED)]);
        let credentials = Credentials::new(make(endpoint, "fixed".into()));
        for _ in 0..2 {
            assert!(credentials.tokens().await.unwrap_err().is_denied());
            assert!(credentials.refresh().await.unwrap_err().is_denied());
        }
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn denied_refresh_of_a_refused_token_is_the_error() {
    let user = Credentials::new(StaticToken::new("fixed".parse().unwrap()));
    for make in GRANTS {
        let (endpoint, log) = endpoint([refusal("invalid_grant")]);
        let error = make(endpoint, user.clone().into()).fetch(missing()).await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        let shown = error.to_string();
        assert!(
            shown.contains("was refused, and there is no newer one: the token is fixed"),
            "{shown}"
        );
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test]
async fn refused_actor_token_is_replaced_as_well() {
    let (endpoint, log) = endpoint([refusal("invalid_request"), json(ISSUED)]);
    let grant = TokenExchangeGrant::new(endpoint, "user").actor(numbered_user());
    grant.fetch(missing()).await.unwrap();
    assert_eq!(sent(&log), ["user", "user-1", "user", "user-2"]);

    // With another actor token refused, the subject token is the likely cause.
    let (endpoint, log) =
        crate::scripted::endpoint([refusal("invalid_request"), refusal("invalid_request")]);
    let grant = TokenExchangeGrant::new(endpoint, "user").actor(numbered_user());
    let error = grant.fetch(missing()).await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("subject token may have expired"));
    assert_eq!(log.len(), 2);
}

/// Another token of the same user changes nothing: the server asks for something else.
#[tokio::test]
async fn other_refusals_leave_the_token_alone() {
    for (code, expected) in [
        ("interaction_required", "denied"),
        ("consent_required", "denied"),
        ("invalid_target", "misconfigured"),
        ("invalid_scope", "misconfigured"),
        ("invalid_client", "misconfigured"),
        ("unauthorized_client", "misconfigured"),
        ("slow_down", "transient"),
        ("server_error", "transient"),
    ] {
        for make in GRANTS {
            let (endpoint, log) = endpoint([refusal(code)]);
            let error = make(endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
            assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{error}");
            assert_eq!(sent(&log), ["user-1"], "{code}");
        }
    }
    // For an assertion, `invalid_request` is not about the assertion (RFC 7523 §3.1).
    let (endpoint, log) = endpoint([refusal("invalid_request")]);
    let error = GRANTS[1](endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
    assert_eq!((kind(&error), log.len()), ("misconfigured", 1));
}

#[tokio::test]
async fn lost_answer_is_transient_since_no_token_is_spent() {
    for make in GRANTS {
        let (endpoint, log) = endpoint([reset()]);
        let error = make(endpoint, numbered_user().into()).fetch(missing()).await.unwrap_err();
        assert_eq!((kind(&error), log.len()), ("transient", 1), "{error}");
    }
}

// ===== secrets =====

#[tokio::test]
async fn tokens_are_in_no_debug_output_and_no_error() {
    const SUBJECT: &str = "open-sesame-subject";
    const ACTOR: &str = "abracadabra-actor";
    let echo = |actor: &str| {
        let text = format!("bad {SUBJECT} or {actor}, {}", SUBJECT.replace('-', "%2D"));
        answer(400, format!(r#"{{"error":"{SUBJECT}","error_description":"{text}"}}"#))
    };
    let tokens = |token: &'static str| {
        [
            SecurityToken::new(token),
            SecurityToken::from_credentials(StaticToken::new(token.parse().unwrap())),
            SecurityToken::from_fn(move |_| async move { Ok(token) }),
        ]
    };
    for (subject, actor) in tokens(SUBJECT).into_iter().zip(tokens(ACTOR)) {
        let (endpoint, _) = endpoint([echo(ACTOR), echo("none")]);
        let exchange = TokenExchangeGrant::new(endpoint.clone(), subject.clone()).actor(actor);
        let assertion = JwtBearerGrant::new(endpoint, subject.clone()).on_behalf_of();
        let mut shown = format!("{subject:?} {exchange:?} {assertion:?}");
        for result in [exchange.fetch(missing()).await, assertion.fetch(missing()).await] {
            let error = result.unwrap_err();
            shown += &format!(" {error} {error:?}");
        }
        for secret in ["sesame", "abracadabra"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("***"), "{shown}");
    }
}

// ===== against the authorization server =====

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
