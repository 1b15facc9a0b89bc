//! What a dialect must not contradict in a request.

use super::validate::wrong;
use super::{BodyFormat, Dialect, RequestMethod};
use crate::error::TokenError;

impl Dialect {
    pub(super) fn validate_request(&self) -> Result<(), TokenError> {
        let is_get = self.method == RequestMethod::Get;
        if is_get && self.body == BodyFormat::Json {
            return wrong("body", "must not be `json` where `method` is GET: there is no body");
        }
        if let Some(content_type) = &self.content_type {
            if self.uses_query() {
                return wrong("content_type", "has no effect without a body");
            }
            if !is_media_type(content_type) {
                return wrong("content_type", "must be a media type, as in `application/json`");
            }
        }
        self.validate_pointers()?;
        self.validate_parameter_types()?;
        self.validate_extra_parameter_values()?;
        self.validate_parameters_from_previous()
    }

    /// A name that is a JSON pointer needs an object to point into.
    fn validate_pointers(&self) -> Result<(), TokenError> {
        if self.body == BodyFormat::Json {
            return Ok(());
        }
        let renamed =
            self.parameter_names.iter().map(|(ours, theirs)| ("parameter_names", ours, theirs));
        let extra = self.extra_parameters.keys().map(|name| ("extra_parameters", name, name));
        let previous = self
            .parameters_from_previous
            .keys()
            .map(|name| ("parameters_from_previous", name, name));
        match renamed.chain(extra).chain(previous).find(|(_, _, name)| name.starts_with('/')) {
            Some((field, name, _)) => wrong(
                format_args!("{field}.{name}"),
                "is a JSON pointer, which has no effect unless `body` is `json`",
            ),
            None => Ok(()),
        }
    }

    fn validate_parameter_types(&self) -> Result<(), TokenError> {
        for name in self.parameter_types.keys() {
            let field = format_args!("parameter_types.{name}");
            if name.is_empty() {
                return wrong(field, "has no name");
            }
            if self.uses_query() || self.body != BodyFormat::Json {
                return wrong(field, "has no effect unless `body` is `json`");
            }
        }
        Ok(())
    }

    fn validate_extra_parameter_values(&self) -> Result<(), TokenError> {
        let has_types = !self.uses_query() && self.body == BodyFormat::Json;
        for (name, value) in &self.extra_parameters {
            let field = format_args!("extra_parameters.{name}");
            if !has_types && (value.is_null() || value.is_array() || value.is_object()) {
                return wrong(
                    field,
                    "must be a string, a number or a boolean unless `body` is `json`",
                );
            }
            let kind = self.parameter_type(name);
            if value.as_str().is_some_and(|text| !kind.fits(text)) {
                return wrong(
                    field,
                    &format!("is not {}, as `parameter_types` has it", kind.noun()),
                );
            }
        }
        Ok(())
    }

    fn validate_parameters_from_previous(&self) -> Result<(), TokenError> {
        for (name, source) in &self.parameters_from_previous {
            let field = format_args!("parameters_from_previous.{name}");
            if name.is_empty() {
                return wrong(field, "has no name");
            }
            if self.is_reserved_parameter(name) {
                return wrong(
                    field,
                    "is a parameter of the grant or of the client authentication, and is set there",
                );
            }
            if self.extra_parameters.contains_key(name) {
                return wrong(field, "is one of `extra_parameters` as well");
            }
            if self.previous_field(source).is_none() {
                return wrong(
                    field,
                    "must be `access_token`, `refresh_token`, `id_token`, `scope`, or one of `fields.extra`",
                );
            }
        }
        Ok(())
    }
}

/// RFC 9110 §8.3.1: a type, a subtype, and parameters after semicolons.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim_end_matches([' ', '\t']);
    essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parts.all(|parameter| {
            let parameter = parameter.trim_matches([' ', '\t']);
            parameter.split_once('=').is_some_and(|(name, value)| {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                is_token(name)
                    && (is_token(value)
                        || quoted.is_some_and(|quoted| {
                            quoted
                                .bytes()
                                .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
                        }))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Dialect {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn contradictions_are_refused_by_the_name_of_the_field() {
        for (json, field) in [
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
            let error = parse(json).validate().unwrap_err();
            assert!(error.is_misconfigured());
            assert!(error.to_string().contains(&format!("`{field}`")), "{json}: {error}");
        }
    }

    #[test]
    fn a_content_type_must_be_a_media_type() {
        let mut dialect = parse(r#"{"body": "json"}"#);
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
}
