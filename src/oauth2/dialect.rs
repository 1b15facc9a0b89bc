//! How a token endpoint departs from RFC 6749, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::error::TokenError;

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
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Dialect {
    /// Where the parameters go. A form body unless said otherwise (RFC 6749 §3.2).
    pub body: BodyFormat,
    /// Whether secrets may go into the query of the URL, where proxies and servers write them into their logs.
    ///
    /// Needed with [`BodyFormat::Query`], unless nothing secret is among the parameters.
    pub allow_secrets_in_query: bool,
    /// What the server calls a parameter, by the name it has in the RFC: `{"refresh_token": "refreshToken"}`.
    pub parameter_names: BTreeMap<String, String>,
    /// What the server calls a grant type, by the name it has in the RFC: `{"refresh_token": "RefreshToken"}`.
    ///
    /// With an empty name the parameter is not sent.
    pub grant_types: BTreeMap<String, String>,
    /// Headers to send besides.
    ///
    /// They cannot set `Host`, `Authorization`, or what frames the message, and must not be a secret.
    pub extra_headers: BTreeMap<String, String>,
    /// Parameters to send besides, under the names that the server knows.
    ///
    /// They cannot repeat a parameter of the grant, and must not be a secret, since they are shown in `Debug`: that goes to
    /// [`ClientAuth::custom`](super::ClientAuth::custom).
    pub extra_parameters: BTreeMap<String, String>,
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
    /// Error codes that say *denied* (somebody must log in again) besides those of the standards.
    pub denied: Vec<String>,
    /// Error codes that say *transient* (try again later) besides those of the standards.
    pub transient: Vec<String>,
    /// Whether the server answers 200 to a request that it refuses, with the error in the body.
    ///
    /// Such an answer is then taken for a 4xx. Otherwise it is an answer that cannot be read.
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

/// Where the parameters of a request go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 §4, appendix B).
    #[default]
    Form,
    /// A JSON object of strings.
    Json,
    /// The query of the URL, and an empty body. See [`Dialect::allow_secrets_in_query`].
    Query,
}

/// Where in an answer things are: JSON pointers (RFC 6901), of which the first that finds something counts.
///
/// In serde's formats a single pointer may be written as a string. An answer that is a form is taken for a flat object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Fields {
    /// The access token.
    #[serde(deserialize_with = "one_or_many")]
    pub access_token: Vec<String>,
    /// The type of the access token; a bearer token if there is none.
    #[serde(deserialize_with = "one_or_many")]
    pub token_type: Vec<String>,
    /// The lifetime of the access token in seconds.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_in: Vec<String>,
    /// The time at which the access token expires: seconds or milliseconds since 1970, ISO 8601, or an HTTP date.
    ///
    /// Looked at if there is no lifetime. A number that would lie before 1980 is a lifetime: nobody means 1970.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_at: Vec<String>,
    /// The seconds after which to begin to renew the access token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_in: Vec<String>,
    /// The refresh token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token: Vec<String>,
    /// The lifetime of the refresh token in seconds; 0 is taken for "not known".
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token_expires_in: Vec<String>,
    /// The time at which the refresh token expires, in the forms of [`expires_at`](Self::expires_at).
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token_expires_at: Vec<String>,
    /// The scope: a string, or an array of strings.
    #[serde(deserialize_with = "one_or_many")]
    pub scope: Vec<String>,
    /// The id token.
    #[serde(deserialize_with = "one_or_many")]
    pub id_token: Vec<String>,
    /// The error code. A code that means something to us is preferred to one that does not.
    #[serde(deserialize_with = "one_or_many")]
    pub error: Vec<String>,
    /// The error description.
    #[serde(deserialize_with = "one_or_many")]
    pub error_description: Vec<String>,
}

