//! How a token endpoint departs from RFC 6749, as plain data.

mod fields;
mod format;
pub(super) mod known;
mod parse;
mod validate;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::fields::{Fields, LifetimeUnit};
pub use self::format::{BodyFormat, ParameterType, RequestMethod};
use self::parse::{codes, seconds};
pub(super) use self::validate::is_reserved_header;

/// How a token endpoint is spoken to: names, formats, and what its answers mean.
///
/// It is plain data, so that a server that nobody foresaw is a configuration and not a patch: read one with serde, or
/// begin with a preset and change its fields. A field that is left out is as RFC 6749 has it, and an unknown field is
/// an error.
///
/// ```
/// use tower_refresh::oauth2::Dialect;
///
/// let dialect: Dialect = serde_json::from_str(
///     r#"{
///         "body": "json",
///         "parameter_names": { "client_id": "client_key" },
///         "root": "/data",
///         "default_lifetime": 900
///     }"#,
/// )?;
/// dialect.validate()?;
///
/// let mut same = Dialect::rfc6749();
/// same.body = tower_refresh::oauth2::BodyFormat::Json;
/// same.parameter_names.insert("client_id".into(), "client_key".into());
/// same.root = "/data".into();
/// same.default_lifetime = Some(std::time::Duration::from_secs(900));
/// assert_eq!(dialect, same);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it cannot say
///
/// A dialect names no host and holds no secret: both belong to whoever runs the program, and a dialect may be shared.
/// Durations are numbers of seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a dialect as an object")]
#[non_exhaustive]
pub struct Dialect {
    /// The method of the request: `"POST"` unless set otherwise (RFC 6749 §3.2), or `"GET"`, with all parameters in the query.
    pub method: RequestMethod,
    /// Where the parameters go. A form body unless said otherwise (RFC 6749 §3.2).
    pub body: BodyFormat,
    /// The content type of the body, such as `application/x-amz-json-1.1`, if it is not the usual one of its format
    /// (`application/x-www-form-urlencoded`, `application/json`).
    pub content_type: Option<String>,
    /// Whether secrets may go into the query of the URL, where proxies and servers write them into their logs.
    ///
    /// Needed with [`BodyFormat::Query`] and [`RequestMethod::Get`], unless nothing secret is among the parameters. An HTTP
    /// client that follows redirects may show the query to the next server, in `Referer`: see the
    /// [redirect caveat](super::TokenEndpoint#redirect-caveat).
    pub allow_secrets_in_query: bool,
    /// What the server calls a parameter, by the name it has in the RFC: `{"refresh_token": "refreshToken"}`.
    ///
    /// In a JSON body a name that begins with `/` is a JSON pointer (RFC 6901): `/AuthParameters/REFRESH_TOKEN` for
    /// `{"AuthParameters": {"REFRESH_TOKEN": …}}`. The same holds for the names of
    /// [`extra_parameters`](Self::extra_parameters) and [`parameters_from_previous`](Self::parameters_from_previous).
    pub parameter_names: BTreeMap<String, String>,
    /// The types of parameters in a JSON body, by their names in the RFC or at the server: `{"shop_id": "number"}`.
    ///
    /// Parameters that are not named here are strings. The types are those of [`ParameterType`]: `string`, `number`,
    /// `boolean`, `array`, `json`. If the value that a grant or a closure sets is not of its type, nothing is sent, and the
    /// error names the parameter.
    pub parameter_types: BTreeMap<String, ParameterType>,
    /// Parameters of a refresh request that are taken from the previous token set, by the names that the server knows:
    /// `{"accessToken": "access_token"}` for a server that wants both tokens.
    ///
    /// Each is `access_token`, `refresh_token` (the one that is sent anyway, under a second name), `id_token`, `scope`, or
    /// one of [`fields.extra`](Fields::extra) by its name or its JSON pointer. They count as secrets. Only
    /// [`RefreshTokenGrant`](super::RefreshTokenGrant) sends them. An id token, a scope or an extra field that the previous
    /// set does not have is left out; without a previous access token nothing is sent, and the error names the parameter.
    pub parameters_from_previous: BTreeMap<String, String>,
    /// What the server calls a grant type, by the name it has in the RFC: `{"refresh_token": "RefreshToken"}`.
    ///
    /// With an empty name the parameter is not sent.
    pub grant_types: BTreeMap<String, String>,
    /// Headers to send besides.
    ///
    /// They cannot set `Host`, `Authorization`, or what frames the message, and must not be a secret.
    pub extra_headers: BTreeMap<String, String>,
    /// Parameters to send besides, under the names that the server knows: `{"device": "d", "version": 2}`.
    ///
    /// Any JSON value in a JSON body; strings, numbers and booleans elsewhere.
    ///
    /// They cannot repeat a parameter of the grant, and must not be a secret, since they are shown in `Debug`: that goes to
    /// [`ClientAuth::custom`](super::ClientAuth::custom).
    pub extra_parameters: BTreeMap<String, Value>,
    /// The path for refresh requests, where it differs from the token endpoint's: `/refresh`, or `refresh` in place of
    /// the last segment. It cannot name a host.
    pub refresh_path: Option<String>,
    /// The part of an answer that all [`fields`](Self::fields) are looked for in, as a JSON pointer (RFC 6901):
    /// `/data` for `{"data": {"access_token": …}}`. The whole answer if it is empty.
    pub root: String,
    /// Where in an answer things are.
    pub fields: Fields,
    /// The lifetime of an access token whose answer gives none.
    ///
    /// Without it the `exp` of a JWT counts, and without that the token is used until a server rejects it.
    #[serde(with = "seconds")]
    pub default_lifetime: Option<Duration>,
    /// Error codes that mean *denied*: the user must log in again.
    ///
    /// In serde's formats a code may be a number: `{"denied": ["bad_refresh_token", 40030]}`.
    ///
    /// # Precedence
    ///
    /// An answer may hold several codes and descriptions. The first of these that applies decides:
    ///
    /// 1. a description that contains one of [`transient_descriptions`](Self::transient_descriptions), then of
    ///    [`denied_descriptions`](Self::denied_descriptions);
    /// 2. the first code, in the order of [`fields.error`](Fields::error), that is in `denied` or in
    ///    [`transient`](Self::transient);
    /// 3. the first code, in the same order, of [known meaning](super#error-codes);
    /// 4. any other code of a 4xx, which is misconfigured.
    ///
    /// The status counts before all of them where it rules out a refusal: see
    /// [the meaning of an answer](super#the-meaning-of-an-answer).
    #[serde(deserialize_with = "codes")]
    pub denied: Vec<String>,
    /// Error codes that mean *transient*: a later attempt may succeed, and the refresh token was not spent.
    ///
    /// Unlike a code of known meaning, a code in this list counts with any 5xx, too: `{"transient": ["50196", "backend_busy"]}`.
    #[serde(deserialize_with = "codes")]
    pub transient: Vec<String>,
    /// Parts of a description that mean *denied*, regardless of case: `{"denied_descriptions": ["token has been revoked"]}`.
    ///
    /// For servers that use one code for everything.
    pub denied_descriptions: Vec<String>,
    /// Parts of a description that mean *transient*, regardless of case:
    /// `{"transient_descriptions": ["request is already being processed"]}`.
    ///
    /// For servers that refuse with `invalid_grant` for a reason that will pass.
    pub transient_descriptions: Vec<String>,
    /// Statuses that mean *denied* if the body is empty, for servers that refuse a refresh token without an error code:
    /// `{"denied_statuses": [400]}`.
    ///
    /// Only a 4xx can be listed, and not 407, 408, 421, 425 or 429, which never refuse a grant.
    pub denied_statuses: Vec<u16>,
    /// Whether the server reports errors with status 200.
    ///
    /// Such an answer then counts as a 4xx. By default it is an answer that cannot be read, and the outcome is unknown.
    pub errors_with_200: bool,
    /// Whether a refresh token may be replaced by a new one when it is used. Yes, unless known otherwise.
    ///
    /// If it is not, a request whose answer was lost is simply made again.
    pub rotates: bool,
    /// For how long after its first use the server accepts a refresh token that it has replaced, if it is known to.
    ///
    /// A request whose answer was lost is then made again at once, one time, within that window.
    #[serde(with = "seconds")]
    pub reuse_grace: Option<Duration>,
    /// Whether the server revokes the access token when it issues the next.
    ///
    /// Tokens are then not renewed early, since requests in flight would be rejected.
    pub revokes_previous: bool,
}

