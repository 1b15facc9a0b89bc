//! The head of a request, in one buffer.

use bytes::{Buf as _, Bytes};
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, Method, Request, Uri, Version};

/// A request's head without the token, kept to send the request again.
///
/// Takes one allocation. A clone of `http::request::Parts` needs one for the map and more for its values and its URI, and it
/// hashes every name, although most requests are never sent again. Here everything that consists of bytes is in one buffer and is
/// parsed again for the rare second attempt:
///
/// ```text
/// version names ( method scheme ) ( authority path-and-query ) ( name value )*      each pair with its lengths before it
/// ```
///
/// Extensions are cloned, which allocates if there are any.
pub(crate) struct SpareHead {
    buffer: Vec<u8>,
    extensions: Extensions,
}

impl SpareHead {
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let head = [
            (request.method().as_str(), request.uri().scheme_str().unwrap_or_default()),
            components(request.uri()),
        ];

        let of_pair = |(first, second): &(&str, &str)| LENGTHS + first.len() + second.len();
        let of_header = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTHS + name.as_str().len() + value.len()
        };
        let capacity = START
            + head.iter().map(of_pair).sum::<usize>()
            + headers.iter().map(of_header).sum::<usize>();
        let mut buffer = Vec::with_capacity(capacity);
        buffer.push(code(request.version()));
        // The map is allocated once when it is rebuilt. It holds 32,768 names at most.
        buffer.extend_from_slice(&(headers.keys_len() as u16).to_ne_bytes());
        for (first, second) in head {
            put(&mut buffer, first.as_bytes(), second.as_bytes(), false);
        }
        for (name, value) in headers {
            put(&mut buffer, name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
        Self { buffer, extensions: request.extensions().clone() }
    }

    /// Returns the scheme and the authority of the URI. A missing one is empty.
    pub(crate) fn scheme_and_authority(&self) -> Option<(&str, &str)> {
        let ((_, scheme), rest) = parts(self.buffer.get(START..)?)?;
        let ((authority, _), _) = parts(rest)?;
        Some((str::from_utf8(scheme).ok()?, str::from_utf8(authority).ok()?))
    }

    /// Returns the head, or none if `http` rejects a part that it has accepted before.
    pub(crate) fn rebuild(self) -> Option<Parts> {
        let mut bytes = Bytes::from(self.buffer);
        let version = version(bytes.try_get_u8().ok()?);
        let names = bytes.try_get_u16_ne().ok()?;
        let (method, scheme, _) = take(&mut bytes)?;
        let (authority, path, _) = take(&mut bytes)?;
        let mut headers = HeaderMap::try_with_capacity(names.into()).ok()?;
        while !bytes.is_empty() {
            let (name, value, is_sensitive) = take(&mut bytes)?;
            let name = HeaderName::from_lowercase(&name).ok()?;
            let mut value = HeaderValue::from_maybe_shared(value).ok()?;
            value.set_sensitive(is_sensitive);
            headers.try_append(name, value).ok()?;
        }

        // `Parts` has no constructor.
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::from_bytes(&method).ok()?;
        head.uri = uri(&scheme, authority, path)?;
        head.version = version;
        head.headers = headers;
        head.extensions = self.extensions;
        Some(head)
    }
}

/// Returns the authority and the path of a URI. That of a CONNECT request has no path.
fn components(uri: &Uri) -> (&str, &str) {
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    (authority, uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default())
}

fn uri(scheme: &[u8], authority: Bytes, path: Bytes) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    if !scheme.is_empty() {
        parts.scheme = Some(Scheme::try_from(scheme).ok()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).ok()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
    }
    Uri::from_parts(parts).ok()
}

/// All versions that `http` has.
const VERSIONS: [Version; 5] =
    [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];

fn code(version: Version) -> u8 {
    VERSIONS.iter().position(|known| *known == version).unwrap_or_default() as u8
}

fn version(code: u8) -> Version {
    VERSIONS[usize::from(code)]
}

/// Appends two parts, and before them their lengths and a flag.
fn put(buffer: &mut Vec<u8>, first: &[u8], second: &[u8], flag: bool) {
    // A length beyond its bits makes `take` fail.
    let first_length = u32::try_from(first.len()).unwrap_or(u32::MAX).min(u32::MAX >> 1);
    let first_length = first_length << 1 | u32::from(flag);
    let second_length = u32::try_from(second.len()).unwrap_or(u32::MAX);
    let lengths = u64::from(first_length) << 32 | u64::from(second_length);
    buffer.extend_from_slice(&lengths.to_ne_bytes());
    buffer.extend_from_slice(first);
    buffer.extend_from_slice(second);
}

