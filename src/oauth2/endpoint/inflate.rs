//! gzip (RFC 1952), zlib (RFC 1950) and raw deflate (RFC 1951).
//!
//! A body is decompressed in one call into a buffer that is wiped: a streaming decoder keeps a window of its output, and frees
//! it unwiped. Checksums are not verified, because the JSON parser decides whether the content is complete.

use flate2::{Decompress, FlushDecompress, Status};
use zeroize::Zeroizing;

/// Decompresses gzip, up to one byte more than the limit. Also returns whether that is all of it.
pub(super) fn gzip(bytes: &[u8], limit: usize) -> (Zeroizing<Vec<u8>>, bool) {
    match after_gzip_header(bytes) {
        Some(deflated) => inflate(deflated, Format::Raw, limit),
        None => (Zeroizing::default(), false),
    }
}

/// Decompresses `deflate` like [`gzip`]: zlib (RFC 9110 §8.4.1.2), or raw, as some servers send it.
pub(super) fn deflate(bytes: &[u8], limit: usize) -> (Zeroizing<Vec<u8>>, bool) {
    let (zlib, is_whole) = inflate(bytes, Format::Zlib, limit);
    if is_whole || !zlib.is_empty() {
        return (zlib, is_whole);
    }
    inflate(bytes, Format::Raw, limit)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Zlib,
    Raw,
}

fn inflate(bytes: &[u8], format: Format, limit: usize) -> (Zeroizing<Vec<u8>>, bool) {
    let most = limit.saturating_add(1);
    let mut size = bytes.len().saturating_mul(8).clamp(1024, 1024 * 1024).min(most);
    loop {
        let mut inflated = Zeroizing::new(vec![0; size]);
        let mut decompress = Decompress::new(format == Format::Zlib);
        // With `Finish` in the first call, the decoder needs no window.
        let status = decompress.decompress(bytes, &mut inflated, FlushDecompress::Finish);
        let written = usize::try_from(decompress.total_out()).unwrap_or(size).min(size);
        let is_whole = matches!(status, Ok(Status::StreamEnd));
        if is_whole || written < size || size == most {
            inflated.truncate(written);
            return (inflated, is_whole);
        }
        size = size.saturating_mul(4).min(most);
    }
}

/// RFC 1952 §2.3
fn after_gzip_header(bytes: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = bytes.split_at_checked(10)?;
    let [0x1f, 0x8b, 8, flags, ..] = header else {
        return None;
    };
    if flags & EXTRA != 0 {
        let (length, extra) = rest.split_first_chunk::<2>()?;
        rest = extra.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for field in [NAME, COMMENT] {
        if flags & field != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder, write};

    use super::*;

    const TEXT: &[u8] = br#"{"access_token":"sesame sesame sesame sesame","expires_in":3600}"#;

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let header = GzBuilder::new().filename("token.json").comment("c").extra([1, 2, 3]);
        let mut encoder = header.write(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Fault A59.
    #[test]
    fn each_format_is_decompressed() {
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(TEXT).unwrap();
        let mut raw = write::DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(TEXT).unwrap();
        for (inflated, is_whole) in [
            gzip(&gzipped(TEXT), 1000),
            deflate(&zlib.finish().unwrap(), 1000),
            deflate(&raw.finish().unwrap(), 1000),
        ] {
            assert_eq!((&inflated[..], is_whole), (TEXT, true));
        }
    }

    /// Faults A59, A60.
    #[test]
    fn truncated_streams_yield_a_prefix_that_is_not_whole() {
        let gzipped = gzipped(TEXT);
        for at in 0..gzipped.len() - 9 {
            let (inflated, is_whole) = gzip(&gzipped[..at], 1000);
            assert!(!is_whole && TEXT.starts_with(&inflated), "{at}");
        }
        // Without the checksum and the length at its end.
        let (inflated, is_whole) = gzip(&gzipped[..gzipped.len() - 8], 1000);
        assert_eq!((&inflated[..], is_whole), (TEXT, true));
    }

    #[test]
    fn no_more_is_decompressed_than_the_limit_allows() {
        let bomb = gzipped(&vec![b' '; 10 * 1024 * 1024]);
        assert!(bomb.len() < 16 * 1024);
        for limit in [0, 1, 1023, 1024, 100_000] {
            let (inflated, is_whole) = gzip(&bomb, limit);
            assert_eq!((inflated.len(), is_whole), (limit + 1, false));
        }
        let (inflated, is_whole) = gzip(&bomb, 20 * 1024 * 1024);
        assert_eq!((inflated.len(), is_whole), (10 * 1024 * 1024, true));
    }

    #[test]
    fn noise_is_not_decompressed() {
        for noise in [&b""[..], b"\x1f\x8b", b"\x1f\x8b\x08\x04\0\0\0\0\0\0\xff\xff", b"sesame"] {
            assert!(!gzip(noise, 1000).1, "{noise:?}");
            assert!(!deflate(noise, 1000).1, "{noise:?}");
        }
    }
}
