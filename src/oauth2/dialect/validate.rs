//! What a dialect must not contain.

use std::collections::BTreeSet;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use super::{Dialect, Fields};
use crate::error::TokenError;

impl Dialect {
    /// Checks what the types cannot.
    ///
    /// A [`TokenEndpoint`](crate::oauth2::TokenEndpoint) with a dialect that fails here sends nothing, and every request fails
    /// with the same error; call it where the configuration is read, to hear of it sooner.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error that names the field.
    pub fn validate(&self) -> Result<(), TokenError> {
        self.validate_names()?;
        self.validate_extra_headers()?;
        self.validate_extra_parameters()?;
        self.validate_request()?;
        if let Some(path) = &self.refresh_path {
            validate_refresh_path(path)?;
        }
        validate_pointer("root", &self.root)?;
        self.fields.validate()?;
        self.validate_errors()?;
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

    fn validate_errors(&self) -> Result<(), TokenError> {
        for (field, texts) in [
            ("denied", &self.denied),
            ("transient", &self.transient),
            ("denied_descriptions", &self.denied_descriptions),
            ("transient_descriptions", &self.transient_descriptions),
        ] {
            if texts.iter().any(|text| text.trim().is_empty()) {
                return wrong(field, "must not contain an empty string");
            }
        }
        if let Some(code) = self.transient.iter().find(|code| self.denied.contains(code)) {
            return wrong("transient", &format!("lists `{code}`, which `denied` lists as well"));
        }
        let is_refusal =
            |status| (400..500).contains(&status) && !matches!(status, 407 | 408 | 421 | 425 | 429);
        if let Some(status) = self.denied_statuses.iter().find(|status| !is_refusal(**status)) {
            return wrong(
                "denied_statuses",
                &format!("lists {status}, which never refuses a grant"),
            );
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
            if name == http::header::CONTENT_TYPE {
                return wrong(field, "is not for a dialect to set; use `content_type`");
            }
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
            if self.is_reserved_parameter(name) {
                return wrong(
                    field,
                    "is a parameter of the grant or of the client authentication, and is set there",
                );
            }
        }
        Ok(())
    }

    /// Returns whether a parameter is one that only a grant or the client authentication sets, under either of its names.
    pub(super) fn is_reserved_parameter(&self, name: &str) -> bool {
        RESERVED_PARAMETERS.iter().any(|ours| name == *ours || name == self.parameter_name(ours))
    }
}

impl Fields {
    fn validate(&self) -> Result<(), TokenError> {
        for (field, pointers) in self.lists() {
            for pointer in pointers {
                validate_pointer(&format!("fields.{field}"), pointer)?;
            }
        }
        if self.access_token.is_empty() {
            return wrong("fields.access_token", "must name a field");
        }
        self.validate_extra()
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
pub(in crate::oauth2) fn is_reserved_header(name: &HeaderName) -> bool {
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

pub(super) fn validate_pointer(field: &str, pointer: &str) -> Result<(), TokenError> {
    if pointer.is_empty() && field == "root" || pointer.starts_with('/') {
        return Ok(());
    }
    wrong(field, "must be a JSON pointer, which begins with `/`, as in `/data/access_token`")
}

pub(super) fn wrong(field: impl std::fmt::Display, why: &str) -> Result<(), TokenError> {
    Err(TokenError::misconfigured(format!("dialect field `{field}` {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            let error = serde_json::from_str::<Dialect>(json).unwrap().validate().unwrap_err();
            assert!(error.is_misconfigured());
            assert!(error.to_string().contains(&format!("`{field}`")), "{json}: {error}");
        }
    }
}
