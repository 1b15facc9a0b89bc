//! Checks a dialect for contradictions.

use std::collections::BTreeSet;
use std::fmt::Display;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::{BodyFormat, Dialect, Fields, RequestMethod, known};
use crate::error::TokenError;

/// How many further fields of an answer a token set keeps.
const EXTRA_MAX: usize = 32;

impl Dialect {
    /// Checks the rules that the types of the fields do not express.
    ///
    /// A [`TokenEndpoint`](crate::oauth2::TokenEndpoint) checks its dialect as well, and fails each request with the same error.
    /// Call this where the configuration is read to report the error earlier.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error that names the field.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::Dialect;
    ///
    /// let mut dialect = Dialect::rfc6749();
    /// dialect.root = "data".into();
    /// let error = dialect.validate().unwrap_err();
    /// assert!(error.to_string().contains("`root` must be a JSON pointer"));
    /// ```
    pub fn validate(&self) -> Result<(), TokenError> {
        self.validate_request()?;
        self.validate_parameters()?;
        check_pointer("root", &self.root)?;
        self.fields.validate()?;
        self.validate_errors()?;
        self.validate_durations()
    }

    fn validate_request(&self) -> Result<(), TokenError> {
        check(
            self.method != RequestMethod::Get || self.body != BodyFormat::Json,
            "body",
            "must not be `json` if `method` is GET: a GET request has no body",
        )?;
        if let Some(content_type) = &self.content_type {
            check(!self.uses_query(), "content_type", "has no effect without a body")?;
            let why = "must be a media type, such as `application/json`";
            check(is_media_type(content_type), "content_type", why)?;
        }
        for (name, value) in &self.extra_headers {
            let field = format_args!("extra_headers.{name}");
            let why = match HeaderName::try_from(name) {
                Err(_) => "is not the name of a header",
                Ok(header::CONTENT_TYPE) => "must not be set; use `content_type`",
                Ok(header::AUTHORIZATION) => "must not be set; use `ClientAuth::custom`",
                Ok(name) if is_reserved_header(&name) => "must not be set",
                Ok(_) if HeaderValue::try_from(value).is_err() => "is not the value of a header",
                Ok(_) => continue,
            };
            return wrong(field, why);
        }
        let Some(path) = &self.refresh_path else { return Ok(()) };
        let why = if path.contains("://") || path.starts_with("//") || path.contains('\\') {
            "must be a path; the host is that of the token endpoint"
        } else if path.is_empty() || path.contains(['?', '#']) {
            "must be a path without a query and a fragment"
        } else if path.split('/').any(|segment| segment == "." || segment == "..") {
            "must not contain `.` or `..`"
        } else if PathAndQuery::try_from(format!("/{}", path.trim_start_matches('/'))).is_err() {
            "contains a character that a path cannot contain"
        } else {
            return Ok(());
        };
        wrong("refresh_path", why)
    }

    fn validate_parameters(&self) -> Result<(), TokenError> {
        let is_json = self.body == BodyFormat::Json;
        let check_name = |field: &dyn Display, name: &str| {
            check(!name.is_empty(), field, "must not be empty")?;
            let why = "is a JSON pointer, which has no effect unless `body` is `json`";
            check(is_json || !name.starts_with('/'), field, why)
        };
        let mut taken = BTreeSet::new();
        for (ours, theirs) in &self.parameter_names {
            let field = format_args!("parameter_names.{ours}");
            check_name(&field, theirs)?;
            check(taken.insert(theirs), field, "is the name of another parameter as well")?;
        }
        for name in self.parameter_types.keys() {
            let field = format_args!("parameter_types.{name}");
            check(!name.is_empty(), field, "must not be empty")?;
            check(is_json, field, "has no effect unless `body` is `json`")?;
        }
        let reserved = "must be set by the grant or the client authentication";
        for (name, value) in &self.extra_parameters {
            let field = format_args!("extra_parameters.{name}");
            check_name(&field, name)?;
            check(!self.is_reserved(name), field, reserved)?;
            let has_text = !(value.is_null() || value.is_array() || value.is_object());
            let why = "must be a string, a number or a boolean unless `body` is `json`";
            check(is_json || has_text, field, why)?;
            let kind = self.parameter_type(name);
            let fits = value.as_str().is_none_or(|text| kind.fits(text));
            check(fits, field, format_args!("must be {} (`parameter_types`)", kind.noun()))?;
        }
        for (name, source) in &self.parameters_from_previous {
            let field = format_args!("parameters_from_previous.{name}");
            check_name(&field, name)?;
            check(!self.is_reserved(name), field, reserved)?;
            let is_extra = self.extra_parameters.contains_key(name);
            check(!is_extra, field, "is one of `extra_parameters` as well")?;
            let why = "must be `access_token`, `refresh_token`, `id_token`, `scope`, or one of `fields.extra`";
            let is_field =
                ["access_token", "refresh_token", "id_token", "scope"].contains(&source.as_str());
            check(is_field || self.fields.extra_name(source).is_some(), field, why)?;
        }
        Ok(())
    }

