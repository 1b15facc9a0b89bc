//! The normal answers of the token endpoint (RFC 6749 §3.2) and the revocation endpoint (RFC 7009).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::client::Unauthenticated;
use super::form::Form;
use super::shared::{Counted, Shared};
use super::tokens::{Denied, Granted};

/// A request to one of the endpoints, not yet processed.
pub(super) struct TokenRequest {
    head: Parts,
    form: Result<Form, &'static str>,
}

impl TokenRequest {
    /// Parses a request. `body` is `None` if it could not be read.
    pub(super) fn read(head: Parts, body: Option<&Bytes>) -> Self {
        let form = Form::read(&head, body);
        Self { head, form }
    }

    /// Returns the counter of the grant.
    pub(super) fn grant(&self) -> Counted {
        match self.grant_type() {
            Some("refresh_token") => |counters| &mut counters.refresh_token_requests,
            Some("client_credentials") => |counters| &mut counters.client_credentials_requests,
            Some("password") => |counters| &mut counters.password_requests,
            Some(TOKEN_EXCHANGE) => |counters| &mut counters.token_exchange_requests,
            Some(JWT_BEARER) => |counters| &mut counters.jwt_bearer_requests,
            _ => |counters| &mut counters.other_grant_requests,
        }
    }

    fn grant_type(&self) -> Option<&str> {
        self.form.as_ref().ok()?.get("grant_type").map(String::as_str)
    }

    /// Answers as the token endpoint.
    pub(super) fn process(&self, shared: &Shared) -> Response<Bytes> {
        match self.tokens(shared) {
            Ok(granted) => {
                granted_response(shared, granted, self.grant_type() == Some(TOKEN_EXCHANGE))
            }
            Err(refusal) => {
                *shared.lock().counters.refusals.entry(refusal.code).or_default() += 1;
                refusal.into_response()
            }
        }
    }

    fn tokens(&self, shared: &Shared) -> Result<Granted, Refusal> {
        let form = self.authenticated(shared)?;
        let scope = form.get("scope").map(String::as_str);
        let now = shared.now();
        match self.grant_type() {
            Some("refresh_token") => {
                let token = form
                    .get("refresh_token")
                    .ok_or(Refusal::request("refresh_token is missing"))?;
                Ok(shared.lock().tokens.refresh(now, token, scope)?)
            }
            Some("client_credentials") => {
                if !shared.config.client.may_act_for_itself() {
                    let why = "a public client has no client credentials";
                    return Err(Refusal::bad("unauthorized_client", why));
                }
                Ok(shared.lock().tokens.for_client(now, scope)?)
            }
            Some("password") => {
                let (Some(name), Some(password)) = (form.get("username"), form.get("password"))
                else {
                    return Err(Refusal::request("username or password is missing"));
                };
                let known = |(user, word): &(String, String)| user == name && word == password;
                if !shared.config.users.iter().any(known) {
                    let why = "unknown user or wrong password";
                    return Err(Refusal::bad("invalid_grant", why));
                }
                Ok(shared.lock().tokens.log_in_for(now, scope)?)
            }
            Some(TOKEN_EXCHANGE) => exchange(form, shared),
            Some(JWT_BEARER) => on_behalf_of(form, shared),
            Some(_) => Err(Refusal::bad(
                "unsupported_grant_type",
                "the server supports refresh_token, client_credentials, password, token exchange and jwt-bearer",
            )),
            None => Err(Refusal::request("grant_type is missing")),
        }
    }