impl Dialect {
    /// The standard: a form body, and the answers of RFC 6749 §5 with the usual deviations.
    pub fn rfc6749() -> Self {
        Self {
            method: RequestMethod::Post,
            body: BodyFormat::Form,
            content_type: None,
            allow_secrets_in_query: false,
            parameter_names: BTreeMap::new(),
            parameter_types: BTreeMap::new(),
            parameters_from_previous: BTreeMap::new(),
            grant_types: BTreeMap::new(),
            extra_headers: BTreeMap::new(),
            extra_parameters: BTreeMap::new(),
            refresh_path: None,
            root: String::new(),
            fields: Fields::default(),
            default_lifetime: None,
            denied: Vec::new(),
            transient: Vec::new(),
            denied_descriptions: Vec::new(),
            transient_descriptions: Vec::new(),
            denied_statuses: Vec::new(),
            errors_with_200: false,
            rotates: true,
            reuse_grace: None,
            revokes_previous: false,
        }
    }

    /// Endpoint B: camelCase parameters, grant type `RefreshToken`, and absolute times of expiry.
    ///
    /// Where the server follows its prose and not its example, change the grant type:
    ///
    /// ```
    /// # use tower_refresh::oauth2::Dialect;
    /// let mut dialect = Dialect::camel_case();
    /// dialect.grant_types.insert("refresh_token".into(), "refreshToken".into());
    /// ```
    pub fn camel_case() -> Self {
        let mut dialect = Self::rfc6749();
        for (ours, theirs) in [("grant_type", "grantType"), ("refresh_token", "refreshToken")] {
            dialect.parameter_names.insert(ours.into(), theirs.into());
        }
        dialect.grant_types.insert("refresh_token".into(), "RefreshToken".into());
        dialect.fields.expires_at = vec!["/accessTokenExpiresAt".into()];
        dialect.fields.refresh_token_expires_at = vec!["/refreshTokenExpiresAt".into()];
        dialect
    }

