//! The differences between a token endpoint and RFC 6749, as plain data.

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

/// The differences between a token endpoint and RFC 6749: names, formats, and the meaning of answers.
///
/// It is plain data. Read it with serde, or change the fields of [`rfc6749`](Self::rfc6749). The default of each field is
/// RFC 6749. In serde's formats an unknown field is an error, and durations are numbers of seconds.
///
/// # Limits
///
/// A dialect contains no host and no secret, so that it can be shared. Both belong to the [`TokenEndpoint`](super::TokenEndpoint).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::oauth2::{BodyFormat, Dialect};
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
/// same.body = BodyFormat::Json;
/// same.parameter_names.insert("client_id".into(), "client_key".into());
/// same.root = "/data".into();
/// same.default_lifetime = Some(Duration::from_secs(900));
/// assert_eq!(dialect, same);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a dialect as an object")]
#[non_exhaustive]
pub struct Dialect {
    /// The method of the request: `"POST"` by default (RFC 6749 §3.2), or `"GET"` with all parameters in the query.
    pub method: RequestMethod,
    /// Where the parameters go: a form body by default (RFC 6749 §3.2).
    pub body: BodyFormat,
    /// The content type of the body, such as `application/x-amz-json-1.1`. By default that of its format:
    /// `application/x-www-form-urlencoded` or `application/json`.
    pub content_type: Option<String>,
    /// True if secrets may go into the query of the URL, where proxies and servers write them into their logs.
    ///
    /// Required with [`BodyFormat::Query`] and [`RequestMethod::Get`] if a parameter is a secret. An HTTP client that follows
    /// redirects may send the query to the next server, in `Referer`: see the
    /// [redirect caveat](super::TokenEndpoint#redirect-caveat).
    pub allow_secrets_in_query: bool,
    /// The server's names of parameters, by their names in the RFC: `{"refresh_token": "refreshToken"}`.
    ///
    /// In a JSON body a name that begins with `/` is a JSON pointer (RFC 6901): `/AuthParameters/REFRESH_TOKEN` for
    /// `{"AuthParameters": {"REFRESH_TOKEN": …}}`. The same holds for the names of
    /// [`extra_parameters`](Self::extra_parameters) and [`parameters_from_previous`](Self::parameters_from_previous).
    pub parameter_names: BTreeMap<String, String>,
    /// The types of parameters in a JSON body, by their names in the RFC or at the server: `{"shop_id": "number"}`.
    ///
    /// Other parameters are strings. The types are those of [`ParameterType`]: `string`, `number`, `boolean`, `array`, `json`.
    /// If a grant or a closure sets a value of another type, nothing is sent, and the error names the parameter.
    pub parameter_types: BTreeMap<String, ParameterType>,
    /// Parameters of a refresh request that are taken from the previous token set, by their names at the server:
    /// `{"accessToken": "access_token"}` for a server that requires both tokens.
    ///
    /// Each value is `access_token`, `refresh_token` (to send it under a second name), `id_token`, `scope`, or the name or JSON
    /// pointer of one of [`fields.extra`](Fields::extra). All of them count as secrets. Only
    /// [`RefreshTokenGrant`](super::RefreshTokenGrant) sends them.
    ///
    /// An id token, a scope or an extra field that the previous set lacks is left out. If the access token is required and
    /// there is no previous set, nothing is sent, and the error names the parameter.
    pub parameters_from_previous: BTreeMap<String, String>,
    /// The server's names of grant types, by their names in the RFC: `{"refresh_token": "RefreshToken"}`.
    ///
    /// If the name is empty, the grant type is not sent.
    pub grant_types: BTreeMap<String, String>,
    /// Further headers of the request.
    ///
    /// `Host`, `Authorization` and the headers that frame the message cannot be set here. The values must not be secrets, since
    /// `Debug` shows them.
    pub extra_headers: BTreeMap<String, String>,
    /// Further parameters of the request, by their names at the server: `{"device": "d", "version": 2}`.
    ///
    /// In a JSON body the values may be any JSON, elsewhere strings, numbers and booleans.
    ///
    /// Parameters of the grant cannot be repeated here. The values must not be secrets, since `Debug` shows them: use
    /// [`ClientAuth::custom`](super::ClientAuth::custom) for those.
    pub extra_parameters: BTreeMap<String, Value>,
    /// The path of refresh requests, if it differs from that of the token endpoint: `/refresh`, or `refresh` to replace the
    /// last segment. It cannot contain a host.
    pub refresh_path: Option<String>,
    /// The part of an answer that contains all [`fields`](Self::fields), as a JSON pointer (RFC 6901): `/data` for
    /// `{"data": {"access_token": …}}`. If it is empty, the whole answer.
    ///
    /// Errors and their descriptions are also found outside of it: `{"error": "invalid_grant", "data": null}`.
    pub root: String,
    /// The places of the fields in an answer.
    pub fields: Fields,
    /// The lifetime of an access token whose answer states none.
    ///
    /// By default it is taken from the `exp` of a JWT. Another token is used until a server rejects it.
    #[serde(with = "seconds")]
    pub default_lifetime: Option<Duration>,
    /// Error codes that mean *denied*: the user must log in again.
    ///
    /// In serde's formats a code may be a number: `{"denied": ["bad_refresh_token", 40030]}`.
    ///
    /// # Precedence
    ///
    /// An answer may contain several codes and descriptions. The first rule that applies decides:
    ///
    /// 1. a description that contains one of [`transient_descriptions`](Self::transient_descriptions), then of
    ///    [`denied_descriptions`](Self::denied_descriptions);
    /// 2. the first code, in the order of [`fields.error`](Fields::error), that is in `denied` or in
    ///    [`transient`](Self::transient);
    /// 3. the first code, in the same order, of [known meaning](super#error-codes);
    /// 4. any other code of a 4xx, which is misconfigured.
    ///
    /// A status that rules out a refusal takes precedence over all of them. The exception is a 5xx with a code in `transient`: see
    /// [the meaning of an answer](super#the-meaning-of-an-answer).
    #[serde(deserialize_with = "codes")]
    pub denied: Vec<String>,
    /// Error codes that mean *transient*: a later attempt may succeed, and the refresh token was not spent.
    ///
    /// Unlike the [known codes](super#error-codes), these also count with any 5xx: `{"transient": ["50196", "backend_busy"]}`.
    #[serde(deserialize_with = "codes")]
    pub transient: Vec<String>,
    /// Parts of a description that mean *denied*, regardless of case: `{"denied_descriptions": ["token has been revoked"]}`.
    ///
    /// For servers that use one code for everything.
    pub denied_descriptions: Vec<String>,
    /// Parts of a description that mean *transient*, regardless of case:
    /// `{"transient_descriptions": ["request is already being processed"]}`.
    ///
    /// For servers that answer with `invalid_grant` for a temporary reason.
    pub transient_descriptions: Vec<String>,
    /// Statuses that mean *denied* if the body is empty, for servers that refuse a refresh token without an error code:
    /// `{"denied_statuses": [400]}`.
    ///
    /// Only 4xx can be listed, except 407, 408, 421, 425 and 429, which never refuse a grant.
    pub denied_statuses: Vec<u16>,
    /// True if the server reports errors with status 200.
    ///
    /// An error with status 200 then counts as a 4xx. By default, its outcome is unknown.
    pub errors_with_200: bool,
    /// True if the server may replace a refresh token when it is used. This is the default.
    ///
    /// If it is `false`, a request whose answer was lost can be repeated.
    pub rotates: bool,
    /// How long after its first use the server still accepts a refresh token that it has replaced.
    ///
    /// Within that time, a request whose answer was lost is repeated at once, one time. By default, it is not repeated.
    #[serde(with = "seconds")]
    pub reuse_grace: Option<Duration>,
    /// True if the server revokes the access token when it issues the next.
    ///
    /// If it is `true`, tokens are not refreshed early, because the server would reject requests in flight.
    pub revokes_previous: bool,
}