impl Dialect {
    /// The standard: a form body, and the answers of RFC 6749 §5 with the usual deviations.
    pub fn rfc6749() -> Self {
        Self {
            body: BodyFormat::Form,
            allow_secrets_in_query: false,
            parameter_names: BTreeMap::new(),
            grant_types: BTreeMap::new(),
            extra_headers: BTreeMap::new(),
            extra_parameters: BTreeMap::new(),
            refresh_path: None,
            root: String::new(),
            fields: Fields::default(),
            default_lifetime: None,
            denied: Vec::new(),
            transient: Vec::new(),
            errors_with_200: false,
            rotates: true,
            reuse_grace: None,
            revokes_previous: false,
        }
    }

    /// Endpoint A: the standard, with client id and secret in the form body
    /// ([`ClientAuth::body`](super::ClientAuth::body)).
    pub fn credentials_in_body() -> Self {
        Self::rfc6749()
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

    /// Endpoint C: the standard, with Basic client authentication ([`ClientAuth::basic`](super::ClientAuth::basic), or
    /// [`basic_unencoded`](super::ClientAuth::basic_unencoded) if the server got it wrong); the refresh token may or may
    /// not be replaced.
    pub fn basic_credentials() -> Self {
        Self::rfc6749()
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

    /// Returns the preset of that name: `rfc6749`, `credentials_in_body`, `camel_case`, `basic_credentials` or
    /// `json_body`.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "rfc6749" => Some(Self::rfc6749()),
            "credentials_in_body" => Some(Self::credentials_in_body()),
            "camel_case" => Some(Self::camel_case()),
            "basic_credentials" => Some(Self::basic_credentials()),
            "json_body" => Some(Self::json_body()),
            _ => None,
        }
    }

    /// Checks what the types cannot.
    ///
    /// A [`TokenEndpoint`](super::TokenEndpoint) with a dialect that fails here sends nothing, and every request fails
    /// with the same error; call it where the configuration is read, to hear of it sooner.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error that names the field.
    pub fn validate(&self) -> Result<(), TokenError> {
        self.validate_names()?;
        self.validate_extra_headers()?;
        self.validate_extra_parameters()?;
        if let Some(path) = &self.refresh_path {
            validate_refresh_path(path)?;
        }
        validate_pointer("root", &self.root)?;
        self.fields.validate()?;
        if self.default_lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            return wrong("default_lifetime", "must be above 0; leave it out for none");
        }
        if let Some(grace) = self.reuse_grace {
            if grace.is_zero() {
                return wrong("reuse_grace", "must be above 0; leave it out for none");
            }
            if !self.rotates {
                return wrong("reuse_grace", "means nothing where `rotates` is false");
            }
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), TokenError> {
        let mut taken = BTreeSet::new();
        for (ours, theirs) in &self.parameter_names {
            let field = format_args!("parameter_names.{ours}");
            if theirs.is_empty() {
                return wrong(field, "must not be empty");
            }
            if !taken.insert(theirs) {
                return wrong(field, "is the same as another parameter's");
            }
        }
        Ok(())
    }

    fn validate_extra_headers(&self) -> Result<(), TokenError> {
        for (name, value) in &self.extra_headers {
            let field = format_args!("extra_headers.{name}");
            let Ok(name) = HeaderName::try_from(name) else {
                return wrong(field, "is not the name of a header");
            };
            if is_reserved_header(&name) {
                return wrong(field, "is not for a dialect to set");
            }
            if name == http::header::AUTHORIZATION {
                return wrong(field, "is not for a dialect to set; use `ClientAuth::custom`");
            }
            if HeaderValue::try_from(value).is_err() {
                return wrong(field, "has a value that cannot go into a header");
            }
        }
        Ok(())
    }