    /// Endpoint D: a JSON body without a grant type, an hour's lifetime unless the answer says otherwise, and
    /// `access_denied` for a refresh token that is no longer accepted.
    pub fn json_body() -> Self {
        let mut dialect = Self::rfc6749();
        dialect.body = BodyFormat::Json;
        dialect.grant_types.insert("refresh_token".into(), String::new());
        dialect.default_lifetime = Some(Duration::from_secs(3600));
        dialect.denied = vec!["access_denied".into()];
        dialect
    }

    /// Returns what the server calls a parameter.
    pub(super) fn parameter_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.parameter_names.get(name).map_or(name, String::as_str)
    }

    /// Returns what the server calls a grant type; nothing if it is not to be sent.
    pub(super) fn grant_type<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let name = self.grant_types.get(name).map_or(name, String::as_str);
        Some(name).filter(|name| !name.is_empty())
    }

    /// Returns whether parameters go into the query.
    pub(in crate::oauth2) fn uses_query(&self) -> bool {
        self.method == RequestMethod::Get || self.body == BodyFormat::Query
    }

    /// Returns the name that a parameter has in the RFC, where ours or the server's may be given.
    pub(in crate::oauth2) fn rfc_name<'a>(&'a self, name: &'a str) -> &'a str {
        let mut names = self.parameter_names.iter();
        names.find(|(_, theirs)| *theirs == name).map_or(name, |(ours, _)| ours)
    }

    /// Returns the type of a parameter by its name in the RFC or at the server.
    pub(in crate::oauth2) fn parameter_type(&self, name: &str) -> ParameterType {
        let names = [name, self.parameter_name(name), self.rfc_name(name)];
        names
            .into_iter()
            .find_map(|name| self.parameter_types.get(name))
            .copied()
            .unwrap_or_default()
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::rfc6749()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Dialect {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn presets_are_valid_and_survive_serde() {
        for dialect in [Dialect::rfc6749(), Dialect::camel_case(), Dialect::json_body()] {
            dialect.validate().unwrap();
            assert_eq!(parse(&serde_json::to_string(&dialect).unwrap()), dialect);
        }
        assert_eq!(parse("{}"), Dialect::rfc6749());
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        for json in [r#"{"bodyy": "form"}"#, r#"{"fields": {"bodyy": "/x"}}"#] {
            let error = serde_json::from_str::<Dialect>(json).unwrap_err();
            assert!(error.to_string().contains("bodyy"), "{error}");
        }
    }

    #[test]
    fn value_of_the_wrong_type_is_an_error_that_names_the_right_one() {
        for (json, expected) in [
            (r#""json_body""#, "a dialect as an object"),
            (r#"{"default_lifetime": "1h"}"#, "number of seconds"),
            (r#"{"default_lifetime": -1}"#, "number of seconds"),
            (r#"{"fields": {"extra": "instance_url"}}"#, "a list of names"),
        ] {
            let error = serde_json::from_str::<Dialect>(json).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(parse(r#"{"reuse_grace": 30}"#).reuse_grace, Some(Duration::from_secs(30)));
        assert_eq!(parse(r#"{"reuse_grace": 0.5}"#).reuse_grace, Some(Duration::from_millis(500)));
        assert_eq!(parse(r#"{"reuse_grace": null}"#).reuse_grace, None);
    }
}