    /// Answers as the revocation endpoint.
    pub(super) fn revoke(&self, shared: &Shared) -> Response<Bytes> {
        shared.lock().counters.revocation_requests += 1;
        let token = self
            .authenticated(shared)
            .and_then(|form| form.get("token").ok_or(Refusal::request("token is missing")));
        match token {
            Ok(token) => {
                let tokens = &mut shared.lock().tokens;
                // The hint may be ignored (RFC 7009 §2.1).
                if !tokens.revoke_refresh_token(token) {
                    tokens.revoke_access_token(token);
                }
                // An unknown token is no error (RFC 7009 §2.2).
                Response::new(Bytes::new())
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    fn authenticated(&self, shared: &Shared) -> Result<&Form, Refusal> {
        if self.head.method != Method::POST {
            return Err(Refusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..Refusal::request("the method must be POST")
            });
        }
        let form = self.form.as_ref().map_err(|why| Refusal::request(why))?;
        shared.config.client.authenticate(&self.head.headers, form)?;
        Ok(form)
    }
}

/// Exchanges an access token of this server (RFC 8693 §2).
fn exchange(form: &Form, shared: &Shared) -> Result<Granted, Refusal> {
    let subject =
        access_token(form, "subject_token")?.ok_or(Refusal::request("subject_token is missing"))?;
    if form.get("requested_token_type").is_some_and(|requested| requested != ACCESS_TOKEN) {
        return Err(Refusal::request("requested_token_type must be that of an access token"));
    }
    let now = shared.now();
    let tokens = &mut shared.lock().tokens;
    if let Some(actor) = access_token(form, "actor_token")?
        && tokens.live(now, actor).is_none()
    {
        return Err(Refusal::request("the actor token is not accepted"));
    }
    let audience = form.words(&["audience", "resource"]);
    let granted = tokens.exchange(now, subject, audience, form.get("scope").map(String::as_str));
    // RFC 8693 §2.2.2
    granted.map_err(|denied| Refusal::of_proof(denied, "invalid_request"))
}

/// Accepts an access token of this server as an assertion, as Microsoft Entra ID does. One that the client has signed is unknown.
fn on_behalf_of(form: &Form, shared: &Shared) -> Result<Granted, Refusal> {
    let assertion = form.get("assertion").ok_or(Refusal::request("assertion is missing"))?;
    if form.get("requested_token_use").is_none_or(|requested| requested != "on_behalf_of") {
        return Err(Refusal::request("requested_token_use must be on_behalf_of"));
    }
    let audience = form.words(&["resource"]);
    let now = shared.now();
    let granted = shared.lock().tokens.exchange(
        now,
        assertion,
        audience,
        form.get("scope").map(String::as_str),
    );
    // RFC 7523 §3.1
    granted.map_err(|denied| Refusal::of_proof(denied, "invalid_grant"))
}

/// Returns a token, whose type must be that of an access token.
fn access_token<'a>(form: &'a Form, name: &str) -> Result<Option<&'a String>, Refusal> {
    match (form.get(name), form.get(&format!("{name}_type"))) {
        (None, None) => Ok(None),
        (Some(token), Some(token_type)) if token_type == ACCESS_TOKEN => Ok(Some(token)),
        _ => Err(Refusal::request("a token has no type, or not that of an access token")),
    }
}

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// An error response (RFC 6749 §5.2).
struct Refusal {
    status: StatusCode,
    code: &'static str,
    description: &'static str,
}

impl Refusal {
    fn request(description: &'static str) -> Self {
        Self::bad("invalid_request", description)
    }

    fn bad(code: &'static str, description: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, description }
    }

    /// Refuses the access token that a client acts with on behalf of its user.
    fn of_proof(denied: Denied, code: &'static str) -> Self {
        match denied {
            Denied::Expired => Self::bad(code, "the access token is expired"),
            Denied::Revoked => Self::bad(code, "the access token is revoked"),
            Denied::Unknown | Denied::Reused => Self::bad(code, "the access token is unknown"),
            Denied::Scope => denied.into(),
        }
    }

    fn into_response(self) -> Response<Bytes> {
        let body = json!({ "error": self.code, "error_description": self.description });
        let mut response = response(self.status, &body);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static(r#"Basic realm="token endpoint""#);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            _ => {}
        }
        response
    }
}

impl From<Unauthenticated> for Refusal {
    fn from(error: Unauthenticated) -> Self {
        match error {
            Unauthenticated::Invalid(why) => {
                Self { status: StatusCode::UNAUTHORIZED, ..Self::bad("invalid_client", why) }
            }
            Unauthenticated::Twice => Self::request("client authentication is given twice"),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let (code, why) = match denied {
            Denied::Unknown => ("invalid_grant", "the refresh token is unknown"),
            Denied::Expired => ("invalid_grant", "the refresh token is expired"),
            Denied::Revoked => ("invalid_grant", "the refresh token is revoked"),
            Denied::Reused => {
                ("invalid_grant", "the refresh token was spent before, and its family is revoked")
            }
            Denied::Scope => ("invalid_scope", "the scope exceeds the granted scope"),
        };
        Self::bad(code, why)
    }
}

/// A successful response (RFC 6749 §5.1, RFC 8693 §2.2.1).
fn granted_response(shared: &Shared, granted: Granted, is_exchange: bool) -> Response<Bytes> {
    let rules = &shared.config.rules;
    let mut body = json!({
        "access_token": granted.access_token,
        "token_type": "Bearer",
        "expires_in": seconds(rules.access_token_lifetime),
    });
    if let Some(token) = granted.refresh_token {
        body["refresh_token"] = token.into();
        if let Some(lifetime) = rules.refresh_token_lifetime {
            body["refresh_token_expires_in"] = seconds(lifetime);
        }
    }
    if let Some(scope) = granted.scope {
        body["scope"] = scope.into();
    }
    if is_exchange {
        body["issued_token_type"] = ACCESS_TOKEN.into();
    }
    response(StatusCode::OK, &body)
}

fn seconds(lifetime: std::time::Duration) -> Value {
    match lifetime.subsec_nanos() {
        0 => lifetime.as_secs().into(),
        _ => lifetime.as_secs_f64().into(),
    }
}

fn response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
