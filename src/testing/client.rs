//! Client authentication (RFC 6749 §2.3).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::form::Form;

/// The client that the server accepts.
#[derive(Clone, Default)]
pub(super) enum Client {
    #[default]
    Any,
    /// A client without a secret, with its id in the body (RFC 6749 §3.2.1).
    Public { id: String },
    /// A client with a secret.
    Confidential {
        id: String,
        secret: String,
        /// True if id and secret are in the Basic header without form-encoding, unlike RFC 6749 §2.3.1.
        unencoded: bool,
    },
}

/// The reason why an authentication is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unauthenticated {
    /// `invalid_client`, with a description.
    Invalid(&'static str),
    /// `invalid_request`: RFC 6749 §2.3 forbids more than one method at once.
    Twice,
}

impl Client {
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &Form,
    ) -> Result<(), Unauthenticated> {
        let named = form.get("client_id");
        let (id, secret) = match self {
            Client::Any => return Ok(()),
            Client::Public { id } if named == Some(id) => return Ok(()),
            Client::Public { .. } => {
                return Err(Unauthenticated::Invalid("the body must name the client: client_id"));
            }
            Client::Confidential { id, secret, .. } => (id, secret),
        };
        let (given, given_secret) = match (headers.get(AUTHORIZATION), form.get("client_secret")) {
            (Some(_), Some(_)) => return Err(Unauthenticated::Twice),
            (Some(header), None) => self.read_basic(header.as_bytes())?,
            (None, Some(secret)) => (named.cloned().unwrap_or_default(), secret.clone()),
            (None, None) => return Err(Unauthenticated::Invalid("no client authentication")),
        };
        // The same `client_id` in the body is not a second authentication.
        if given == *id && given_secret == *secret && named.is_none_or(|named| *named == given) {
            Ok(())
        } else {
            Err(Unauthenticated::Invalid("unknown client or wrong secret"))
        }
    }

    fn read_basic(&self, header: &[u8]) -> Result<(String, String), Unauthenticated> {
        let not_basic = Unauthenticated::Invalid("the Authorization header is not Basic");
        let (scheme, rest) = header.split_at_checked(6).ok_or(not_basic)?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return Err(not_basic);
        }
        let pair = STANDARD.decode(rest).map_err(|_| not_basic)?;
        let pair = String::from_utf8(pair).map_err(|_| not_basic)?;
        let (id, secret) = pair.split_once(':').ok_or(not_basic)?;
        if let Client::Confidential { unencoded: true, .. } = self {
            return Ok((id.to_owned(), secret.to_owned()));
        }
        match (form_decode(id), form_decode(secret)) {
            (Some(id), Some(secret)) => Ok((id, secret)),
            _ => Err(Unauthenticated::Invalid(
                "id and secret must be form-encoded before base64 (RFC 6749, section 2.3.1)",
            )),
        }
    }

    pub(super) fn may_act_for_itself(&self) -> bool {
        // RFC 6749 §4.4: only a confidential client may use `client_credentials`.
        !matches!(self, Client::Public { .. })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Client::Any => "any",
            Client::Public { .. } => "public",
            Client::Confidential { .. } => "confidential",
        })
    }
}

/// Decodes one value of `application/x-www-form-urlencoded` strictly, so that a client without the encoding is refused. The
/// marks that some encoders leave unchanged are accepted.
fn form_decode(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~*!'()".contains(&byte) => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_without_form_encoding_is_refused() {
        assert_eq!(
            form_decode("s3cr3t%3Awith%2Fodd%25chars%2B%26%3D+%C3%A9").as_deref(),
            Some("s3cr3t:with/odd%chars+&= é")
        );
        for raw in ["a:b", "a/b", "100%", "%zz", "%2", "a b", "é", "a&b", "%ff"] {
            assert_eq!(form_decode(raw), None, "{raw}");
        }
    }
}
