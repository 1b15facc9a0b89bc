//! The bytes of token requests, and how documented responses are read.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower_refresh::oauth2::{
    AuthParams, BodyFormat, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant,
    RequestMethod, Revocation, TokenEndpoint,
};
use tower_refresh::{Cause, Renewal, TokenSet, TokenSource};

use crate::scripted::{Manual, START, START_DATE};

/// A server on loopback that answers the request of each connection with the next of these bytes.
struct Server {
    url: String,
    host: String,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(path: &str, answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_complete(&request) {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                sender.send(String::from_utf8(request).unwrap()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url: format!("http://{host}{path}"), host, requests }
    }

    fn endpoint(&self) -> TokenEndpoint {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        TokenEndpoint::new(client, &self.url).unwrap().clock(Manual::new())
    }

    /// Returns the next request, with the address of the server replaced by `<host>`.
    async fn request(&mut self) -> String {
        let request = self.requests.recv().await.unwrap();
        request.replace(&self.host, "<host>")
    }
}

fn is_complete(request: &[u8]) -> bool {
    let Ok(request) = std::str::from_utf8(request) else {
        return false;
    };
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

fn ok(body: &str) -> String {
    with_status("200 OK", body)
}

fn with_status(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ndate: {START_DATE}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

fn lines(lines: &[&str]) -> String {
    lines.join("\r\n")
}

fn jwe() -> String {
    // Five parts, 3,352 characters.
    let part = "A".repeat(836);
    format!("eyJh.{part}.{part}.{part}.{}", "A".repeat(836))
}

#[tokio::test]
async fn endpoint_a_credentials_in_the_form_body() {
    let answer =
        r#"{"access_token":"at","token_type":"Bearer","expires_in":600,"refresh_token":"rt2"}"#;
    let mut server = Server::start("/connect/token", vec![ok(answer)]).await;
    let endpoint = server.endpoint().client_auth(ClientAuth::post("compass", "s3cr3t&+ %"));
    let tokens = RefreshTokenGrant::new(endpoint, jwe()).fetch(missing()).await.unwrap();

    let body = format!(
        "grant_type=refresh_token&refresh_token={}&client_id=compass&client_secret=s3cr3t%26%2B+%25",
        jwe()
    );
    assert_eq!(
        server.request().await,
        lines(&[
            "POST /connect/token HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "content-type: application/x-www-form-urlencoded",
            "host: <host>",
            &format!("content-length: {}", body.len()),
            "",
            &body,
        ])
    );
    assert_eq!(tokens.access_token().expose_secret(), "at");
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "rt2");
    assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(Duration::from_secs(600)));
}

#[tokio::test]
async fn endpoint_b_camel_case_and_absolute_expiry() {
    // The claims of the JWTs differ from the fields.
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln";
    let answer = format!(
        r#"{{"access_token": "{jwt}", "refresh_token": "{jwt}",
 "accessTokenExpiresAt": "2022-11-01T13:43:43.7826152Z", "refreshTokenExpiresAt": "2022-11-02T13:13:43.7826277Z"}}"#
    );
    let mut server = Server::start("/api/oauth2/token", vec![ok(&answer), ok(&answer)]).await;
    let endpoint = server.endpoint().dialect(Dialect::camel_case());
    let tokens = RefreshTokenGrant::new(endpoint, "a.b.c").fetch(missing()).await.unwrap();

    assert_eq!(
        server.request().await,
        lines(&[
            "POST /api/oauth2/token HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "content-type: application/x-www-form-urlencoded",
            "host: <host>",
            "content-length: 41",
            "",
            "grantType=RefreshToken&refreshToken=a.b.c",
        ])
    );
    assert_eq!(tokens.access_token().expose_secret(), jwt);
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), jwt);
    assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(Duration::new(1800, 782_615_200)));
    assert_eq!(
        tokens.refresh_token_expires_at(),
        Some(UNIX_EPOCH + Duration::new(START + 86_400, 782_627_700))
    );

    // The spelling of the prose.
    let mut dialect = Dialect::camel_case();
    dialect.grant_types.insert("refresh_token".into(), "refreshToken".into());
    let endpoint = server.endpoint().dialect(dialect);
    RefreshTokenGrant::new(endpoint, "a.b.c").fetch(missing()).await.unwrap();
    let request = server.request().await;
    assert!(request.ends_with("\r\n\r\ngrantType=refreshToken&refreshToken=a.b.c"), "{request}");
}

