//! The secrets of a token request, from the configuration to the end of the request.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower_refresh::oauth2::{
    AuthParams, BodyFormat, ClientAuth, Dialect, Grant, JwtBearerGrant, RefreshTokenGrant,
    RequestMethod, Revocation, SecurityToken, TokenEndpoint, TokenExchangeGrant,
};
use tower_refresh::{Cause, Renewal, StaticToken, TokenSet, TokenSource};
use wiping::freed_unwiped;

/// Pieces of them stay the same in a form, a query and JSON.
const REFRESH: &str = "r4Tb8mVy1pHsJe\"+/r7Qd2kXz";
const SECRET: &str = "s9Lw3cNf6gBt\"+/s2Hj5vRm8xP";
const ASSERTION: &str = "a5Kp0uWe7yZo\"+/a1Gn4iDq6tC";
const ACCESS: &str = "x2Vd5sMh9bUj+/x8Ea3fYr6wN";

/// Fault S19.
#[test]
fn no_copy_of_a_refresh_token_is_freed_unwiped() {
    let forms: [(&str, fn(&mut Dialect)); 7] = [
        ("a form", |_| {}),
        ("JSON", |dialect| dialect.body = BodyFormat::Json),
        ("nested JSON", |dialect| {
            dialect.body = BodyFormat::Json;
            dialect.parameter_names.insert("refresh_token".into(), "/a/b/c/d/e".into());
        }),
        ("a query", |dialect| dialect.body = BodyFormat::Query),
        ("a GET request", |dialect| dialect.method = RequestMethod::Get),
        ("a query at another path", |dialect| {
            dialect.body = BodyFormat::Query;
            dialect.refresh_path = Some("refresh".into());
        }),
        ("both tokens", |dialect| {
            dialect.body = BodyFormat::Json;
            dialect.parameters_from_previous.insert("accessToken".into(), "access_token".into());
        }),
    ];
    for (form, change) in forms {
        let mut dialect = Dialect::rfc6749();
        dialect.allow_secrets_in_query = true;
        change(&mut dialect);
        let freed = watch(|| {
            let endpoint = endpoint().dialect(dialect.clone());
            let grant = RefreshTokenGrant::new(endpoint, REFRESH);
            let previous = TokenSet::bearer(ACCESS).unwrap().with_refresh_token(REFRESH);
            let renewal = Renewal::new(Cause::Expired).with_previous(previous);
            fetch(&grant, renewal.with_refresh_token(REFRESH));
        });
        assert!(freed.is_empty(), "{form}: {}", freed.join("\n"));
    }
}

/// Fault S19.
#[test]
fn no_copy_of_a_client_secret_is_freed_unwiped() {
    let makers: [(&str, fn() -> ClientAuth); 3] = [
        ("basic", || ClientAuth::basic("id", SECRET)),
        ("basic_unencoded", || ClientAuth::basic_unencoded("id", SECRET)),
        ("body", || ClientAuth::post("id", SECRET)),
    ];
    for (name, make) in makers {
        for dialect in [Dialect::rfc6749(), Dialect::json_body()] {
            let freed = watch(|| {
                let endpoint = endpoint().client_auth(make()).dialect(dialect.clone());
                fetch(&RefreshTokenGrant::new(endpoint, REFRESH), Renewal::new(Cause::Missing));
            });
            assert!(freed.is_empty(), "{name}: {}", freed.join("\n"));
        }
    }
}

/// Fault S19.
#[test]
fn no_copy_of_a_parameter_is_freed_unwiped() {
    let freed = watch(|| {
        let header = HeaderValue::from_maybe_shared(Bytes::from_static(ACCESS.as_bytes())).unwrap();
        let endpoint = endpoint().client_auth(ClientAuth::custom(move || {
            let header = header.clone();
            async move {
                Ok(AuthParams::new()
                    .param("client_assertion", ASSERTION)
                    .header(AUTHORIZATION, header))
            }
        }));
        let grant = Grant::new(endpoint, "password")
            .param("password", SECRET)
            .params_with(|_| async { Ok([("assertion", ASSERTION), ("code", REFRESH)]) });
        fetch(&grant, Renewal::new(Cause::Missing));
    });
    assert!(freed.is_empty(), "{}", freed.join("\n"));
}

#[test]
fn no_copy_of_a_token_sent_on_behalf_of_a_user_is_freed_unwiped() {
    let freed = watch(|| {
        let user = StaticToken::new(ACCESS.parse().unwrap());
        let exchange = TokenExchangeGrant::new(endpoint(), SecurityToken::from_credentials(user))
            .actor(SecurityToken::from_fn(|_| async { Ok(REFRESH) }));
        fetch(&exchange, Renewal::new(Cause::Missing));
        let grant = JwtBearerGrant::new(endpoint(), ASSERTION).on_behalf_of();
        fetch(&grant, Renewal::new(Cause::Missing));
    });
    assert!(freed.is_empty(), "{}", freed.join("\n"));
}

/// Fault S19.
#[test]
fn no_copy_of_a_revoked_token_is_freed_unwiped() {
    let freed = watch(|| {
        let tokens = TokenSet::bearer(ACCESS).unwrap().with_refresh_token(REFRESH);
        run(Revocation::new(endpoint()).revoke(&tokens)).unwrap();
    });
    assert!(freed.is_empty(), "{}", freed.join("\n"));
}

fn watch(act: impl FnOnce()) -> Vec<String> {
    let basic = [
        STANDARD.encode(format!("id:{SECRET}")),
        // RFC 6749 §2.3.1
        STANDARD.encode(format!(
            "id:{}",
            SECRET.replace('"', "%22").replace('+', "%2B").replace('/', "%2F")
        )),
    ];
    freed_unwiped(&[REFRESH, SECRET, ASSERTION, ACCESS, &basic[0], &basic[1]], act)
}

fn fetch(source: &impl TokenSource, renewal: Renewal) {
    run(source.fetch(renewal)).unwrap();
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(future)
}

/// An endpoint that looks at nothing and issues a token that is no secret here.
fn endpoint() -> TokenEndpoint {
    let client = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        drop(request);
        let body = Bytes::from_static(br#"{"access_token":"-"}"#);
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    TokenEndpoint::new(client, "https://as.example.com/token?tenant=t").unwrap()
}
