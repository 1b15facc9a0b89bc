//! Access tokens: parsed once, sent often.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::error::TokenError;

/// An access token (RFC 6749 §1.4) of the bearer type (RFC 6750), ready to be sent.
///
/// It is parsed once, into a header value that is marked sensitive. Attaching it cannot fail, and cloning it does not allocate.
/// `Debug` redacts it, and it is wiped from memory when its last clone is dropped, including the clones in requests.
///
/// # Examples
///
/// ```
/// use tower_refresh::AccessToken;
///
/// let token: AccessToken = "sesame".parse()?;
/// assert_eq!(token.header_value(), "sesame");
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
pub struct AccessToken {
    /// A part of `with_bearer`: both share one buffer.
    token: HeaderValue,
    with_bearer: HeaderValue,
    /// The first other scheme that the token was sent with, and the value with that scheme.
    with_scheme: ArcSwapOption<(Arc<str>, HeaderValue)>,
}

impl AccessToken {
    /// Parses an access token.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error if the token is empty, begins with the scheme `Bearer`, or contains
    /// a character that is not visible ASCII, such as a line break at its end. (RFC 6750 §2.1 allows fewer characters.)
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::AccessToken;
    ///
    /// assert!(AccessToken::new("sesame").is_ok());
    /// assert!(AccessToken::new("sesame\n").unwrap_err().is_misconfigured());
    /// ```
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

        let with_bearer = joined(&[BEARER, token]);
        Ok(Self {
            token: secret_value(with_bearer.slice(BEARER.len()..))?,
            with_bearer: secret_value(with_bearer)?,
            with_scheme: ArcSwapOption::empty(),
        })
    }

    /// Returns the token.
    pub fn expose_secret(&self) -> &str {
        // `new` accepts visible ASCII only.
        self.token.to_str().unwrap_or_default()
    }

    /// Returns the token, without a scheme, as a header value that is marked sensitive.
    pub fn header_value(&self) -> &HeaderValue {
        &self.token
    }

    /// Returns whether this is the same token. The time that it takes shows nothing about where two tokens of one length differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (self.token.as_bytes(), other.token.as_bytes());
        let differ = |differ, (one, other): (&u8, &u8)| differ | (one ^ other);
        one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
    }

    /// Returns `Bearer <token>` as a header value that is marked sensitive.
    pub(crate) fn with_bearer(&self) -> &HeaderValue {
        &self.with_bearer
    }

    /// Returns `<scheme> <token>` as a header value that is marked sensitive. The scheme is a token of RFC 9110 §5.6.2.
    ///
    /// It is composed once for each token, since a program has one scheme. Each further scheme costs an allocation per call.
    pub(crate) fn with_scheme(&self, scheme: &Arc<str>) -> Result<HeaderValue, TokenError> {
        if let Some((of, value)) = self.with_scheme.load().as_deref()
            && of == scheme
        {
            return Ok(value.clone());
        }
        let value = secret_value(joined(&[scheme.as_bytes(), b" ", self.token.as_bytes()]))?;
        let first = Arc::new((Arc::clone(scheme), value.clone()));
        // Another request may have set it first.
        drop(self.with_scheme.compare_and_swap(&None::<Arc<_>>, Some(first)));
        Ok(value)
    }
}

const BEARER: &[u8] = b"Bearer ";

/// Joins the parts in a buffer that is wiped with its last clone.
fn joined(parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    // Allocated in its final size: a buffer that grows leaves a copy behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        buffer.extend_from_slice(part);
    }
    // Its capacity is its length, so that it is not copied.
    Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *buffer).into_boxed_slice()))
}

fn secret_value(bytes: Bytes) -> Result<HeaderValue, TokenError> {
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(TokenError::misconfigured)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Clone for AccessToken {
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
            with_bearer: self.with_bearer.clone(),
            with_scheme: ArcSwapOption::new(self.with_scheme.load_full()),
        }
    }
}

impl FromStr for AccessToken {
    type Err = TokenError;

    /// As [`AccessToken::new`].
    fn from_str(token: &str) -> Result<Self, TokenError> {
        Self::new(token)
    }
}

impl TryFrom<&str> for AccessToken {
    type Error = TokenError;

    /// As [`AccessToken::new`].
    fn try_from(token: &str) -> Result<Self, TokenError> {
        Self::new(token)
    }
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
    fn token_with_an_invalid_character_is_an_error_that_hides_it() {
        for bad in ["", "sesame\n", "ses ame", "sésame", "\u{7f}sesame"] {
            let error = AccessToken::new(bad).unwrap_err();
            assert!(error.is_misconfigured());
            assert!(bad.parse::<AccessToken>().is_err() && AccessToken::try_from(bad).is_err());
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
    fn header_value_is_the_token_and_sensitive() {
        let token = AccessToken::new("sesame").unwrap();
        assert_eq!(token.header_value(), "sesame");
        assert!(token.header_value().is_sensitive());
        assert_eq!(token.expose_secret(), "sesame");
        assert_eq!(token.with_bearer(), "Bearer sesame");
        assert!(token.with_bearer().is_sensitive());
    }

    /// C20
    #[test]
    fn value_with_a_scheme_is_composed_once_and_marked_sensitive() {
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
        assert_eq!(token.header_value(), "sesame");
    }
}