#[tokio::test]
async fn endpoint_c_basic_client_authentication() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2Vsc2V3aGVyZS5leGFtcGxlIn0.c2ln";
    let answer = format!(
        r#"{{"access_token":"{jwt}","refresh_token":"opaque","scope":"apps email openid profile webhooks","id_token":"{jwt}","token_type":"Bearer","expires_in":86400}}"#
    );
    let mut server = Server::start("/oauth2/token", vec![ok(&answer), ok(&answer)]).await;
    let (id, secret) = ("my app", "p:w%d");
    let endpoint = server.endpoint().client_auth(ClientAuth::basic(id, secret));
    let tokens = RefreshTokenGrant::new(endpoint, "opaque").fetch(missing()).await.unwrap();

    assert_eq!(
        server.request().await,
        lines(&[
            "POST /oauth2/token HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "content-type: application/x-www-form-urlencoded",
            // my+app:p%3Aw%25d
            "authorization: Basic bXkrYXBwOnAlM0F3JTI1ZA==",
            "host: <host>",
            "content-length: 45",
            "",
            "grant_type=refresh_token&refresh_token=opaque",
        ])
    );
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "opaque");
    assert_eq!(tokens.scope(), Some("apps email openid profile webhooks"));
    assert_eq!(tokens.id_token(), Some(jwt));
    assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(Duration::from_secs(86_400)));

    // As the documentation has it.
    let endpoint = server.endpoint().client_auth(ClientAuth::basic_unencoded(id, secret));
    RefreshTokenGrant::new(endpoint, "opaque").fetch(missing()).await.unwrap();
    let request = server.request().await;
    // my app:p:w%d
    assert!(request.contains("authorization: Basic bXkgYXBwOnA6dyVk\r\n"), "{request}");
}

