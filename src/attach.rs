//! How the token is attached to a request.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::classify::is_tchar;
use crate::error::TokenError;
use crate::token::AccessToken;

/// The header of the token, and the scheme before the token.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    name: HeaderName,
    scheme: Scheme,
    /// The error of an invalid scheme. The setter returns no error, so each request fails with it.
    invalid: Option<TokenError>,
}

#[derive(Clone, Debug)]
enum Scheme {
    Bearer,
    /// A token of RFC 9110 §5.6.2.
    Other(Arc<str>),
    /// The access token is sent alone.
    None,
}

impl Attach {
    /// Sets the header.
    pub(crate) fn header(&mut self, name: HeaderName) {
        self.name = name;
    }

    /// Sets the scheme (RFC 9110 §11.1).
    pub(crate) fn scheme(&mut self, scheme: &str) {
        self.invalid = match scheme {
            "" => Some(TokenError::misconfigured(
                "the scheme is empty: for the token alone, write .without_scheme()",
            )),
            scheme if scheme.bytes().all(is_tchar) => None,
            _ => Some(TokenError::misconfigured(
                "the scheme is not a single word of letters, digits and hyphens: write its name alone, such as .scheme(\"OAuth\")",
            )),
        };
        self.scheme = match scheme {
            // An invalid scheme may contain the token: it is not kept, and not shown.
            _ if self.invalid.is_some() => Scheme::None,
            "Bearer" => Scheme::Bearer,
            other => Scheme::Other(other.into()),
        };
    }

    /// Leaves the scheme out.
    pub(crate) fn without_scheme(&mut self) {
        self.scheme = Scheme::None;
        self.invalid = None;
    }

    /// Returns why no request can carry the token.
    pub(crate) fn invalid(&self) -> Option<&TokenError> {
        self.invalid.as_ref()
    }

    /// Returns whether the caller has set the header. It is kept, and the response has no effect on the token.
    pub(crate) fn carries_own(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.name)
    }

    /// Sets the header to the token, marked sensitive. Allocates only what the header map needs, except for the first request with
    /// a scheme other than `Bearer`.
    ///
    /// # Errors
    ///
    /// A misconfigured error if the request has as many headers as `http` can hold.
    pub(crate) fn attach(
        &self,
        headers: &mut HeaderMap,
        token: &AccessToken,
    ) -> Result<(), TokenError> {
        let value = match &self.scheme {
            Scheme::Bearer => token.with_bearer().clone(),
            Scheme::Other(scheme) => token.with_scheme(scheme)?,
            Scheme::None => token.header_value().clone(),
        };
        match headers.try_insert(self.name.clone(), value) {
            Ok(_) => Ok(()),
            Err(_) => Err(TokenError::misconfigured(
                "the request has so many headers that there is no room for the token: remove some",
            )),
        }
    }
}

impl Default for Attach {
    /// `Authorization: Bearer <token>` (RFC 6750 §2.1)
    fn default() -> Self {
        Self { name: AUTHORIZATION, scheme: Scheme::Bearer, invalid: None }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token() -> AccessToken {
        AccessToken::new("sesame").unwrap()
    }

    #[test]
    fn default_is_a_bearer_token_in_the_authorization_header() {
        let mut headers = HeaderMap::new();
        Attach::default().attach(&mut headers, &token()).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer sesame");
        assert!(headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn another_header_carries_the_token_with_or_without_a_scheme() {
        let name = HeaderName::from_static("x-api-token");
        let mut headers = HeaderMap::new();
        let mut attach = Attach::default();
        attach.header(name.clone());
        attach.attach(&mut headers, &token()).unwrap();
        assert_eq!(headers[&name], "Bearer sesame");
        attach.without_scheme();
        attach.attach(&mut headers, &token()).unwrap();
        assert_eq!(headers[&name], "sesame");
        assert!(headers[&name].is_sensitive());
        assert_eq!(headers.len(), 1);
    }

    /// C20
    #[test]
    fn scheme_set_last_counts() {
        let mut attach = Attach::default();
        let mut headers = HeaderMap::new();
        let mut sent = |attach: &Attach| {
            attach.attach(&mut headers, &token()).unwrap();
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
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
    fn only_the_same_header_of_the_caller_is_kept() {
        let mut headers = HeaderMap::new();
        let attach = Attach::default();
        headers.insert("proxy-authorization", HeaderValue::from_static("a"));
        assert!(!attach.carries_own(&headers));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic a"));
        assert!(attach.carries_own(&headers));
    }
}
