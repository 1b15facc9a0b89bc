//! Content encodings (RFC 9110 §8.4.1), which some servers use without being asked.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zeroize::Zeroizing;

use crate::oauth2::scrub::Secrets;

/// The part of a body that could be decoded.
pub(super) struct Decoded {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) end: Result<(), String>,
}

/// Decodes a body. An error is the reason why that is not possible.
///
/// A text is not encoded, even if its header names an encoding: some clients decode the body and keep the header, and some
/// servers name a charset there.
pub(super) fn decode(
    bytes: Zeroizing<Vec<u8>>,
    headers: &HeaderMap,
    limit: usize,
    secrets: &Secrets,
) -> Result<Decoded, String> {
    if is_text(&bytes) {
        return Ok(Decoded { bytes, end: Ok(()) });
    }
    let encodings: Vec<String> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity")
        .collect();
    match &encodings[..] {
        [] if bytes.starts_with(GZIP) => inflate("gzip", &bytes, limit),
        [] => Ok(Decoded { bytes, end: Ok(()) }),
        [one] if one == "gzip" || one == "x-gzip" => inflate("gzip", &bytes, limit),
        [one] if one == "deflate" => inflate("deflate", &bytes, limit),
        _ => {
            let shown = secrets.clean(&encodings.join(", "), NAME_LIMIT);
            Err(format!("is encoded as `{shown}`, which was not requested and is not supported"))
        }
    }
}

#[cfg(not(feature = "decompression"))]
fn inflate(encoding: &str, _: &[u8], _: usize) -> Result<Decoded, String> {
    Err(format!(
        "is encoded as `{encoding}`, which was not requested; the feature `decompression` decodes it"
    ))
}

#[cfg(feature = "decompression")]
fn inflate(encoding: &str, bytes: &[u8], limit: usize) -> Result<Decoded, String> {
    use super::inflate::{deflate, gzip};

    let (bytes, is_whole) =
        if encoding == "gzip" { gzip(bytes, limit) } else { deflate(bytes, limit) };
    if bytes.len() > limit {
        return Err(too_long(limit));
    }
    let end = if is_whole { Ok(()) } else { Err("cannot be decompressed to its end".to_owned()) };
    Ok(Decoded { bytes, end })
}

pub(super) fn too_long(limit: usize) -> String {
    format!("is longer than the {limit} bytes of `answer_limit`")
}

/// Returns whether a body has no control characters, and is UTF-8 or begins like JSON. A compressed body is neither.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < b' ' && !b"\t\r\n".contains(byte);
    !bytes.iter().any(is_control)
        && (bytes.trim_ascii_start().starts_with(b"{") || std::str::from_utf8(bytes).is_ok())
}

/// RFC 1952 §2.3.1
const GZIP: &[u8] = &[0x1f, 0x8b];

/// How much of the names of encodings is shown, in characters.
const NAME_LIMIT: usize = 40;

#[cfg(all(test, not(feature = "decompression")))]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Fault A59.
    #[test]
    fn error_without_the_feature_names_the_encoding_and_the_feature() {
        for (encoding, body) in [
            ("gzip", &b"\x1f\x8b\x08\x00"[..]),
            ("deflate", b"\x78\xda\x00"),
            ("", b"\x1f\x8b\x08\x00"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            let body = Zeroizing::new(body.to_vec());
            let Err(why) = decode(body, &headers, 1000, &Secrets::default()) else {
                panic!("{encoding}");
            };
            let named = if encoding.is_empty() { "`gzip`" } else { encoding };
            assert!(why.contains(named) && why.contains("`decompression`"), "{why}");
        }
        let json = Zeroizing::new(b"{}".to_vec());
        assert!(decode(json, &HeaderMap::new(), 1000, &Secrets::default()).is_ok());
    }
}
