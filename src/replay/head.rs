//! The head of a request, in one buffer.

use bytes::{Buf as _, BufMut as _, Bytes};
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
/// scheme authority path-and-query ( name value sensitive )*      each with its length before it, except the flag
/// ```
///
/// Extensions are cloned, which allocates if there are any.
pub(crate) struct SpareHead {
    method: Method,
    version: Version,
    extensions: Extensions,
    /// The number of different header names, so that the map is allocated once.
    names: usize,
    buffer: Vec<u8>,
}

impl SpareHead {
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let uri = components(request.uri());
        let headers = request.headers();

        let of_header = |(name, value): (&HeaderName, &HeaderValue)| {
            LENGTH + name.as_str().len() + LENGTH + value.len() + SENSITIVE
        };
        let capacity = uri.iter().map(|component| LENGTH + component.len()).sum::<usize>()
            + headers.iter().map(of_header).sum::<usize>();
        let mut buffer = Vec::with_capacity(capacity);
        for component in uri {
            put(&mut buffer, component.as_bytes());
        }
        for (name, value) in headers {
            put(&mut buffer, name.as_str().as_bytes());
            put(&mut buffer, value.as_bytes());
            buffer.put_u8(value.is_sensitive().into());
        }

        Self {
            method: request.method().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            names: headers.keys_len(),
            buffer,
        }
    }

    /// Returns the head, or none if `http` rejects a part that it has accepted before.
    pub(crate) fn rebuild(self) -> Option<Parts> {
        let mut bytes = Bytes::from(self.buffer);
        let uri = uri(&mut bytes)?;
        let mut headers = HeaderMap::try_with_capacity(self.names).ok()?;
        while !bytes.is_empty() {
            let name = HeaderName::from_lowercase(&take(&mut bytes)?).ok()?;
            let mut value = HeaderValue::from_maybe_shared(take(&mut bytes)?).ok()?;
            value.set_sensitive(bytes.try_get_u8().ok()? == 1);
            headers.try_append(name, value).ok()?;
        }

        // `Parts` has no constructor.
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method;
        head.uri = uri;
        head.version = self.version;
        head.headers = headers;
        head.extensions = self.extensions;
        Some(head)
    }
}

fn components(uri: &Uri) -> [&str; 3] {
    [
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map(Authority::as_str).unwrap_or_default(),
        // The URI of a CONNECT request has no path.
        uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default(),
    ]
}

fn uri(bytes: &mut Bytes) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    let (scheme, authority, path) = (take(bytes)?, take(bytes)?, take(bytes)?);
    if !scheme.is_empty() {
        parts.scheme = Some(Scheme::try_from(&*scheme).ok()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).ok()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).ok()?);
    }
    Uri::from_parts(parts).ok()
}

/// Appends bytes and their length.
fn put(buffer: &mut Vec<u8>, bytes: &[u8]) {
    // A length beyond 32 bits makes `take` fail.
    buffer.put_u32_ne(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    buffer.put_slice(bytes);
}

/// Takes bytes that [`put`] has appended.
fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32_ne().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// The size of a length.
const LENGTH: usize = size_of::<u32>();

/// The size of the flag of a sensitive value.
const SENSITIVE: usize = 1;

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
        assert_eq!(rebuilt.method, "A-METHOD-WITH-A-LONG-NAME");
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
