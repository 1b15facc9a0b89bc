//! Token requests in a dialect.

mod characters;
mod encode;
mod parameters;
mod previous;
mod translate;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use zeroize::Zeroizing;

pub(super) use self::characters::check_characters;
pub(super) use self::parameters::Parameters;
pub(super) use self::previous::from_previous;
use self::translate::{Pair, translate};
use super::client_auth::AuthParams;
use super::dialect::{BodyFormat, Dialect, RequestMethod, is_reserved_header};
use super::scrub::Secrets;
use crate::error::TokenError;

/// Builds the request and returns it with the secrets that it contains.
pub(super) fn compose(
    dialect: &Dialect,
    url: &Uri,
    parameters: &Parameters,
    authentication: &AuthParams,
) -> Result<(Request<Full<Bytes>>, Secrets), TokenError> {
    let mut secrets = authentication.secrets.clone();
    add_query(url, &mut secrets);
    let pairs = translate(dialect, parameters, &authentication.parameters, &mut secrets)?;

    let (url, body) = if dialect.uses_query() {
        (with_query(url, &pairs)?, Bytes::new())
    } else {
        let body = match dialect.body {
            BodyFormat::Json => Bytes::from_owner(encode::json(&pairs)?),
            BodyFormat::Form | BodyFormat::Query => Bytes::from_owner(encode::form(&pairs)),
        };
        (url.clone(), body)
    };

    let mut request = Request::new(Full::new(body));
    *request.method_mut() = match dialect.method {
        RequestMethod::Post => Method::POST,
        RequestMethod::Get => Method::GET,
    };
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in &dialect.extra_headers {
        let name = HeaderName::try_from(name).map_err(TokenError::misconfigured)?;
        let value = HeaderValue::try_from(value).map_err(TokenError::misconfigured)?;
        headers.insert(name, value);
    }
    if !dialect.uses_query() {
        let usual = match dialect.body {
            BodyFormat::Json => "application/json",
            BodyFormat::Form | BodyFormat::Query => "application/x-www-form-urlencoded",
        };
        let content_type = HeaderValue::try_from(dialect.content_type.as_deref().unwrap_or(usual));
        headers.insert(CONTENT_TYPE, content_type.map_err(TokenError::misconfigured)?);
    } else if dialect.method == RequestMethod::Post {
        // RFC 9110 §8.6: a POST without a body states its length, which hyper does not add.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if let Some(name) = authentication.headers.keys().find(|name| is_reserved_header(name)) {
        return Err(TokenError::misconfigured(format!(
            "client authentication cannot set the header `{name}`"
        )));
    }
    headers.extend(authentication.headers.clone());
    Ok((request, secrets))
}

/// Resolves a path of the dialect against the URL of the endpoint (RFC 3986 §5.3). The host and the query are unchanged
/// (RFC 6749 §3.2).
pub(super) fn resolve(url: &Uri, path: &str) -> Result<Uri, TokenError> {
    let directory = if path.starts_with('/') {
        ""
    } else {
        let base = url.path().rfind('/').and_then(|at| url.path().get(..=at));
        base.unwrap_or("/")
    };
    let [mark, query] = url.query().map_or(["", ""], |query| ["?", query]);
    with_path(url, [directory, path, mark, query].concat())
}

/// Adds the values of the URL's query, which may be keys. Short values are not keys, and occur in ordinary words.
fn add_query(url: &Uri, secrets: &mut Secrets) {
    for (_, value) in form_urlencoded::parse(url.query().unwrap_or_default().as_bytes()) {
        let value = Zeroizing::new(value.into_owned());
        if value.chars().count() >= 4 {
            secrets.add(&*value);
        }
    }
}

/// Adds parameters to the query of a URL, whose own parameters are kept (RFC 6749 §3.2).
fn with_query(url: &Uri, pairs: &[Pair<'_>]) -> Result<Uri, TokenError> {
    let own = url.query().unwrap_or_default();
    for (name, _) in form_urlencoded::parse(own.as_bytes()) {
        if pairs.iter().any(|pair| pair.name == name) {
            return Err(TokenError::misconfigured(format!(
                "the parameter `{name}` is already in the query of the token endpoint's URL: remove it there"
            )));
        }
    }
    let separator = if own.is_empty() { "" } else { "&" };
    with_path(url, [url.path(), "?", own, separator, &encode::form(pairs)].concat())
}

fn with_path(url: &Uri, path: String) -> Result<Uri, TokenError> {
    // Without the query. The errors of `http` contain no further information.
    let wrong = |_| {
        TokenError::misconfigured(
            "the path or the query of the token endpoint is too long or malformed",
        )
    };
    let path = PathAndQuery::from_maybe_shared(Bytes::from_owner(Zeroizing::new(path)))
        .map_err(|_| wrong(()))?;
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| wrong(()))
}