    fn validate_extra_parameters(&self) -> Result<(), TokenError> {
        for name in self.extra_parameters.keys() {
            let field = format_args!("extra_parameters.{name}");
            if name.is_empty() {
                return wrong(field, "has no name");
            }
            let of_the_grant = RESERVED_PARAMETERS
                .iter()
                .any(|ours| name == ours || name == self.parameter_name(ours));
            if of_the_grant {
                return wrong(
                    field,
                    "is a parameter of the grant or of the client authentication, and is set there",
                );
            }
        }
        Ok(())
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
}

impl Default for Dialect {
    fn default() -> Self {
        Self::rfc6749()
    }
}

impl Fields {
    fn validate(&self) -> Result<(), TokenError> {
        let Self {
            access_token,
            token_type,
            expires_in,
            expires_at,
            refresh_in,
            refresh_token,
            refresh_token_expires_in,
            refresh_token_expires_at,
            scope,
            id_token,
            error,
            error_description,
        } = self;
        for (field, pointers) in [
            ("fields.access_token", access_token),
            ("fields.token_type", token_type),
            ("fields.expires_in", expires_in),
            ("fields.expires_at", expires_at),
            ("fields.refresh_in", refresh_in),
            ("fields.refresh_token", refresh_token),
            ("fields.refresh_token_expires_in", refresh_token_expires_in),
            ("fields.refresh_token_expires_at", refresh_token_expires_at),
            ("fields.scope", scope),
            ("fields.id_token", id_token),
            ("fields.error", error),
            ("fields.error_description", error_description),
        ] {
            for pointer in pointers {
                validate_pointer(field, pointer)?;
            }
        }
        if access_token.is_empty() {
            return wrong("fields.access_token", "must name a field");
        }
        Ok(())
    }
}

impl Default for Fields {
    fn default() -> Self {
        let pointers = |names: &[&str]| names.iter().map(|name| format!("/{name}")).collect();
        Self {
            access_token: pointers(&["access_token"]),
            token_type: pointers(&["token_type"]),
            expires_in: pointers(&["expires_in", "expiresIn"]),
            expires_at: pointers(&[
                "expires_at",
                "expiresAt",
                "expires_on",
                "expires",
                "access_token_expires_at",
                "accessTokenExpiresAt",
                "expiration",
                "expiry",
            ]),
            refresh_in: pointers(&["refresh_in"]),
            refresh_token: pointers(&["refresh_token"]),
            refresh_token_expires_in: pointers(&[
                "refresh_token_expires_in",
                "refresh_expires_in",
                "refreshTokenExpiresIn",
            ]),
            refresh_token_expires_at: pointers(&[
                "refresh_token_expires_at",
                "refreshTokenExpiresAt",
            ]),
            scope: pointers(&["scope"]),
            id_token: pointers(&["id_token"]),
            error: pointers(&[
                "error",
                "error/code",
                "error/error",
                "error/type",
                "error/status",
                "errors/0/code",
                "errors/0/error",
                "errors/0/errorType",
                "errors/0/type",
                "error_code",
                "errorCode",
            ]),
            error_description: pointers(&[
                "error_description",
                "errorDescription",
                "error/error_description",
                "error/description",
                "error/message",
                "errors/0/error_description",
                "errors/0/description",
                "errors/0/message",
                "errors/0/detail",
                "error_message",
                "message",
            ]),
        }
    }
}

/// Parameters that only a grant or the client authentication sets.
const RESERVED_PARAMETERS: [&str; 9] = [
    "grant_type",
    "refresh_token",
    "client_secret",
    "client_assertion",
    "password",
    "assertion",
    "subject_token",
    "actor_token",
    "code",
];

/// Returns whether a header decides where a message goes or where it ends, so that nobody but the HTTP client sets it.
pub(super) fn is_reserved_header(name: &HeaderName) -> bool {
    use http::header;

    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ]
    .contains(name)
}

fn validate_refresh_path(path: &str) -> Result<(), TokenError> {
    let field = "refresh_path";
    if path.contains("://") || path.starts_with("//") || path.contains('\\') {
        return wrong(field, "must be a path; the host is that of the token endpoint");
    }
    if path.is_empty() || path.contains(['?', '#']) {
        return wrong(field, "must be a path, without a query or a fragment");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return wrong(field, "must not contain `.` or `..`");
    }
    if PathAndQuery::try_from(format!("/{}", path.trim_start_matches('/'))).is_err() {
        return wrong(field, "contains a character that cannot go into a path");
    }
    Ok(())
}

