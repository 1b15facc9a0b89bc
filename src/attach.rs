//! How the token goes onto a request.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::error::TokenError;
use crate::token::AccessToken;

/// The header that the token goes into, and whether its scheme goes before it.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    name: HeaderName,
    with_scheme: bool,
}

impl Attach {
    /// Names the header.
    pub(crate) fn header(&mut self, name: HeaderName) {
        self.name = name;
    }

    /// Leaves the scheme out: the token alone.
    pub(crate) fn without_scheme(&mut self) {
        self.with_scheme = false;
    }

    /// Returns whether the request brings the header itself: it keeps it, and the answer says nothing of our token.
    pub(crate) fn carries_own(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.name)
    }

    /// Puts the token into the header. Allocates nothing beyond what the header map does for another header.
    ///
    /// # Errors
    ///
    /// A misconfigured error if the request has more headers than `http` can hold.
    pub(crate) fn attach(
        &self,
        headers: &mut HeaderMap,
        token: &AccessToken,
    ) -> Result<(), TokenError> {
        let value = if self.with_scheme { token.header_value() } else { token.bare_header_value() };
        match headers.try_insert(self.name.clone(), value.clone()) {
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
        Self { name: AUTHORIZATION, with_scheme: true }
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
    fn the_default_is_what_rfc_6750_says() {
        let mut headers = HeaderMap::new();
        Attach::default().attach(&mut headers, &token()).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer sesame");
        assert!(headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn another_header_may_have_the_token_bare() {
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

    #[test]
    fn a_header_of_the_callers_own_is_seen_and_another_one_is_not_taken_for_it() {
        let mut headers = HeaderMap::new();
        let attach = Attach::default();
        headers.insert("proxy-authorization", HeaderValue::from_static("a"));
        assert!(!attach.carries_own(&headers));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic a"));
        assert!(attach.carries_own(&headers));
    }
}
