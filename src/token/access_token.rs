//! Access tokens: parsed once, sent often.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::error::TokenError;

/// The scheme that goes before an access token in a header (RFC 6750 §2.1).
const BEARER: &str = "Bearer";

/// An access token (RFC 6749 §1.4) of the bearer type (RFC 6750), ready to be sent.
///
/// It is parsed once, into a header value that is marked sensitive; attaching it cannot fail, and cloning it does not
/// allocate. It is redacted in `Debug` and wiped from memory when the last clone, on whichever request, is dropped.
#[derive(Clone)]
pub struct AccessToken {
    // `Bearer <token>`; both values share one buffer.
    bearer: HeaderValue,
    bare: HeaderValue,
    // Another scheme, and its value: the first one that the token was sent with.
    other: OnceLock<(Arc<str>, HeaderValue)>,
}

impl AccessToken {
    /// Parses an access token.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error if the token is empty, or contains anything but visible
    /// ASCII characters (RFC 6750 §2.1 allows fewer still), such as a line break at its end.
    pub fn new(token: impl AsRef<str>) -> Result<Self, TokenError> {
        let token = token.as_ref().as_bytes();
        if token.is_empty() {
            return Err(TokenError::misconfigured("the access token is empty"));
        }
        if token.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer ")) {
            return Err(TokenError::misconfigured(
                "the access token begins with the scheme `Bearer`: remove it, since the layer adds it",
            ));
        }
        if let Some(at) = token.iter().position(|byte| !byte.is_ascii_graphic()) {
            return Err(TokenError::misconfigured(format!(
                "the access token contains a character at byte {at} that is not visible ASCII, such as a line break: remove it where the value is read"
            )));
        }

        let (bearer, bare) = header_values(BEARER, token)?;
        Ok(Self { bearer, bare, other: OnceLock::new() })
    }

    /// Returns the token itself.
    pub fn expose_secret(&self) -> &str {
        // Nothing but visible ASCII got in.
        self.bare.to_str().unwrap_or_default()
    }

    /// Returns `Bearer <token>`, a header value marked sensitive.
    pub fn header_value(&self) -> &HeaderValue {
        &self.bearer
    }

    /// Returns `<scheme> <token>`, a header value marked sensitive. The scheme is a token of RFC 9110 §5.6.2.
    ///
    /// It is composed once for each token, since a program has one scheme. Each further scheme costs an allocation per call.
    pub(crate) fn with_scheme(&self, scheme: &Arc<str>) -> Result<HeaderValue, TokenError> {
        if let Some((of, value)) = self.other.get()
            && of == scheme
        {
            return Ok(value.clone());
        }
        let (value, _) = header_values(scheme, self.bare.as_bytes())?;
        // Another request may have set it first.
        let _ = self.other.set((Arc::clone(scheme), value.clone()));
        Ok(value)
    }

    /// Returns the token alone, a header value marked sensitive.
    pub fn bare_header_value(&self) -> &HeaderValue {
        &self.bare
    }
}

/// Returns `<scheme> <token>` and the token alone, in one buffer that is wiped with the last clone of either.
fn header_values(scheme: &str, token: &[u8]) -> Result<(HeaderValue, HeaderValue), TokenError> {
    let start = scheme.len() + 1;
    let mut buffer = Zeroizing::new(Vec::with_capacity(start + token.len()));
    buffer.extend_from_slice(scheme.as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(token);
    let with_scheme = Bytes::from_owner(buffer);
    let bare = with_scheme.slice(start..);
    let value = |bytes| {
        let mut value = HeaderValue::from_maybe_shared(bytes).map_err(TokenError::misconfigured)?;
        value.set_sensitive(true);
        Ok::<_, TokenError>(value)
    };
    Ok((value(with_scheme)?, value(bare)?))
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_cannot_go_into_a_header_is_refused_and_not_shown() {
        for bad in ["", "sesame\n", "ses ame", "sésame", "\u{7f}sesame"] {
            let error = AccessToken::new(bad).unwrap_err();
            assert!(error.is_misconfigured());
            assert!(bad.is_empty() || !format!("{error} {error:?}").contains("ses"));
        }
    }

    #[test]
    fn token_with_its_scheme_is_an_error_that_names_the_scheme() {
        let error = AccessToken::new("bearer sesame").unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("`Bearer`"), "{error}");
        assert!(AccessToken::new("bearer").is_ok());
    }

    #[test]
    fn header_values_are_ready_and_sensitive() {
        let token = AccessToken::new("sesame").unwrap();
        assert_eq!(token.header_value(), "Bearer sesame");
        assert_eq!(token.bare_header_value(), "sesame");
        assert!(token.header_value().is_sensitive() && token.bare_header_value().is_sensitive());
        assert_eq!(token.expose_secret(), "sesame");
    }

    /// C20
    #[test]
    fn another_scheme_is_composed_once_and_marked_sensitive() {
        let token = AccessToken::new("sesame").unwrap();
        let (oauth, zoho) = (Arc::from("OAuth"), Arc::from("Zoho-oauthtoken"));
        for _ in 0..2 {
            for (scheme, expected) in [(&oauth, "OAuth sesame"), (&zoho, "Zoho-oauthtoken sesame")]
            {
                let value = token.with_scheme(scheme).unwrap();
                assert_eq!(value, expected);
                assert!(value.is_sensitive());
            }
        }
        let first = token.with_scheme(&oauth).unwrap();
        let again = token.clone().with_scheme(&Arc::from("OAuth")).unwrap();
        assert_eq!(first.as_bytes().as_ptr(), again.as_bytes().as_ptr());
        assert_eq!(token.header_value(), "Bearer sesame");
    }
}