fn validate_pointer(field: &str, pointer: &str) -> Result<(), TokenError> {
    if pointer.is_empty() && field == "root" || pointer.starts_with('/') {
        return Ok(());
    }
    wrong(field, "must be a JSON pointer, which begins with `/`, as in `/data/access_token`")
}

fn wrong(field: impl std::fmt::Display, why: &str) -> Result<(), TokenError> {
    Err(TokenError::misconfigured(format!("dialect field `{field}` {why}")))
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a JSON pointer or a list of them")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(pointer) => vec![pointer],
        OneOrMany::Many(pointers) => pointers,
    })
}

/// Durations as numbers of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            None => serializer.serialize_none(),
            Some(duration) if duration.subsec_nanos() == 0 => {
                serializer.serialize_some(&duration.as_secs())
            }
            Some(duration) => serializer.serialize_some(&duration.as_secs_f64()),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(deserializer)?
            .map(|seconds| {
                Duration::try_from_secs_f64(seconds).map_err(|_| {
                    D::Error::custom("a duration must be a number of seconds, not below 0")
                })
            })
            .transpose()
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
        for name in
            ["rfc6749", "credentials_in_body", "camel_case", "basic_credentials", "json_body"]
        {
            let dialect = Dialect::preset(name).unwrap();
            dialect.validate().unwrap();
            assert_eq!(parse(&serde_json::to_string(&dialect).unwrap()), dialect, "{name}");
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
    fn what_a_dialect_must_not_say_is_refused_by_the_name_of_the_field() {
        for (json, field) in [
            (r#"{"extra_headers": {"host": "x"}}"#, "extra_headers.host"),
            (r#"{"extra_headers": {"Authorization": "x"}}"#, "extra_headers.Authorization"),
            (r#"{"extra_headers": {"content-length": "1"}}"#, "extra_headers.content-length"),
            (
                r#"{"extra_headers": {"Transfer-Encoding": "chunked"}}"#,
                "extra_headers.Transfer-Encoding",
            ),
            (r#"{"extra_headers": {"a b": "x"}}"#, "extra_headers.a b"),
            (r#"{"extra_headers": {"x-a": "a\nb"}}"#, "extra_headers.x-a"),
            (r#"{"extra_parameters": {"grant_type": "x"}}"#, "extra_parameters.grant_type"),
            (
                r#"{"extra_parameters": {"rt": "x"}, "parameter_names": {"refresh_token": "rt"}}"#,
                "extra_parameters.rt",
            ),
            (r#"{"extra_parameters": {"client_secret": "x"}}"#, "extra_parameters.client_secret"),
            (r#"{"parameter_names": {"scope": ""}}"#, "parameter_names.scope"),
            (r#"{"parameter_names": {"scope": "a", "resource": "a"}}"#, "parameter_names.scope"),
            (r#"{"refresh_path": "https://elsewhere.example/"}"#, "refresh_path"),
            (r#"{"refresh_path": "//elsewhere.example/"}"#, "refresh_path"),
            (r#"{"refresh_path": "/a/../b"}"#, "refresh_path"),
            (r#"{"refresh_path": "/a?b"}"#, "refresh_path"),
            (r#"{"refresh_path": "/a b"}"#, "refresh_path"),
            (r#"{"root": "data"}"#, "root"),
            (r#"{"fields": {"scope": "scope"}}"#, "fields.scope"),
            (r#"{"fields": {"access_token": []}}"#, "fields.access_token"),
            (r#"{"default_lifetime": 0}"#, "default_lifetime"),
            (r#"{"reuse_grace": 0}"#, "reuse_grace"),
            (r#"{"reuse_grace": 9, "rotates": false}"#, "reuse_grace"),
        ] {
            let error = parse(json).validate().unwrap_err();
            assert!(error.is_misconfigured());
            assert!(error.to_string().contains(&format!("`{field}`")), "{json}: {error}");
        }
    }
}
