//! How the token goes onto a request.

use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::error::TokenError;
use crate::token::AccessToken;

/// The header that the token goes into, and the scheme that goes before it.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    name: HeaderName,
    scheme: Scheme,
    /// What is wrong with the scheme. Setters cannot fail, so each request does.
    invalid: Option<TokenError>,
}

#[derive(Clone, Debug)]
enum Scheme {
    /// RFC 6750 §2.1
    Bearer,
    /// A token of RFC 9110 §5.6.2.
    Other(Arc<str>),
    /// The token alone.
    None,
}

impl Attach {
    /// Names the header.
    pub(crate) fn header(&mut self, name: HeaderName) {
        self.name = name;
    }

    /// Names the scheme (RFC 9110 §11.1).
    pub(crate) fn scheme(&mut self, scheme: &str) {
        // An invalid one is neither kept nor shown: the token may be in it.
        self.invalid = if scheme.is_empty() {
            Some(TokenError::misconfigured(
                "the scheme is empty: for the token alone, write .without_scheme()",
            ))
        } else if !scheme.bytes().all(is_tchar) {
            Some(TokenError::misconfigured(
                "the scheme is not a single word of letters, digits and hyphens: write its name alone, such as .scheme(\"OAuth\")",
            ))
        } else {
            None
        };
        self.scheme = match scheme {
            _ if self.invalid.is_some() => Scheme::Bearer,
            "Bearer" => Scheme::Bearer,
            other => Scheme::Other(other.into()),
        };
    }

    /// Leaves the scheme out: the token alone.
    pub(crate) fn without_scheme(&mut self) {
        self.scheme = Scheme::None;
        self.invalid = None;
    }

    /// Returns why no request can carry the token.
    pub(crate) fn invalid(&self) -> Option<&TokenError> {
        self.invalid.as_ref()
    }

    /// Returns whether the request brings the header itself: it keeps it, and the answer says nothing of our token.
    pub(crate) fn carries_own(&self, head: &Parts) -> bool {
        head.headers.contains_key(&self.name)
    }

    /// Puts the token into the header. Allocates nothing beyond what the header map does for another header, but for the first
    /// request with a token and a scheme other than `Bearer`.
    ///
    /// # Errors
    ///
    /// A misconfigured error if the request has more headers than `http` can hold.
    pub(crate) fn attach(&self, head: &mut Parts, token: &AccessToken) -> Result<(), TokenError> {
        let value = match &self.scheme {
            Scheme::Bearer => token.header_value().clone(),
            Scheme::Other(scheme) => token.with_scheme(scheme)?,
            Scheme::None => token.bare_header_value().clone(),
        };
        match head.headers.try_insert(self.name.clone(), value) {
            Ok(_) => Ok(()),
            Err(_) => Err(TokenError::misconfigured(
                "the request has so many headers that there is no room for the token",
            )),
        }
    }
}

impl Default for Attach {
    /// RFC 6750 §2.1
    fn default() -> Self {
        Self { name: AUTHORIZATION, scheme: Scheme::Bearer, invalid: None }
    }
}

/// RFC 9110 §5.6.2
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn token() -> AccessToken {
        AccessToken::new("sesame").unwrap()
    }

    fn head() -> Parts {
        Request::new(()).into_parts().0
    }

    #[test]
    fn the_default_is_what_rfc_6750_says() {
        let mut head = head();
        Attach::default().attach(&mut head, &token()).unwrap();
        assert_eq!(head.headers[AUTHORIZATION], "Bearer sesame");
        assert!(head.headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn another_header_may_have_the_token_bare() {
        let name = HeaderName::from_static("x-api-token");
        let mut head = head();
        let mut attach = Attach::default();
        attach.header(name.clone());
        attach.attach(&mut head, &token()).unwrap();
        assert_eq!(head.headers[&name], "Bearer sesame");
        attach.without_scheme();
        attach.attach(&mut head, &token()).unwrap();
        assert_eq!(head.headers[&name], "sesame");
        assert!(head.headers[&name].is_sensitive());
        assert_eq!(head.headers.len(), 1);
    }

    /// C20
    #[test]
    fn scheme_set_last_counts() {
        let mut attach = Attach::default();
        let mut head = head();
        let mut sent = |attach: &Attach| {
            attach.attach(&mut head, &token()).unwrap();
            head.headers[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        attach.scheme("OAuth");
        assert_eq!(sent(&attach), "OAuth sesame");
        attach.without_scheme();
        assert_eq!(sent(&attach), "sesame");
        attach.scheme("bearer");
        assert_eq!(sent(&attach), "bearer sesame");
        attach.scheme("Bearer");
        assert_eq!(sent(&attach), "Bearer sesame");

        attach.scheme("Bearer sesame");
        assert!(attach.invalid().is_some());
        assert!(!format!("{attach:?}").contains("sesame"));
        attach.scheme("OAuth");
        assert!(attach.invalid().is_none());
        attach.scheme("");
        attach.without_scheme();
        assert!(attach.invalid().is_none());
    }

    #[test]
    fn a_header_of_the_callers_own_is_seen_and_another_one_is_not_taken_for_it() {
        let mut head = head();
        let attach = Attach::default();
        head.headers.insert("proxy-authorization", HeaderValue::from_static("a"));
        assert!(!attach.carries_own(&head));
        head.headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic a"));
        assert!(attach.carries_own(&head));
    }
}
