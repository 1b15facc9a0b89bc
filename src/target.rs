//! The target of a request, as a number.

use std::hash::Hasher as _;

#[cfg(feature = "oauth2")]
use http::Uri;
use http::header::HOST;
use http::{HeaderValue, Request};
use rustc_hash::FxHasher;

/// The method, origin and path of a request, as a number.
///
/// The credentials compare rejections by target and never see a request. Two targets with the same number share a rejection
/// backoff, which is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    origin: u32,
    path: u32,
}

impl Target {
    /// The servers whose verdicts the application reports.
    pub(crate) const APPLICATION: Self = Self { origin: u32::MAX, path: 0 };

    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let host = || request.headers().get(HOST).map_or(&[][..], HeaderValue::as_bytes);
        let authority = uri.authority().map_or_else(host, |it| it.as_str().as_bytes());
        // `http` and `https` differ in their length.
        let scheme = uri.scheme_str().map_or(0, str::len);
        Self {
            origin: hash(authority, scheme as u64),
            path: hash(uri.path().as_bytes(), hash(request.method().as_str().as_bytes(), 0).into()),
        }
    }

    /// Returns the target of a grant: the endpoint, and a text that names what the token is for.
    #[cfg(feature = "oauth2")]
    pub(crate) fn of_grant(url: &Uri, purpose: &str) -> Self {
        let authority = url.authority().map_or(&[][..], |it| it.as_str().as_bytes());
        let scheme = url.scheme_str().map_or(0, str::len);
        let path = hash(url.path().as_bytes(), hash(purpose.as_bytes(), 0).into());
        Self { origin: hash(authority, scheme as u64), path }
    }

    #[cfg(test)]
    pub(crate) fn new(origin: u32, path: u32) -> Self {
        Self { origin, path }
    }

    /// Returns whether it is at an origin that a request may name with this authority, with or without this scheme.
    pub(crate) fn is_at(self, scheme: &str, authority: &str) -> bool {
        [scheme.len() as u64, 0]
            .iter()
            .any(|scheme| self.origin == hash(authority.as_bytes(), *scheme))
    }

    /// Returns the number of the origin alone.
    pub(crate) fn origin(self) -> u32 {
        self.origin
    }

    /// Returns the whole number.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.origin) << 32 | u64::from(self.path)
    }
}

fn hash(bytes: &[u8], seed: u64) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(seed);
    hasher.write(bytes);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: &str, uri: &str, host: &str) -> Target {
        let request = Request::builder().method(method).uri(uri).header(HOST, host);
        Target::of(&request.body(()).unwrap())
    }

    #[test]
    fn target_is_method_origin_and_path_without_the_query() {
        let target_of = |method, uri| target(method, uri, "a.test");
        let one = target_of("GET", "https://a.test/x");
        assert_eq!(one, target_of("GET", "https://a.test/x?y=1"));
        for other in [
            target_of("POST", "https://a.test/x"),
            target_of("GET", "https://a.test/y"),
            target_of("GET", "https://b.test/x"),
            target_of("GET", "http://a.test/x"),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(one.origin(), target_of("POST", "https://a.test/y").origin());
        assert_ne!(target("GET", "/x", "a.test").origin(), target("GET", "/x", "b.test").origin());
    }
}
