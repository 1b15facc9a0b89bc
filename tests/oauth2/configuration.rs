//! The requests that dialects, endpoints and grants can be configured to send, and the fields that they keep.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use tower_refresh::oauth2::{
    AuthParams, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant, Revocation,
    TokenEndpoint,
};
use tower_refresh::{Cause, Challenge, Credentials, Renewal, TokenError, TokenSet, TokenSource};

use crate::scripted::{self, Log, Reply, answer, endpoint, json};

const KEPT: &str = r#"{"access_token":"a"}"#;

fn dialect(json: &str) -> Dialect {
    serde_json::from_str(json).unwrap()
}

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

fn after(previous: &TokenSet) -> Renewal {
    Renewal::new(Cause::Expired).with_previous(previous.clone())
}

/// An endpoint at another URL, in a dialect.
fn at(url: &str, json: &str, replies: impl IntoIterator<Item = Reply>) -> (TokenEndpoint, Log) {
    let (endpoint, log) = endpoint(replies);
    (endpoint.with_url(url).unwrap().dialect(dialect(json)), log)
}

fn in_dialect(json: &str, replies: impl IntoIterator<Item = Reply>) -> (TokenEndpoint, Log) {
    at(scripted::URL, json, replies)
}

/// Asserts that nothing was sent because of the configuration, and that the error names a field.
fn assert_refused(outcome: Result<impl Sized, TokenError>, log: &Log, named: &str) -> String {
    let error = outcome.err().unwrap();
    assert!(error.is_misconfigured(), "{error}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(&format!("`{named}`")), "{named}: {shown}");
    assert_eq!(log.len(), 0);
    shown
}

// ===== The method =====

/// Fault B06: WeChat.
#[tokio::test]
async fn get_sends_all_parameters_in_the_query() {
    let (endpoint, log) = at(
        "https://api.example.com/sns/oauth2/refresh_token",
        r#"{"method": "GET", "allow_secrets_in_query": true, "parameter_names": {"client_id": "appid"}}"#,
        [json(KEPT)],
    );
    let endpoint = endpoint.client_auth(ClientAuth::public("wx1"));
    RefreshTokenGrant::new(endpoint, "r t&=").fetch(missing()).await.unwrap();
    let request = log.last();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(
        request.uri(),
        "https://api.example.com/sns/oauth2/refresh_token?grant_type=refresh_token&refresh_token=r+t%26%3D&appid=wx1"
    );
    assert_eq!(request.body(), "");
    for name in [CONTENT_TYPE, CONTENT_LENGTH] {
        assert!(!request.headers().contains_key(&name), "{name}");
    }
}

/// Fault B06: Instagram, whose access token takes the place of a refresh token.
#[tokio::test]
async fn access_token_that_renews_itself() {
    let (endpoint, log) = at(
        "https://graph.example.com/refresh_access_token",
        r#"{
            "method": "GET",
            "allow_secrets_in_query": true,
            "grant_types": {"refresh_token": "ig_refresh_token"},
            "parameter_names": {"refresh_token": "access_token"},
            "fields": {"refresh_token": "/access_token"}
        }"#,
        [json(r#"{"access_token":"t2"}"#), json(r#"{"access_token":"t3"}"#)],
    );
    let grant = RefreshTokenGrant::new(endpoint, "t1");
    let tokens = grant.fetch(missing()).await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "t2");
    grant.fetch(after(&tokens)).await.unwrap();
    assert_eq!(
        log.last().uri(),
        "https://graph.example.com/refresh_access_token?grant_type=ig_refresh_token&access_token=t2"
    );
}

/// Fault B06.
#[tokio::test]
async fn get_with_a_secret_needs_the_explicit_word() {
    let (endpoint, log) = in_dialect(r#"{"method": "GET"}"#, [json(KEPT)]);
    let refresh = RefreshTokenGrant::new(endpoint.clone(), "r").fetch(missing()).await;
    assert_refused(refresh, &log, "allow_secrets_in_query");
    // A client id alone is not a secret.
    let endpoint = endpoint.client_auth(ClientAuth::public("me"));
    ClientCredentialsGrant::new(endpoint).fetch(missing()).await.unwrap();
    assert_eq!(log.last().method(), Method::GET);
}

/// RFC 6749 §3.2.
#[tokio::test]
async fn query_parameters_of_the_url_are_kept() {
    for (json_dialect, expected) in [
        ("{}", "/v1/token?tenant=t%20u&key="),
        (r#"{"refresh_path": "refresh"}"#, "/v1/refresh?tenant=t%20u&key="),
        (r#"{"refresh_path": "/refresh"}"#, "/refresh?tenant=t%20u&key="),
        (
            r#"{"body": "query", "allow_secrets_in_query": true}"#,
            "/v1/token?tenant=t%20u&key=&grant_type=refresh_token&refresh_token=r",
        ),
        (
            r#"{"method": "GET", "allow_secrets_in_query": true, "extra_parameters": {"v": 2, "x": true}}"#,
            "/v1/token?tenant=t%20u&key=&grant_type=refresh_token&refresh_token=r&v=2&x=true",
        ),
        (
            r#"{"method": "GET", "allow_secrets_in_query": true, "refresh_path": "refresh"}"#,
            "/v1/refresh?tenant=t%20u&key=&grant_type=refresh_token&refresh_token=r",
        ),
    ] {
        let url = "https://as.example.com/v1/token?tenant=t%20u&key=";
        let (endpoint, log) = at(url, json_dialect, [json(KEPT)]);
        RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await.unwrap();
        assert_eq!(log.last().uri().path_and_query().unwrap(), expected, "{json_dialect}");
    }
}

#[tokio::test]
async fn a_parameter_in_the_urls_query_is_not_sent_twice() {
    let (endpoint, log) = at(
        "https://as.example.com/token?grant%5Ftype=refresh_token",
        r#"{"method": "GET", "allow_secrets_in_query": true}"#,
        [],
    );
    let outcome = RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await;
    assert_refused(outcome, &log, "grant_type");
}

// ===== The body =====

/// Fault B07: Cognito.
#[tokio::test]
async fn json_body_with_a_content_type_of_its_own() {
    let (endpoint, log) = in_dialect(
        r#"{
            "body": "json",
            "content_type": "application/x-amz-json-1.1",
            "extra_headers": {"x-amz-target": "AWSCognitoIdentityProviderService.GetTokensFromRefreshToken"},
            "grant_types": {"refresh_token": ""},
            "parameter_names": {"refresh_token": "RefreshToken", "client_id": "ClientId"},
            "root": "/AuthenticationResult",
            "fields": {"access_token": "/AccessToken", "expires_in": "/ExpiresIn", "refresh_token": "/RefreshToken"}
        }"#,
        [json(
            r#"{"AuthenticationResult":{"AccessToken":"a","ExpiresIn":60,"RefreshToken":"r2"}}"#,
        )],
    );
    let endpoint = endpoint.client_auth(ClientAuth::public("me"));
    let tokens = RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await.unwrap();
    assert_eq!(log.last().headers()[CONTENT_TYPE], "application/x-amz-json-1.1");
    assert_eq!(log.last().body(), r#"{"RefreshToken":"r","ClientId":"me"}"#);
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r2");
}

/// Fault B07: Cognito, with parameters in an object of their own.
#[tokio::test]
async fn json_parameters_can_be_nested_objects() {
    let (endpoint, log) = in_dialect(
        r#"{
            "body": "json",
            "grant_types": {"refresh_token": "REFRESH_TOKEN_AUTH"},
            "parameter_names": {
                "grant_type": "AuthFlow", "client_id": "ClientId", "refresh_token": "/AuthParameters/REFRESH_TOKEN"
            },
            "parameter_types": {"/a~1b/c/d": "array"},
            "extra_parameters": {"/AuthParameters/DEVICE_KEY": "d", "/a~1b/c/d": "x y", "/a~1b/e": 1}
        }"#,
        [json(KEPT)],
    );
    let endpoint = endpoint.client_auth(ClientAuth::public("me"));
    RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await.unwrap();
    let expected = [
        r#"{"AuthFlow":"REFRESH_TOKEN_AUTH","AuthParameters":{"REFRESH_TOKEN":"r","DEVICE_KEY":"d"},"#,
        r#""ClientId":"me","a/b":{"c":{"d":["x","y"]},"e":1}}"#,
    ];
    assert_eq!(log.last().body(), &expected.concat());

    for (extra, named) in [
        (r#"{"/AuthParameters": {"a": 1}}"#, "/AuthParameters"),
        (r#"{"AuthParameters": "a"}"#, "AuthParameters"),
        (r#"{"AuthFlow": "a", "/AuthFlow": "b"}"#, "/AuthFlow"),
        (r#"{"/AuthParameters/REFRESH_TOKEN/x": "a"}"#, "/AuthParameters/REFRESH_TOKEN"),
    ] {
        let (endpoint, log) = in_dialect(
            &format!(
                r#"{{"body": "json", "parameter_names": {{"refresh_token": "/AuthParameters/REFRESH_TOKEN"}}, "extra_parameters": {extra}}}"#
            ),
            [],
        );
        let outcome = RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await;
        assert_refused(outcome, &log, named);
    }
}

#[tokio::test]
async fn form_body_with_a_content_type_of_its_own() {
    let content_type = "application/x-www-form-urlencoded; charset=utf-8";
    let (endpoint, log) =
        in_dialect(&format!(r#"{{"content_type": "{content_type}"}}"#), [json(KEPT)]);
    RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await.unwrap();
    assert_eq!(log.last().headers()[CONTENT_TYPE], content_type);
    assert_eq!(log.last().body(), "grant_type=refresh_token&refresh_token=r");
}

/// Fault B08: Shopee.
#[tokio::test]
async fn json_parameters_have_the_types_of_the_dialect() {
    let (endpoint, log) = in_dialect(
        r#"{
            "body": "json",
            "grant_types": {"refresh_token": ""},
            "parameter_names": {"client_id": "partner_id"},
            "parameter_types": {
                "client_id": "number", "shop_id": "number", "timestamp": "number", "is_main": "boolean",
                "scope": "array", "resource": "array", "filter": "json", "name": "string"
            },
            "extra_parameters": {"version": 2, "ratio": 1.5, "flags": [true, null], "more": {"a": "b"}, "is_main": "false"}
        }"#,
        [json(KEPT)],
    );
    RefreshTokenGrant::new(endpoint.client_auth(ClientAuth::public("1001")), "r")
        .scope("one two")
        .resource("https://a.example/")
        .param("shop_id", "123456789012345678901234567890")
        .param("filter", r#"{"deep": [1]}"#)
        .param("name", "17")
        .params_with(|_| async { Ok([("timestamp", "1700000000")]) })
        .fetch(missing())
        .await
        .unwrap();
    assert_eq!(
        log.last().body(),
        &[
            r#"{"refresh_token":"r","scope":["one","two"],"resource":["https://a.example/"],"#,
            r#""shop_id":123456789012345678901234567890,"filter":{"deep": [1]},"name":"17","#,
            r#""timestamp":1700000000,"partner_id":1001,"#,
            r#""flags":[true,null],"is_main":false,"more":{"a":"b"},"ratio":1.5,"version":2}"#,
        ]
        .concat()
    );
}

/// Fault B08.
#[tokio::test]
async fn json_parameter_that_is_not_of_its_type_is_not_sent() {
    for (kind, value) in [
        ("number", "sesame"),
        ("number", "1 "),
        ("number", "0x5e5a"),
        ("boolean", "sesame"),
        ("json", "{sesame}"),
    ] {
        let (endpoint, log) = in_dialect(
            &format!(r#"{{"body": "json", "parameter_types": {{"shop_id": "{kind}"}}}}"#),
            [],
        );
        let grant = RefreshTokenGrant::new(endpoint, "r").param("shop_id", value);
        let shown = assert_refused(grant.fetch(missing()).await, &log, "shop_id");
        assert!(!shown.contains("sesame") && !shown.contains("5e5a"), "{shown}");
    }
}

// ===== The previous set =====

/// Fault B09: ASP.NET Core.
#[tokio::test]
async fn parameter_from_the_previous_token_set() {
    let answer = json(r#"{"accessToken":"a2","refreshToken":"r2"}"#);
    let (endpoint, log) = in_dialect(
        r#"{
            "body": "json",
            "grant_types": {"refresh_token": ""},
            "parameter_names": {"refresh_token": "refreshToken"},
            "parameters_from_previous": {"accessToken": "access_token"},
            "fields": {"access_token": "/accessToken", "refresh_token": "/refreshToken"}
        }"#,
        [answer, answer_of(2)],
    );
    let grant = RefreshTokenGrant::new(endpoint, "");
    let previous = TokenSet::bearer("a1").unwrap().with_refresh_token("r1");
    let tokens = grant.fetch(after(&previous)).await.unwrap();
    grant.fetch(after(&tokens)).await.unwrap();
    assert_eq!(
        log.bodies(),
        [
            r#"{"refreshToken":"r1","accessToken":"a1"}"#,
            r#"{"refreshToken":"r2","accessToken":"a2"}"#
        ]
    );
}

fn answer_of(n: u32) -> Reply {
    json(&format!(r#"{{"accessToken":"a{n}","refreshToken":"r{n}"}}"#))
}

/// Fault B09.
#[tokio::test]
async fn every_part_of_the_previous_set_can_be_a_parameter() {
    let (endpoint, log) = in_dialect(
        r#"{
            "parameters_from_previous": {
                "a": "access_token", "i": "id_token", "r": "refresh_token", "s": "scope",
                "x": "device", "y": "/d/e"
            },
            "fields": {"extra": {"device": "/device", "deep": "/d/e"}}
        }"#,
        [json(KEPT), json(KEPT)],
    );
    let grant = RefreshTokenGrant::new(endpoint, "r1");
    let previous = TokenSet::bearer("a1")
        .unwrap()
        .with_id_token("i1")
        .with_scope("s1 s2")
        .with_extra("device", "d1")
        .with_extra("deep", "e1");
    grant.fetch(after(&previous).with_refresh_token("r1")).await.unwrap();
    // Fields that the previous set does not have are omitted.
    let bare = TokenSet::bearer("a1").unwrap();
    grant.fetch(after(&bare).with_refresh_token("r1")).await.unwrap();
    let first = "grant_type=refresh_token&refresh_token=r1&a=a1";
    assert_eq!(
        log.bodies(),
        [format!("{first}&i=i1&r=r1&s=s1+s2&x=d1&y=e1"), format!("{first}&r=r1")]
    );
}

/// Fault B09.
#[tokio::test]
async fn without_a_previous_access_token_nothing_is_sent() {
    let (endpoint, log) = in_dialect(
        r#"{"parameters_from_previous": {"accessToken": "access_token"}}"#,
        [json(KEPT)],
    );
    let outcome = RefreshTokenGrant::new(endpoint.clone(), "r").fetch(missing()).await;
    assert_refused(outcome, &log, "accessToken");
    // Another grant logs in, and has no previous set to send.
    Grant::new(endpoint, "password").param("password", "p").fetch(missing()).await.unwrap();
    assert_eq!(log.bodies(), ["grant_type=password&password=p"]);
}

/// Fault B09: under any name.
#[tokio::test]
async fn parameter_from_the_previous_set_counts_as_a_secret() {
    let from_previous = r#""parameters_from_previous": {"audience": "access_token"}"#;
    let previous = TokenSet::bearer("sesame-open-one").unwrap().with_refresh_token("r");

    let (endpoint, log) = in_dialect(&format!(r#"{{"body": "query", {from_previous}}}"#), []);
    let outcome = RefreshTokenGrant::new(endpoint, "").fetch(after(&previous)).await;
    assert_refused(outcome, &log, "allow_secrets_in_query");

    let quoting = r#"{"error":"invalid_grant","error_description":"bad sesame-open-one"}"#;
    let (endpoint, _) = in_dialect(&format!("{{{from_previous}}}"), [answer(400, quoting)]);
    let error = RefreshTokenGrant::new(endpoint, "").fetch(after(&previous)).await.unwrap_err();
    assert_eq!(error.description(), Some("bad ***"));
}

// ===== Extra fields =====

const SALESFORCE: &str = r#"{"fields": {"extra": ["instance_url", "issued_at", "flags", "id"]}}"#;

/// Fault C22: Salesforce.
#[tokio::test]
async fn extra_fields_of_an_answer_are_kept_over_a_refresh() {
    let (endpoint, _) = in_dialect(
        SALESFORCE,
        [
            json(
                r#"{"access_token":"a","instance_url":"https://eu7.example.com","issued_at":1700000000,"flags":["x"],"other":"y"}"#,
            ),
            json(r#"{"access_token":"b","issued_at":null,"flags":""}"#),
            json(r#"{"access_token":"c","instance_url":"https://eu8.example.com"}"#),
        ],
    );
    let grant = RefreshTokenGrant::new(endpoint, "r");
    let first = grant.fetch(missing()).await.unwrap();
    assert!(!format!("{first:?}").contains("eu7"), "{first:?}");
    let second = grant.fetch(after(&first)).await.unwrap();
    let third = grant.fetch(after(&second)).await.unwrap();
    for (tokens, url) in [(first, "eu7"), (second, "eu7"), (third, "eu8")] {
        let url = format!("https://{url}.example.com");
        assert_eq!(tokens.extra("instance_url"), Some(&*url));
        assert_eq!(tokens.extra("issued_at"), Some("1700000000"));
        assert_eq!(tokens.extra("flags"), Some(r#"["x"]"#));
        assert_eq!((tokens.extra("id"), tokens.extra("other")), (None, None));
    }
}

/// Fault C22.
#[tokio::test]
async fn extra_field_that_is_too_long_is_left_out() {
    let body = |length| json(&format!(r#"{{"access_token":"a","id":"{}"}}"#, "x".repeat(length)));
    let (endpoint, _) = in_dialect(SALESFORCE, [body(8 * 1024), body(8 * 1024 + 1)]);
    for kept in [true, false] {
        let tokens = RefreshTokenGrant::new(endpoint.clone(), "r").fetch(missing()).await.unwrap();
        assert_eq!(tokens.extra("id").is_some(), kept);
    }
}

/// Fault C22.
#[cfg(feature = "store")]
#[tokio::test]
async fn extra_fields_are_kept_in_a_store() {
    use tower_refresh::store::MemoryStore;

    let url = r#"{"access_token":"a","refresh_token":"r2","expires_in":3600,"instance_url":"https://eu7.example.com"}"#;
    let renewed = r#"{"access_token":"b","refresh_token":"r3","expires_in":3600}"#;
    let (endpoint, log) = in_dialect(SALESFORCE, [json(url), json(renewed)]);
    let store = MemoryStore::new();
    let start = || {
        let grant = RefreshTokenGrant::new(endpoint.clone(), "r");
        Credentials::builder(grant).store(store.clone()).build()
    };
    start().tokens().await.unwrap();
    // As after a restart.
    let credentials = start();
    let stored = credentials.tokens().await.unwrap();
    assert_eq!(log.len(), 1);
    let renewed = credentials.refresh().await.unwrap();
    for (tokens, token) in [(stored, "a"), (renewed, "b")] {
        assert_eq!(tokens.access_token().expose_secret(), token);
        assert_eq!(tokens.extra("instance_url"), Some("https://eu7.example.com"));
    }
}

// ===== Parameters from a closure =====

/// Fault B13: Microsoft Entra, with the code of the documentation.
#[tokio::test]
async fn claims_of_the_challenge_are_sent_with_the_refresh() {
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}"#;
    let mut headers = HeaderMap::new();
    let challenge = format!(
        r#"Bearer realm="", error="insufficient_claims", claims="{}""#,
        STANDARD.encode(claims)
    );
    headers.insert(WWW_AUTHENTICATE, HeaderValue::try_from(challenge).unwrap());
    let challenge = Challenge::parse(&headers).remove(0);

    let more = |renewal: Renewal| async move {
        let claims = renewal.challenge().and_then(|challenge| challenge.param("claims"));
        let claims = claims.map(|claims| STANDARD.decode(claims).unwrap());
        Ok(claims.map(|claims| ("claims", String::from_utf8(claims).unwrap())))
    };
    let (endpoint, log) = in_dialect("{}", [json(KEPT), json(KEPT), json(KEPT), json(KEPT)]);
    let encoded: String = form_urlencoded(claims);
    let rejected = Renewal::new(Cause::Rejected).with_challenge(challenge);
    let refresh = RefreshTokenGrant::new(endpoint.clone(), "r").params_with(more);
    refresh.fetch(rejected.clone()).await.unwrap();
    refresh.fetch(missing()).await.unwrap();
    let for_itself = ClientCredentialsGrant::new(endpoint.clone()).params_with(more);
    for_itself.fetch(rejected.clone()).await.unwrap();
    let any = Grant::new(endpoint, "urn:example:any").params_with(more);
    any.fetch(rejected).await.unwrap();
    let first = "grant_type=refresh_token&refresh_token=r";
    assert_eq!(
        log.bodies(),
        [
            format!("{first}&claims={encoded}"),
            first.to_owned(),
            format!("grant_type=client_credentials&claims={encoded}"),
            format!("grant_type=urn%3Aexample%3Aany&claims={encoded}"),
        ]
    );
}

fn form_urlencoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Fault B13.
#[tokio::test]
async fn closure_sees_the_previous_token_set() {
    let (endpoint, log) = in_dialect("{}", [json(KEPT)]);
    let grant = RefreshTokenGrant::new(endpoint, "").params_with(|renewal: Renewal| async move {
        let previous = renewal.previous().and_then(TokenSet::id_token).map(str::to_owned);
        Ok(previous.map(|id_token| ("id_token_hint", id_token)))
    });
    let previous = TokenSet::bearer("a").unwrap().with_refresh_token("r").with_id_token("i");
    grant.fetch(after(&previous)).await.unwrap();
    assert_eq!(log.bodies(), ["grant_type=refresh_token&refresh_token=r&id_token_hint=i"]);
}

/// Fault B13.
#[tokio::test]
async fn closure_cannot_replace_the_refresh_token() {
    let renamed = r#"{"parameter_names": {"refresh_token": "refreshToken"}}"#;
    for (json_dialect, name) in [
        ("{}", "refresh_token"),
        (renamed, "refresh_token"),
        (renamed, "refreshToken"),
        (r#"{"body": "json"}"#, "refresh_token"),
    ] {
        let (endpoint, log) = in_dialect(json_dialect, []);
        let grant = RefreshTokenGrant::new(endpoint.clone(), "r")
            .params_with(move |_| async move { Ok([(name, "sesame")]) });
        let sent_as = if json_dialect == renamed { "refreshToken" } else { "refresh_token" };
        let shown = assert_refused(grant.fetch(missing()).await, &log, sent_as);
        assert!(!shown.contains("sesame"), "{shown}");
        let grant = RefreshTokenGrant::new(endpoint, "r").param(name, "sesame");
        assert_refused(grant.fetch(missing()).await, &log, sent_as);
    }
}

/// Fault B13: each name under which the refresh token can be given.
#[tokio::test]
async fn refresh_token_by_the_servers_name_may_be_spent() {
    let renamed = r#"{"parameter_names": {"refresh_token": "refreshToken"}}"#;
    for name in ["refresh_token", "refreshToken"] {
        let (endpoint, log) = in_dialect(renamed, [answer(502, "")]);
        let grant = Grant::new(endpoint, "refresh_token")
            .params_with(move |_| async move { Ok([(name, "sesame")]) });
        let error = grant.fetch(missing()).await.unwrap_err();
        assert_eq!(log.bodies(), ["grant_type=refresh_token&refreshToken=sesame"]);
        assert!(error.is_ambiguous(), "{name}: {error}");
    }
}

// ===== Plaintext =====

fn unused(
    _: Request<Full<Bytes>>,
) -> std::future::Ready<Result<Response<Full<Bytes>>, Infallible>> {
    std::future::ready(Ok(Response::default()))
}

/// Fault B11.
#[tokio::test]
async fn plaintext_needs_the_explicit_word() {
    let client = tower::service_fn(unused);
    let url = "http://10.0.0.5/token";
    let error = TokenEndpoint::new(client, url).unwrap_err();
    assert!(error.is_misconfigured());
    assert!(error.to_string().contains("`TokenEndpoint::new_plaintext`"), "{error}");

    let endpoint = TokenEndpoint::new_plaintext(client, url).unwrap();
    // Only where it was named.
    assert!(endpoint.clone().with_url("http://10.0.0.5/revoke").is_ok());
    assert!(endpoint.clone().with_url("https://as.example.com/revoke").is_ok());
    for other in ["http://10.0.0.6/revoke", "http://10.0.0.5:8080/revoke"] {
        assert!(endpoint.clone().with_url(other).unwrap_err().is_misconfigured(), "{other}");
    }
    let encrypted = TokenEndpoint::new_plaintext(client, "https://as.example.com/token").unwrap();
    assert!(encrypted.with_url("http://as.example.com/token").unwrap_err().is_misconfigured());
    for bad in ["http://user@10.0.0.5/token", "http://10.0.0.5/token#a", "ftp://10.0.0.5/token"] {
        assert!(TokenEndpoint::new_plaintext(client, bad).unwrap_err().is_misconfigured(), "{bad}");
    }
}

/// Fault B11.
#[tokio::test]
async fn plaintext_endpoint_is_asked_if_it_is_allowed() {
    let client = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        assert_eq!(request.uri(), "http://10.0.0.5/token");
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(KEPT)))
    });
    let endpoint = TokenEndpoint::new_plaintext(client, "http://10.0.0.5/token").unwrap();
    RefreshTokenGrant::new(endpoint, "r").fetch(missing()).await.unwrap();
}

// ===== Characters =====

const INVISIBLE: [&str; 8] = [
    "sesame\n",
    "sesame\r\n",
    "\tsesame",
    "ses\0ame",
    "\u{feff}sesame",
    "sesame\u{a0}",
    // Characters around text that was copied from a chat or a web page.
    "\u{2068}sesame\u{2069}",
    "ses\u{ad}ame",
];

/// Fault B10.
#[tokio::test]
async fn refresh_token_with_a_line_break_is_not_sent() {
    for bad in INVISIBLE {
        let (endpoint, log) = in_dialect("{}", []);
        let shown = [
            assert_refused(
                RefreshTokenGrant::new(endpoint.clone(), bad).fetch(missing()).await,
                &log,
                "refresh_token",
            ),
            // From a log-in, a store, or a source.
            assert_refused(
                RefreshTokenGrant::new(endpoint.clone(), "r")
                    .fetch(after(&TokenSet::bearer("a").unwrap().with_refresh_token(bad)))
                    .await,
                &log,
                "refresh_token",
            ),
            assert_refused(
                Grant::new(endpoint.clone(), "refresh_token")
                    .params_with(move |_| async move { Ok([("refresh_token", bad)]) })
                    .fetch(missing())
                    .await,
                &log,
                "refresh_token",
            ),
            assert_refused(
                Revocation::new(endpoint)
                    .revoke(&TokenSet::bearer("a").unwrap().with_refresh_token(bad))
                    .await,
                &Log::default(),
                "token",
            ),
        ]
        .concat();
        assert!(!shown.contains("ses"), "{shown}");
    }
}

/// Fault B10.
#[tokio::test]
async fn log_in_reports_a_refresh_token_with_a_line_break() {
    for bad in INVISIBLE {
        let (endpoint, log) = in_dialect("{}", []);
        let credentials = Credentials::new(RefreshTokenGrant::new(endpoint, "r"));
        let brought = TokenSet::bearer("a").unwrap().with_refresh_token(bad);
        assert_refused(credentials.log_in(brought).await, &log, "refresh_token");
        assert_refused(credentials.refresh().await, &log, "refresh_token");
    }
}

/// Fault B10: the token does not count as sent.
#[cfg(feature = "store")]
#[tokio::test]
async fn corrected_refresh_token_is_sent_from_a_store() {
    use tower_refresh::store::MemoryStore;

    let (endpoint, log) = in_dialect("{}", [json(KEPT)]);
    let store = MemoryStore::new();
    let start = |token: &str| {
        let grant = RefreshTokenGrant::new(endpoint.clone(), token);
        Credentials::builder(grant).store(store.clone()).build()
    };
    assert_refused(start("first\n").tokens().await, &log, "refresh_token");
    start("first").tokens().await.unwrap();
    assert_eq!(log.bodies(), ["grant_type=refresh_token&refresh_token=first"]);
}

/// Fault B10.
#[tokio::test]
async fn client_credentials_with_a_line_break_are_not_sent() {
    for bad in INVISIBLE {
        for (auth, field) in [
            (ClientAuth::basic(bad, "s"), "client_id"),
            (ClientAuth::basic("me", bad), "client_secret"),
            (ClientAuth::basic_unencoded(bad, "s"), "client_id"),
            (ClientAuth::basic_unencoded("me", bad), "client_secret"),
            (ClientAuth::post(bad, "s"), "client_id"),
            (ClientAuth::post("me", bad), "client_secret"),
            (ClientAuth::public(bad), "client_id"),
            (custom("client_id", bad), "client_id"),
            (custom("client_secret", bad), "client_secret"),
            (custom("client_assertion", bad), "client_assertion"),
        ] {
            let (endpoint, log) = in_dialect("{}", []);
            let grant = RefreshTokenGrant::new(endpoint.client_auth(auth), "r");
            let shown = assert_refused(grant.fetch(missing()).await, &log, field);
            assert!(!shown.contains("ses"), "{shown}");
        }
    }
}

fn custom(name: &'static str, value: &'static str) -> ClientAuth {
    ClientAuth::custom(move || async move { Ok(AuthParams::new().param(name, value)) })
}

/// Fault B10: in each kind of body, and under the names of the server.
#[tokio::test]
async fn parameter_with_a_line_break_is_not_sent() {
    for json_dialect in [
        "{}",
        r#"{"body": "json"}"#,
        r#"{"method": "GET", "allow_secrets_in_query": true}"#,
        r#"{"parameter_names": {"client_secret": "secret", "code": "js_code"}}"#,
    ] {
        for (name, field) in [
            ("client_secret", "client_secret"),
            ("code", "code"),
            ("scope", "scope"),
            ("password", "password"),
        ] {
            let (endpoint, log) = in_dialect(json_dialect, []);
            let grant = Grant::new(endpoint, "password").param(name, "sesame\n");
            assert_refused(grant.fetch(missing()).await, &log, field);
        }
    }
    let (endpoint, log) = in_dialect(r#"{"parameter_names": {"client_secret": "secret"}}"#, []);
    let grant = Grant::new(endpoint, "password").param("secret", "sesame\n");
    assert_refused(grant.fetch(missing()).await, &log, "client_secret");
}

/// Other parameters may contain anything, and so may a secret that is visible.
#[tokio::test]
async fn visible_characters_and_private_parameters_are_sent_unchanged() {
    let (endpoint, log) = in_dialect(r#"{"body": "json"}"#, [json(KEPT)]);
    Grant::new(endpoint.client_auth(ClientAuth::post("m e", " ü\"\\ ")), "x")
        .param("key", "-----BEGIN\n\u{1}\n")
        .fetch(missing())
        .await
        .unwrap();
    let body = r#"{"grant_type":"x","key":"-----BEGIN\n\u0001\n","client_id":"m e","client_secret":" ü\"\\ "}"#;
    assert_eq!(log.last().body(), body);
}