/// Takes what [`put`] has appended.
fn take(bytes: &mut Bytes) -> Option<(Bytes, Bytes, bool)> {
    let lengths = bytes.try_get_u64_ne().ok()?;
    let (first, second) = ((lengths >> 32) as u32, lengths as u32);
    let mut part = |length: u32| {
        let length = usize::try_from(length).ok()?;
        (length <= bytes.len()).then(|| bytes.split_to(length))
    };
    Some((part(first >> 1)?, part(second)?, first & 1 == 1))
}

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Returns the two parts that bytes begin with, and the bytes after them.
fn parts(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let mut lengths = bytes.get(..LENGTHS)?;
    let lengths = lengths.try_get_u64_ne().ok()?;
    let (first, second) = ((lengths >> 33) as usize, lengths as u32 as usize);
    let (first, rest) = bytes.get(LENGTHS..)?.split_at_checked(first)?;
    let (second, rest) = rest.split_at_checked(second)?;
    Some(((first, second), rest))
}

/// The size of a version and the number of names.
const START: usize = size_of::<u8>() + size_of::<u16>();

/// The size of the lengths of two parts.
const LENGTHS: usize = size_of::<u64>();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_same(request: Request<()>) {
        let rebuilt = Request::from_parts(SpareHead::of(&request).rebuild().unwrap(), ());
        assert_eq!(rebuilt.method(), request.method());
        assert_eq!(rebuilt.uri(), request.uri());
        assert_eq!(rebuilt.uri().to_string(), request.uri().to_string());
        assert_eq!(rebuilt.version(), request.version());
        let list = |request: &Request<()>| -> Vec<_> {
            let headers = request.headers().iter();
            headers.map(|(n, v)| (n.clone(), v.clone(), v.is_sensitive())).collect()
        };
        assert_eq!(list(&rebuilt), list(&request));
    }

    #[test]
    fn every_form_of_uri_is_restored() {
        for uri in [
            "/",
            "/a/b?c=d%20e",
            "*",
            "https://user:password@a.example:8443/a?b",
            "http://a.example",
            "http://a.example?b",
            "HTTP://A.example/",
            "unix://a.example/b",
            "a.example:443",
            "http://[::1]:80/a",
            "/?",
            "/caf\u{e9}",
        ] {
            let Ok(uri) = uri.parse::<Uri>() else { panic!("{uri}") };
            assert_same(Request::builder().uri(uri).body(()).unwrap());
        }
        assert_same(Request::builder().uri(Uri::default()).body(()).unwrap());
    }

    #[test]
    fn extensions_and_custom_methods_are_restored() {
        let request = Request::builder()
            .method("A-METHOD-WITH-A-LONG-NAME")
            .version(Version::HTTP_2)
            .extension("extension")
            .body(())
            .unwrap();
        let rebuilt = SpareHead::of(&request).rebuild().unwrap();
        assert_eq!(rebuilt.method.as_str(), "A-METHOD-WITH-A-LONG-NAME");
        assert_eq!(rebuilt.version, Version::HTTP_2);
        assert_eq!(rebuilt.extensions.get(), Some(&"extension"));
    }

    #[test]
    fn buffer_is_allocated_in_its_final_size() {
        let request = Request::builder()
            .uri("https://a.example/b?c")
            .header("a", "b")
            .header("a", "c")
            .body(())
            .unwrap();
        let spare = SpareHead::of(&request);
        // Otherwise it has grown, or is copied when it is converted to `Bytes`.
        assert_eq!(spare.buffer.capacity(), spare.buffer.len());
    }

    #[test]
    fn long_header_value_is_restored() {
        let long = HeaderValue::from_bytes(&vec![b'a'; 1 << 20]).unwrap();
        assert_same(Request::builder().header("a", long).body(()).unwrap());
    }

    fn method() -> impl Strategy<Value = Method> {
        "[A-Z-]{1,20}".prop_map(|method| Method::from_bytes(method.as_bytes()).unwrap())
    }

    fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let name = prop_oneof![
            "[a-z]{1,2}".boxed(),
            "[A-Za-z0-9-]{1,80}".boxed(),
            prop::sample::select(vec!["accept".to_owned(), "cookie".into(), "te".into()]).boxed(),
        ];
        let value = prop::collection::vec(prop_oneof![Just(9_u8), 32..127_u8, 128..=255_u8], 0..40);
        (name, value, any::<bool>()).prop_map(|(name, value, sensitive)| {
            let mut value = HeaderValue::from_bytes(&value).unwrap();
            value.set_sensitive(sensitive);
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)
        })
    }

    proptest! {
        #[test]
        fn rebuilt_head_equals_the_original(
            method in method(),
            uri in "(https?://([a-z]{1,9}@)?[a-z0-9.-]{1,20}(:[0-9]{1,4})?)?/[!-\"$-~]{0,30}",
            headers in prop::collection::vec(header(), 0..60),
            removed in any::<prop::sample::Index>(),
        ) {
            let Ok(uri) = uri.parse::<Uri>() else {
                return Ok(());
            };
            let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
            for (name, value) in &headers {
                request.headers_mut().append(name, value.clone());
            }
            // A removal changes the order of the map.
            if !headers.is_empty() {
                request.headers_mut().remove(&headers[removed.index(headers.len())].0);
            }
            assert_same(request);
        }
    }
}