impl Dialect {
    /// Returns the default: requests of RFC 6749, and its answers (§5) with common deviations.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::Dialect;
    ///
    /// let mut dialect = Dialect::rfc6749();
    /// dialect.denied.push("session_gone".into());
    /// ```
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

    /// Returns the dialect of [endpoint B](crate::docs::token_endpoints#b-parameters-in-camelcase): parameters in camelCase, the
    /// grant type `RefreshToken`, and times of expiry.
    ///
    /// # Examples
    ///
    /// The prose of its documentation names the grant type `refreshToken`, unlike the example in it. To follow the prose:
    ///
    /// ```
    /// use tower_refresh::oauth2::Dialect;
    ///
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

    /// Returns the dialect of [endpoint D](crate::docs::token_endpoints#d-a-json-body-without-a-grant-type): a JSON body without a
    /// grant type, a default lifetime of one hour, and the error code `access_denied` for a refresh token that is no longer accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{Dialect, TokenEndpoint};
    ///
    /// fn endpoint_d(endpoint: TokenEndpoint) -> TokenEndpoint {
    ///     endpoint.dialect(Dialect::json_body())
    /// }
    /// ```
    pub fn json_body() -> Self {
        let mut dialect = Self::rfc6749();
        dialect.body = BodyFormat::Json;
        dialect.grant_types.insert("refresh_token".into(), String::new());
        dialect.default_lifetime = Some(Duration::from_secs(3600));
        dialect.denied = vec!["access_denied".into()];
        dialect
    }

    /// Returns the server's name of a parameter.
    pub(super) fn parameter_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.parameter_names.get(name).map_or(name, String::as_str)
    }

    /// Returns the server's name of a grant type, or `None` if it is not sent.
    pub(super) fn grant_type<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let name = self.grant_types.get(name).map_or(name, String::as_str);
        Some(name).filter(|name| !name.is_empty())
    }

    /// Returns whether parameters go into the query.
    pub(in crate::oauth2) fn uses_query(&self) -> bool {
        self.method == RequestMethod::Get || self.body == BodyFormat::Query
    }

    /// Returns the RFC's name of a parameter, by its name in the RFC or at the server.
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
    fn unknown_field_is_an_error_that_names_it() {
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