    /// Returns whether only a grant or the client authentication sets a parameter, under either of its names.
    fn is_reserved(&self, name: &str) -> bool {
        known::PARAMETERS
            .iter()
            .filter(|(_, traits)| traits & known::RESERVED != 0)
            .any(|(ours, _)| name == *ours || name == self.parameter_name(ours))
    }

    fn validate_errors(&self) -> Result<(), TokenError> {
        for (field, texts) in [
            ("denied", &self.denied),
            ("transient", &self.transient),
            ("denied_descriptions", &self.denied_descriptions),
            ("transient_descriptions", &self.transient_descriptions),
        ] {
            let is_empty = texts.iter().any(|text| text.trim().is_empty());
            check(!is_empty, field, "must not contain an empty string")?;
        }
        if let Some(code) = self.transient.iter().find(|code| self.denied.contains(code)) {
            return wrong("transient", format_args!("contains `{code}`, as `denied` does"));
        }
        let is_refusal =
            |status| (400..500).contains(&status) && !matches!(status, 407 | 408 | 421 | 425 | 429);
        match self.denied_statuses.iter().find(|status| !is_refusal(**status)) {
            Some(status) => {
                let why = format_args!("contains {status}, which never refuses a grant");
                wrong("denied_statuses", why)
            }
            None => Ok(()),
        }
    }

    fn validate_durations(&self) -> Result<(), TokenError> {
        for (field, duration) in
            [("default_lifetime", self.default_lifetime), ("reuse_grace", self.reuse_grace)]
        {
            let is_zero = duration.is_some_and(|duration| duration.is_zero());
            check(!is_zero, field, "must be above 0, or left out")?;
        }
        let has_effect = self.rotates || self.reuse_grace.is_none();
        check(has_effect, "reuse_grace", "has no effect if `rotates` is false")
    }
}

impl Fields {
    fn validate(&self) -> Result<(), TokenError> {
        for (field, pointers) in self.lists() {
            for pointer in pointers {
                check_pointer(format_args!("fields.{field}"), pointer)?;
            }
        }
        check(!self.access_token.is_empty(), "fields.access_token", "must name a field")?;
        let why = format_args!("must not have more than {EXTRA_MAX} fields");
        check(self.extra.len() <= EXTRA_MAX, "fields.extra", why)?;
        for (name, pointers) in &self.extra {
            let field = format_args!("fields.extra.{name}");
            let is_named = !name.is_empty() && !pointers.is_empty();
            check(is_named, field, "must have a name and a JSON pointer")?;
            for pointer in pointers {
                check_pointer(field, pointer)?;
            }
        }
        Ok(())
    }
}

/// Returns whether a header decides where a message goes or where it ends. Only the HTTP client sets such headers.
pub(in crate::oauth2) fn is_reserved_header(name: &HeaderName) -> bool {
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

/// RFC 9110 §8.3.1: a type, a subtype, and parameters after semicolons.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(is_token)
    };
    let mut parts = text.split(';').map(|part| part.trim_end_matches([' ', '\t']));
    let essence = parts.next().and_then(|essence| essence.split_once('/'));
    essence.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parts.all(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                let is_text = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
                is_token(name.trim_start_matches([' ', '\t']))
                    && (is_token(value) || quoted.is_some_and(|text| text.bytes().all(is_text)))
            })
        })
}

fn check_pointer(field: impl Display, pointer: &str) -> Result<(), TokenError> {
    let field = field.to_string();
    let is_pointer = pointer.starts_with('/') || pointer.is_empty() && field == "root";
    check(is_pointer, field, "must be a JSON pointer, which begins with `/`: `/data/access_token`")
}

fn check(is_right: bool, field: impl Display, why: impl Display) -> Result<(), TokenError> {
    if is_right { Ok(()) } else { wrong(field, why) }
}

