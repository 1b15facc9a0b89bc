//! Grants on behalf of a user: token exchange and JWT bearer.

mod refused;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_refresh::oauth2::{
    BodyFormat, ClientAuth, Dialect, JwtBearerGrant, RefreshTokenGrant, SecurityToken,
    TokenEndpoint, TokenExchangeGrant,
};
use tower_refresh::{
    AccessToken, BoxTokenSource, Cause, Credentials, Renewal, StaticToken, TokenError, TokenSet,
    TokenSource,
};

use crate::scripted::{Log, Reply, answer, endpoint, json};

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
