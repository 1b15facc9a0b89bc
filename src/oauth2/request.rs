//! From parameters to a request, in the words of a dialect.

use std::fmt;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::client_auth::Authentication;
use super::dialect::{BodyFormat, Dialect, is_reserved_header};
use super::scrub::Secrets;
use crate::error::TokenError;
use crate::token::Secret;

/// The parameters of a request, by the names that they have in the RFC.
#[derive(Clone, Default)]
pub(super) struct Parameters(Vec<Parameter>);

#[derive(Clone)]
struct Parameter {
    name: String,
    value: Secret,
}

impl Parameters {
    pub(super) fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(Parameter { name: name.into(), value: Secret::new(value) });
    }

    pub(super) fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|parameter| parameter.name == name).map(|parameter| parameter.value.expose())
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|parameter| &parameter.name)).finish()
    }
}

/// Makes the request, and says which secrets are in it.
pub(super) fn compose(
    dialect: &Dialect,
    url: &Uri,
    parameters: &Parameters,
    authentication: &Authentication,
) -> Result<(Request<Full<Bytes>>, Secrets), TokenError> {
    let mut secrets = authentication.secrets.clone();
    // The URL may have a key in it. What is shorter is none, and would be found in ordinary words.
    let query = form_urlencoded::parse(url.query().unwrap_or_default().as_bytes());
    for (_, value) in query.filter(|(_, value)| value.chars().count() >= 4) {
        secrets.add(&value);
    }
    let pairs = translate(dialect, parameters, &authentication.parameters, &mut secrets)?;

    let (url, content_type, body) = match dialect.body {
        BodyFormat::Form => (url.clone(), Some("application/x-www-form-urlencoded"), form(&pairs)),
        BodyFormat::Json => (url.clone(), Some("application/json"), json(&pairs)?),
        BodyFormat::Query => (with_query(url, &form(&pairs))?, None, Zeroizing::default()),
    };

    let mut request = Request::new(Full::new(Bytes::from_owner(Wiped(body))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &dialect.extra_headers {
        let name = HeaderName::try_from(name).map_err(TokenError::misconfigured)?;
        let value = HeaderValue::try_from(value).map_err(TokenError::misconfigured)?;
        headers.insert(name, value);
    }
    match content_type {
        Some(content_type) => headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type)),
        // RFC 9110 §8.6: a POST without a body says so, which hyper leaves to us.
        None => headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0")),
    };
    for name in authentication.headers.keys() {
        if is_reserved_header(name) {
            return Err(TokenError::misconfigured(format!(
                "client authentication cannot set the header `{name}`"
            )));
        }
        headers.remove(name);
        for value in authentication.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    Ok((request, secrets))
}

/// Resolves a path of the dialect against the URL of the endpoint (RFC 3986 §5.3); the host stays what it is.
pub(super) fn resolve(url: &Uri, path: &str) -> Result<Uri, TokenError> {
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        let base = url.path().rfind('/').and_then(|at| url.path().get(..=at));
        format!("{}{path}", base.unwrap_or("/"))
    };
    let path = match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    with_path(url, &path)
}

/// Puts all parameters into the words of the dialect, in the order in which they are sent.
fn translate<'a>(
    dialect: &'a Dialect,
    of_the_grant: &'a Parameters,
    of_the_client: &'a Parameters,
    secrets: &mut Secrets,
) -> Result<Vec<(&'a str, &'a str)>, TokenError> {
    let mut pairs = Vec::new();
    let mut add = |name: &'a str, value: &'a str| {
        // RFC 6749 §3.2: parameters must not be sent twice. RFC 8707 §2 and RFC 8693 §2.1 allow these two.
        let repeatable = ["resource", "audience"].map(|name| dialect.parameter_name(name));
        if pairs.iter().any(|(other, _)| *other == name) && !repeatable.contains(&name) {
            return Err(TokenError::misconfigured(format!(
                "the parameter `{name}` is set twice: look at the grant, the client authentication and the dialect's `extra_parameters`"
            )));
        }
        pairs.push((name, value));
        Ok(())
    };

    let mut exposed = None;
    let mut add_ours = |parameter: &'a Parameter| {
        let Parameter { name, value } = parameter;
        let value = match name.as_str() {
            "grant_type" => match dialect.grant_type(value.expose()) {
                Some(value) => value,
                None => return Ok(()),
            },
            _ => value.expose(),
        };
        if !is_public(name) {
            secrets.add(value);
            exposed = Some(name);
        }
        add(dialect.parameter_name(name), value)
    };
    for parameter in of_the_grant.0.iter().chain(&of_the_client.0) {
        add_ours(parameter)?;
    }
    for (name, value) in &dialect.extra_parameters {
        add(name, value)?;
    }

    match exposed {
        Some(name) if dialect.body == BodyFormat::Query && !dialect.allow_secrets_in_query => {
            Err(TokenError::misconfigured(format!(
                "the parameter `{name}` is a secret and would go into the query: choose another `body` in the dialect, or set `allow_secrets_in_query`"
            )))
        }
        _ => Ok(pairs),
    }
}

/// Returns whether a parameter's value may be shown; of a parameter that we do not know it may not.
fn is_public(name: &str) -> bool {
    [
        "grant_type",
        "scope",
        "resource",
        "audience",
        "client_id",
        "client_assertion_type",
        "requested_token_type",
        "subject_token_type",
        "actor_token_type",
        "token_type_hint",
    ]
    .contains(&name)
}

fn form(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

/// Writes an object in the order of the parameters; what is repeated becomes an array.
fn json(pairs: &[(&str, &str)]) -> Result<Zeroizing<String>, TokenError> {
    use serde::Serializer as _;

    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum Value<'a> {
        One(&'a str),
        Many(Vec<&'a str>),
    }

    let mut object: Vec<(&str, Value<'_>)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match object.iter_mut().find(|(other, _)| other == name) {
            None => object.push((name, Value::One(value))),
            Some((_, Value::Many(values))) => values.push(value),
            Some((_, one @ Value::One(_))) => {
                if let Value::One(first) = one {
                    *one = Value::Many(vec![first, value]);
                }
            }
        }
    }
    let mut body = Vec::new();
    serde_json::Serializer::new(&mut body)
        .collect_map(object)
        .map_err(TokenError::misconfigured)?;
    String::from_utf8(body).map(Zeroizing::new).map_err(TokenError::misconfigured)
}

fn with_query(url: &Uri, query: &str) -> Result<Uri, TokenError> {
    let path = match url.query().filter(|own| !own.is_empty()) {
        Some(own) => format!("{}?{own}&{query}", url.path()),
        None => format!("{}?{query}", url.path()),
    };
    with_path(url, &path)
}

fn with_path(url: &Uri, path: &str) -> Result<Uri, TokenError> {
    // Neither error would say more than this, and they must not show the query.
    let wrong = |_| {
        TokenError::misconfigured(
            "the path or the query of the token endpoint is too long or malformed",
        )
    };
    let path = PathAndQuery::try_from(path).map_err(|_| wrong(()))?;
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| wrong(()))
}

/// A body that is wiped from memory when the HTTP client has sent it.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