fn wrong(field: impl Display, why: impl Display) -> Result<(), TokenError> {
    Err(TokenError::misconfigured(format!("dialect field `{field}` {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_names_the_field_that_is_wrong() {
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
            (r#"{"extra_headers": {"Content-Type": "text/plain"}}"#, "content_type"),
            (r#"{"fields": {"extra": {"a": "a"}}}"#, "fields.extra.a"),
            (r#"{"fields": {"extra": {"a": []}}}"#, "fields.extra.a"),
            (r#"{"fields": {"extra": [""]}}"#, "fields.extra."),
            (r#"{"denied": [""]}"#, "denied"),
            (r#"{"transient": [" "]}"#, "transient"),
            (r#"{"denied": ["190"], "transient": [190]}"#, "transient"),
            (r#"{"denied_descriptions": [""]}"#, "denied_descriptions"),
            (r#"{"transient_descriptions": [""]}"#, "transient_descriptions"),
            (r#"{"denied_statuses": [200]}"#, "denied_statuses"),
            (r#"{"denied_statuses": [400, 429]}"#, "denied_statuses"),
            (r#"{"denied_statuses": [408]}"#, "denied_statuses"),
            (r#"{"denied_statuses": [503]}"#, "denied_statuses"),
            (r#"{"default_lifetime": 0}"#, "default_lifetime"),
            (r#"{"reuse_grace": 0}"#, "reuse_grace"),
            (r#"{"reuse_grace": 9, "rotates": false}"#, "reuse_grace"),
            (r#"{"method": "GET", "body": "json"}"#, "body"),
            (r#"{"method": "GET", "content_type": "text/plain"}"#, "content_type"),
            (r#"{"body": "query", "content_type": "text/plain"}"#, "content_type"),
            (r#"{"parameter_types": {"a": "number"}}"#, "parameter_types.a"),
            (r#"{"method": "GET", "parameter_types": {"a": "number"}}"#, "parameter_types.a"),
            (r#"{"body": "json", "parameter_types": {"": "number"}}"#, "parameter_types."),
            (r#"{"parameter_names": {"scope": "/a/b"}}"#, "parameter_names.scope"),
            (r#"{"extra_parameters": {"/a": "b"}}"#, "extra_parameters./a"),
            (r#"{"parameters_from_previous": {"/a": "scope"}}"#, "parameters_from_previous./a"),
            (r#"{"extra_parameters": {"a": null}}"#, "extra_parameters.a"),
            (r#"{"extra_parameters": {"a": [1]}}"#, "extra_parameters.a"),
            (r#"{"method": "GET", "extra_parameters": {"a": {"b": 1}}}"#, "extra_parameters.a"),
            (
                r#"{"body": "json", "extra_parameters": {"a": "x"}, "parameter_types": {"a": "number"}}"#,
                "extra_parameters.a",
            ),
            (r#"{"parameters_from_previous": {"a": "expires_in"}}"#, "parameters_from_previous.a"),
            (r#"{"parameters_from_previous": {"": "scope"}}"#, "parameters_from_previous."),
            (
                r#"{"parameters_from_previous": {"client_secret": "access_token"}}"#,
                "parameters_from_previous.client_secret",
            ),
            (
                r#"{"parameter_names": {"refresh_token": "rt"}, "parameters_from_previous": {"rt": "access_token"}}"#,
                "parameters_from_previous.rt",
            ),
            (
                r#"{"extra_parameters": {"a": "x"}, "parameters_from_previous": {"a": "scope"}}"#,
                "parameters_from_previous.a",
            ),
        ] {
            let error = serde_json::from_str::<Dialect>(json).unwrap().validate().unwrap_err();
            assert!(error.is_misconfigured());
            assert!(error.to_string().contains(&format!("`{field}`")), "{json}: {error}");
        }
    }

    #[test]
    fn content_type_must_be_a_media_type() {
        let mut dialect = serde_json::from_str::<Dialect>(r#"{"body": "json"}"#).unwrap();
        for good in [
            "application/x-amz-json-1.1",
            "application/vnd.api+json",
            "application/json; charset=utf-8",
            "application/json;charset=\"utf-8\"",
            "text/plain ; a=b ;c=d",
        ] {
            dialect.content_type = Some(good.into());
            dialect.validate().unwrap();
        }
        for bad in [
            "",
            "json",
            "application/",
            "/json",
            "application/json;",
            "application/json; charset",
            "application/json, text/plain",
            "application/json\r\nx-a: b",
            "application/jsön",
            " application/json",
            "a/b/c",
        ] {
            dialect.content_type = Some(bad.into());
            let error = dialect.validate().unwrap_err();
            assert!(error.to_string().contains("`content_type`"), "{bad}: {error}");
        }
    }

    /// Fault C22.
    #[test]
    fn extra_fields_are_bounded() {
        let mut fields = Fields::default();
        for number in 0..=EXTRA_MAX {
            fields.validate().unwrap();
            fields.extra.insert(number.to_string(), vec!["/a".to_owned()]);
        }
        let error = fields.validate().unwrap_err();
        assert!(error.to_string().contains("`fields.extra`"), "{error}");
    }
}
