//! The body of a request to a token endpoint (RFC 6749 §3.2, appendix B).

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;

/// The parameters that are not empty.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Parses a form. The error is a description for the client.
    pub(super) fn read(head: &Parts, body: Option<&Bytes>) -> Result<Self, &'static str> {
        let Some(body) = body else {
            return Err("the body ended early");
        };
        let content_type = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default();
        if !content_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err("the content type must be application/x-www-form-urlencoded");
        }

        let mut pairs = Vec::<(String, String)>::new();
        for (name, value) in form_urlencoded::parse(body) {
            // RFC 8693 §2.1, RFC 8707 §2
            let may_repeat = ["audience", "resource"].contains(&&*name);
            if !may_repeat && pairs.iter().any(|(known, _)| *known == name) {
                return Err("a parameter is repeated");
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        // RFC 6749 §3.2: a parameter without a value counts as omitted.
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the values of these parameters, separated by spaces.
    pub(super) fn words(&self, names: &[&str]) -> String {
        let named = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
    }
}