#[tokio::test]
async fn endpoint_d_json_body_without_a_grant_type() {
    let path = "/user-management-services-ws/oauth2/002/refreshIdToken";
    // Its `exp` lies in 1970.
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE2NjczMTB9.c2ln";
    let answer =
        format!(r#"{{"access_token":"{jwt}","refresh_token":"opaque2","scope":"openid"}}"#);
    let denied = r#"{"error": "access_denied", "error_description": "Invalid username / password combination"}"#;
    let mut server =
        Server::start(path, vec![ok(&answer), with_status("403 Forbidden", denied)]).await;
    let grant = RefreshTokenGrant::new(server.endpoint().dialect(Dialect::json_body()), "opaque");
    let tokens = grant.fetch(missing()).await.unwrap();

    assert_eq!(
        server.request().await,
        lines(&[
            "POST /user-management-services-ws/oauth2/002/refreshIdToken HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "content-type: application/json",
            "host: <host>",
            "content-length: 26",
            "",
            r#"{"refresh_token":"opaque"}"#,
        ])
    );
    assert_eq!(tokens.access_token().expose_secret(), jwt);
    assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(Duration::from_secs(3600)));

    let error = grant.fetch(missing().with_previous(tokens)).await.unwrap_err();
    assert!(error.is_denied());
    let request = server.request().await;
    assert!(request.ends_with(r#"{"refresh_token":"opaque2"}"#), "{request}");
}

#[tokio::test]
async fn scope_resources_and_parameters_come_after_the_grants_own() {
    let mut server = Server::start("/token", vec![ok(r#"{"access_token":"a"}"#)]).await;
    let endpoint = server.endpoint().client_auth(ClientAuth::public("me"));
    let tokens = ClientCredentialsGrant::new(endpoint)
        .scope("one two")
        .resource("https://a.example/")
        .resource("https://b.example/")
        .param("audience", "c")
        .fetch(missing())
        .await
        .unwrap();
    let request = server.request().await;
    assert!(
        request.ends_with(
            "\r\n\r\ngrant_type=client_credentials&scope=one+two\
             &resource=https%3A%2F%2Fa.example%2F&resource=https%3A%2F%2Fb.example%2F&audience=c&client_id=me"
        ),
        "{request}"
    );
    // RFC 6749 §5.1: the requested scope.
    assert_eq!(tokens.scope(), Some("one two"));
}

#[tokio::test]
async fn dialect_renames_and_adds_parameters_and_moves_refreshes() {
    let answer = ok(r#"{"access_token":"a"}"#);
    let mut server = Server::start("/v1/token?tenant=t", vec![answer.clone(), answer]).await;
    let dialect: Dialect = serde_json::from_str(
        r#"{
            "body": "json",
            "parameter_names": {"client_id": "client_key", "refresh_token": "refreshToken"},
            "extra_headers": {"x-api-version": "3", "accept": "*/*"},
            "extra_parameters": {"device": "d"},
            "refresh_path": "refresh"
        }"#,
    )
    .unwrap();
    let endpoint = server.endpoint().client_auth(ClientAuth::public("me")).dialect(dialect);
    let grant = RefreshTokenGrant::new(endpoint.clone(), "r").resource("x").resource("y");
    grant.fetch(missing()).await.unwrap();
    assert_eq!(
        server.request().await,
        lines(&[
            "POST /v1/refresh?tenant=t HTTP/1.1",
            "accept: */*",
            "accept-encoding: identity",
            "x-api-version: 3",
            "content-type: application/json",
            "host: <host>",
            "content-length: 101",
            "",
            r#"{"grant_type":"refresh_token","refreshToken":"r","resource":["x","y"],"client_key":"me","device":"d"}"#,
        ])
    );

    ClientCredentialsGrant::new(endpoint).fetch(missing()).await.unwrap();
    let request = server.request().await;
    assert!(request.starts_with("POST /v1/token?tenant=t HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn a_secret_goes_into_the_query_only_by_an_explicit_word() {
    let mut server = Server::start("/token?a=b", vec![ok(r#"{"access_token":"a"}"#)]).await;
    let mut dialect = Dialect::rfc6749();
    dialect.body = BodyFormat::Query;
    let grant = RefreshTokenGrant::new(server.endpoint().dialect(dialect.clone()), "r t");
    let error = grant.fetch(missing()).await.unwrap_err();
    assert!(error.is_misconfigured());
    assert!(error.to_string().contains("allow_secrets_in_query"), "{error}");

    dialect.allow_secrets_in_query = true;
    let grant = RefreshTokenGrant::new(server.endpoint().dialect(dialect), "r t");
    assert!(!format!("{grant:?}").contains("a=b"));
    grant.fetch(missing()).await.unwrap();
    assert_eq!(
        server.request().await,
        lines(&[
            "POST /token?a=b&grant_type=refresh_token&refresh_token=r+t HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "content-length: 0",
            "host: <host>",
            "",
            "",
        ])
    );
}

/// Fault B06.
#[tokio::test]
async fn get_request_has_neither_a_body_nor_a_length() {
    let mut server = Server::start("/token?a=b", vec![ok(r#"{"access_token":"a"}"#)]).await;
    let mut dialect = Dialect::rfc6749();
    dialect.method = RequestMethod::Get;
    dialect.allow_secrets_in_query = true;
    let grant = RefreshTokenGrant::new(server.endpoint().dialect(dialect), "r t");
    grant.fetch(missing()).await.unwrap();
    assert_eq!(
        server.request().await,
        lines(&[
            "GET /token?a=b&grant_type=refresh_token&refresh_token=r+t HTTP/1.1",
            "accept: application/json",
            "accept-encoding: identity",
            "host: <host>",
            "",
            "",
        ])
    );
}

#[tokio::test]
async fn a_parameter_is_never_sent_twice() {
    let server = Server::start("/token", vec![]).await;
    let mut dialect = Dialect::rfc6749();
    dialect.extra_parameters.insert("scope".into(), "x".into());
    let endpoint = server.endpoint().dialect(dialect);
    for error in [
        ClientCredentialsGrant::new(endpoint).scope("y").fetch(missing()).await,
        ClientCredentialsGrant::new(server.endpoint())
            .scope("y")
            .param("scope", "x")
            .fetch(missing())
            .await,
    ] {
        let error = error.unwrap_err();
        assert!(error.is_misconfigured());
        assert!(error.to_string().contains("`scope`"), "{error}");
    }
}

#[tokio::test]
async fn custom_authentication_is_computed_for_each_attempt() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static ASSERTION: AtomicUsize = AtomicUsize::new(0);

    let answer = ok(r#"{"access_token":"a"}"#);
    let mut server = Server::start("/token", vec![answer.clone(), answer]).await;
    let endpoint = server.endpoint().client_auth(ClientAuth::custom(|| async {
        let jti = ASSERTION.fetch_add(1, Ordering::Relaxed);
        Ok(AuthParams::new()
            .param("client_assertion", format!("jti-{jti}"))
            .header(http::HeaderName::from_static("x-key"), http::HeaderValue::from_static("k")))
    }));
    let grant = Grant::new(endpoint, "urn:ietf:params:oauth:grant-type:jwt-bearer").params_with(
        |renewal: Renewal| async move { Ok([("assertion", format!("{:?}", renewal.cause()))]) },
    );
    for (attempt, cause) in [Cause::Missing, Cause::Expired].into_iter().enumerate() {
        grant.fetch(Renewal::new(cause)).await.unwrap();
        let request = server.request().await;
        let expected = format!(
            "\r\n\r\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={cause:?}&client_assertion=jti-{attempt}"
        );
        assert!(request.ends_with(&expected), "{request}");
        assert!(request.contains("\r\nx-key: k\r\n"), "{request}");
    }

    let header = || async {
        Ok(AuthParams::new()
            .header(http::header::HOST, http::HeaderValue::from_static("elsewhere.example")))
    };
    let endpoint = server.endpoint().client_auth(ClientAuth::custom(header));
    let error = ClientCredentialsGrant::new(endpoint).fetch(missing()).await.unwrap_err();
    assert!(error.is_misconfigured());
}

#[tokio::test]
async fn log_out_revokes_the_refresh_token_and_then_the_access_token() {
    let unsupported = with_status("400 Bad Request", r#"{"error":"unsupported_token_type"}"#);
    let mut server = Server::start("/revoke", vec![with_status("200 OK", ""), unsupported]).await;
    let endpoint = server.endpoint().client_auth(ClientAuth::public("me"));
    let tokens = TokenSet::bearer("at").unwrap().with_refresh_token("rt");
    Revocation::new(endpoint).revoke(&tokens).await.unwrap();

    for expected in [
        "\r\n\r\ntoken=rt&token_type_hint=refresh_token&client_id=me",
        "\r\n\r\ntoken=at&token_type_hint=access_token&client_id=me",
    ] {
        let request = server.request().await;
        assert!(request.ends_with(expected), "{request}");
    }
}

#[tokio::test]
async fn failed_revocation_is_an_error_and_never_ambiguous() {
    for (first, second) in [("502 Bad Gateway", "200 OK"), ("200 OK", "503 Service Unavailable")] {
        let answers = vec![with_status(first, "<html>"), with_status(second, "")];
        let mut server = Server::start("/revoke", answers).await;
        let tokens = TokenSet::bearer("at").unwrap().with_refresh_token("rt");
        let error = Revocation::new(server.endpoint()).revoke(&tokens).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        // Both revocations were attempted.
        server.request().await;
        server.request().await;
    }
    // The parameter of a revocation has the name of the refresh token at this server.
    let server = Server::start("/revoke", vec![String::new(), String::new()]).await;
    let mut dialect = Dialect::rfc6749();
    dialect.parameter_names.insert("refresh_token".into(), "token".into());
    let tokens = TokenSet::bearer("at").unwrap().with_refresh_token("rt");
    let revocation = Revocation::new(server.endpoint().dialect(dialect));
    let error = revocation.revoke(&tokens).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_ambiguous() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"access_token\":\"a\""] {
        let server = Server::start("/token", vec![answer.to_owned()]).await;
        let error =
            RefreshTokenGrant::new(server.endpoint(), "r").fetch(missing()).await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
    }
}
