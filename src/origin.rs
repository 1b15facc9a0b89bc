//! The origins that the token may be sent to.

mod authority;
mod error;
mod named;
mod unnamed;

use http::header::HOST;
use http::uri::Scheme as UriScheme;
use http::{HeaderMap, Method, Uri};

use self::authority::{Scheme, Target, shown};
#[cfg(feature = "oauth2")]
pub(crate) use self::authority::{is_loopback, is_sound};
pub use self::error::OriginError;
use self::named::{Kind, Origin, call};
use self::unnamed::Asked;
pub(crate) use self::unnamed::{Unnamed, shown_origin};
use crate::error::TokenError;

/// The origins that the token may be sent to, as they were named.
///
/// The URI's authority and each `Host` header must be a named origin. A request with neither is sent to the server that the
/// client below is connected to, which the program has chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    named: Vec<Origin>,
    any_https: bool,
    asked: Asked,
}

/// The decision whether a request carries the token.
#[derive(Debug)]
pub(crate) enum Carry {
    /// The token is attached.
    Yes,
    /// The request is sent unchanged.
    No,
    /// The request is sent unchanged, because its origin is not named.
    Unnamed(Unnamed),
    /// The request fails, and is not sent.
    Refuse(TokenError),
}

impl Origins {
    /// Names an origin that has TLS or is on loopback, with a port if it is not the scheme's default.
    pub(crate) fn origin(&mut self, origin: &str) -> Result<(), OriginError> {
        self.named.push(Origin::parse(origin, Kind::Confidential)?);
        Ok(())
    }

    /// Names an origin without TLS.
    pub(crate) fn plaintext_origin(&mut self, origin: &str) -> Result<(), OriginError> {
        self.named.push(Origin::parse(origin, Kind::Plaintext)?);
        Ok(())
    }

    /// Names every origin whose scheme is `https`.
    pub(crate) fn any_https_origin(&mut self) {
        self.any_https = true;
    }

    /// Decides whether a request carries the token. If it does, nothing is allocated.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Carry {
        // The headers of a CONNECT request are for the proxy. Those of a TRACE request are returned in the body of its response
        // (RFC 9110 §9.3.6, §9.3.8).
        if method == Method::CONNECT || method == Method::TRACE {
            return Carry::No;
        }
        // Most requests name the origin as the program did, so that there is nothing to parse.
        if let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority())
            && self.named.iter().any(|named| named.is_written(scheme, authority.as_str()))
            && !headers.contains_key(HOST)
        {
            return Carry::Yes;
        }
        if let Some(authority) = uri.authority() {
            let carry = self.check_authority(uri.scheme(), authority.as_str(), Part::Uri);
            if !matches!(carry, Carry::Yes) {
                return carry;
            }
        }
        // A client connects to the authority and sends the `Host` that the caller has set, and a server or proxy may route
        // by either (RFC 9112 §3.2.2, RFC 9113 §8.3.1). A second `Host` makes the request invalid (RFC 9112 §3.2), and
        // servers differ in which one they use.
        for host in headers.get_all(HOST) {
            let host = host.to_str().unwrap_or_default();
            let carry = self.check_authority(uri.scheme(), host, Part::Host);
            if !matches!(carry, Carry::Yes) {
                return carry;
            }
        }
        Carry::Yes
    }

    fn check_authority(&self, scheme: Option<&UriScheme>, authority: &str, part: Part) -> Carry {
        if self.named.is_empty() && !self.any_https {
            return Carry::Refuse(none_named(scheme, authority));
        }
        let unnamed = || Carry::Unnamed(self.unnamed(scheme, authority, part.as_str()));
        let scheme = match scheme.map(Scheme::of) {
            Some(None) => return unnamed(),
            Some(scheme) => scheme,
            // A `Host` header has no scheme. An error, since a request without the token would look as if it worked.
            None if self.named.is_empty() => return Carry::Refuse(scheme_unknown(authority)),
            None => None,
        };
        let Some(target) = Target::parse(authority) else {
            return unnamed();
        };
        let any_https = self.any_https && scheme == Some(Scheme::Https);
        if !any_https && !self.named.iter().any(|named| named.matches(scheme, &target)) {
            return unnamed();
        }
        if target.has_userinfo {
            // RFC 9110 §4.2.4: userinfo can make a link look as if it led to another host.
            return Carry::Refuse(TokenError::misconfigured(format!(
                "the request's {} has userinfo, the part before the `@`: remove it, or the token is not attached",
                part.as_str()
            )));
        }
        Carry::Yes
    }
}

/// Where a request names its authority.
#[derive(Clone, Copy)]
enum Part {
    Uri,
    Host,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "URI",
            Self::Host => "`Host` header",
        }
    }
}

fn none_named(scheme: Option<&UriScheme>, authority: &str) -> TokenError {
    const WHY: &str = "no origin is named that the token may go to";

    let Some(host) = shown(authority) else {
        return TokenError::misconfigured(format!(
            "{WHY}: add .origin(\"https://…\") with the API's host"
        ));
    };
    let scheme = scheme.and_then(Scheme::of).unwrap_or(Scheme::Https);
    TokenError::misconfigured(match scheme.is_plaintext_for(host) {
        true => {
            format!("{WHY}: add {}, if the token may be readable on the way", call(scheme, host))
        }
        false => format!("{WHY}: add {}", call(scheme, host)),
    })
}

fn scheme_unknown(authority: &str) -> TokenError {
    TokenError::misconfigured(format!(
        "the request names its host without a scheme, and .any_https_origin() is for requests with the scheme https: add .origin(\"https://{}\"), or give the request a whole URI",
        shown(authority).unwrap_or("…")
    ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn named(origins: &[&str]) -> Origins {
        let mut named = Origins::default();
        for origin in origins {
            named.origin(origin).unwrap();
        }
        named
    }

    fn any_https() -> Origins {
        let mut origins = Origins::default();
        origins.any_https_origin();
        origins
    }

    fn check(origins: &Origins, uri: &str) -> String {
        outcome(origins.check(&Method::GET, &uri.parse().unwrap(), &HeaderMap::new()))
    }

    fn check_host(origins: &Origins, hosts: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        outcome(origins.check(&Method::GET, &Uri::from_static("/a"), &headers))
    }

    fn outcome(carry: Carry) -> String {
        match carry {
            Carry::Yes => "yes".into(),
            Carry::No | Carry::Unnamed(_) => "no".into(),
            Carry::Refuse(error) => {
                assert!(error.is_misconfigured());
                error.get_ref().to_string()
            }
        }
    }

    #[test]
    fn without_a_named_origin_the_error_shows_the_call_to_add() {
        let none = Origins::default();
        assert_eq!(
            check(&none, "https://u:p@API.example.com/path?query=secret"),
            "no origin is named that the token may go to: add .origin(\"https://API.example.com\")"
        );
        for (uri, call) in [
            ("http://127.0.0.1:8080/a", "add .origin(\"http://127.0.0.1:8080\")"),
            ("http://[::1]:8080/a", "add .origin(\"http://[::1]:8080\")"),
            (
                "http://a.example/a",
                "add .plaintext_origin(\"http://a.example\"), if the token may be readable on the way",
            ),
            ("wss://a.example/a", "add .origin(\"https://a.example\")"),
        ] {
            assert!(check(&none, uri).ends_with(call), "{}", check(&none, uri));
        }
        assert!(check_host(&none, &["a.example:8443"]).contains("https://a.example:8443\""));
        assert!(check_host(&none, &["a b/c"]).contains("https://…"));
        assert!(check_host(&none, &[""]).contains("https://…"));
    }

    #[test]
    fn a_request_that_names_no_authority_carries_the_token() {
        assert_eq!(check(&Origins::default(), "/a"), "yes");
        assert_eq!(check(&named(&["https://a.example"]), "/a"), "yes");
        assert_eq!(check(&any_https(), "/a"), "yes");
    }

    #[test]
    fn named_origin_matches_in_every_spelling() {
        let origins = named(&["https://api.example.com", "https://[2001:DB8::1]:8443"]);
        for uri in [
            "https://api.example.com",
            "https://api.example.com/a?b",
            "HTTPS://API.Example.COM/",
            "https://api.example.com:443/",
            "https://api.example.com:0443/",
            "https://api.example.com:/",
            "https://api.example.com./",
            "https://[2001:db8:0::0:1]:8443/",
        ] {
            assert_eq!(check(&origins, uri), "yes", "{uri}");
        }
        let origins = named(&["HTTPS://API.Example.COM.:443/"]);
        assert_eq!(check(&origins, "https://api.example.com"), "yes");
    }

    #[test]
    fn foreign_origin_gets_no_token_in_any_spelling() {
        let origins = named(&["https://api.example.com", "https://[2001:db8::1]"]);
        for uri in [
            "http://api.example.com/",
            "http://api.example.com:443/",
            "https://api.example.com:80/",
            "https://api.example.com:8443/",
            "https://api.example.com:99999/",
            "https://api.example.com.evil.example/",
            "https://api.example.com../",
            "https://evil-api.example.com/",
            "https://example.com/",
            "https://api.example.com@evil.example/",
            "https://user:password@evil.example/",
            "https://api%2eexample.com/",
            "https://[2001:db8::2]/",
            "wss://api.example.com/",
        ] {
            let Ok(parsed) = uri.parse::<Uri>() else {
                continue;
            };
            let carry = origins.check(&Method::GET, &parsed, &HeaderMap::new());
            assert_eq!(outcome(carry), "no", "{uri}");
        }
    }

    #[test]
    fn userinfo_before_a_named_host_is_an_error_that_hides_it() {
        let uri = "https://sesame:open@api.example.com/";
        for origins in [named(&["https://api.example.com"]), any_https()] {
            let message = check(&origins, uri);
            assert!(message.contains("remove it") && !message.contains("sesame"), "{message}");
        }
        let message = check_host(&named(&["https://a.example"]), &["b@a.example"]);
        assert!(message.contains("remove it"), "{message}");
    }

    #[test]
    fn host_header_counts_if_there_is_no_authority() {
        let origins = named(&["https://a.example", "http://127.0.0.1:8080"]);
        for host in ["a.example", "A.example.", "a.example:443", "127.0.0.1:8080"] {
            assert_eq!(check_host(&origins, &[host]), "yes", "{host}");
        }
        for host in ["b.example", "a.example:80", "a.example:8443", "127.0.0.1", "", "a b", ":443"]
        {
            assert_eq!(check_host(&origins, &[host]), "no", "{host}");
        }
        assert_eq!(check_host(&origins, &["a.example", "b.example"]), "no");
        assert_eq!(check_host(&origins, &["b.example", "a.example"]), "no");
    }

    #[test]
    fn host_header_alone_needs_a_named_origin() {
        let mut origins = any_https();
        let message = check_host(&origins, &["a.example:8443"]);
        assert!(message.contains("add .origin(\"https://a.example:8443\")"), "{message}");
        let message = check_host(&origins, &["sesame:b@a.example"]);
        assert!(
            message.contains("https://a.example\"") && !message.contains("sesame"),
            "{message}"
        );
        assert!(check_host(&origins, &["sesame/a"]).contains("https://…\""));
        origins.origin("https://a.example").unwrap();
        assert_eq!(check_host(&origins, &["a.example"]), "yes");
        assert_eq!(check_host(&origins, &["b.example"]), "no");
    }

    /// S6
    #[test]
    fn authority_and_host_header_must_both_be_named() {
        let origins = named(&["https://a.example"]);
        for (uri, host, carries) in [
            ("https://evil.example/", "a.example", "no"),
            ("https://a.example/", "evil.example", "no"),
            ("https://a.example/", "A.example.:443", "yes"),
            // An authority without a scheme: host and port decide.
            ("a.example:443", "a.example", "yes"),
            ("a.example:443", "evil.example", "no"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            let uri = uri.parse().unwrap();
            let carry = origins.check(&Method::GET, &uri, &headers);
            assert_eq!(outcome(carry), carries, "{uri} {host}");
        }
    }

    #[test]
    fn any_https_origin_allows_no_other_scheme() {
        let mut origins = any_https();
        assert_eq!(check(&origins, "https://anything.example:8443/"), "yes");
        assert_eq!(check(&origins, "http://anything.example/"), "no");
        assert_eq!(check(&origins, "http://localhost/"), "no");
        assert_eq!(check(&origins, "wss://anything.example/"), "no");
        assert_eq!(check(&origins, "https://anything.example:99999/"), "no");
        origins.origin("http://localhost:8080").unwrap();
        assert_eq!(check(&origins, "http://localhost:8080/"), "yes");
    }

    #[test]
    fn plaintext_is_for_loopback_and_plaintext_origins() {
        for origin in [
            "http://127.0.0.1:8080",
            "http://127.8.9.10",
            "http://[::1]:80",
            "http://[0:0:0:0:0:0:0:1]",
            "http://localhost:1",
            "http://LOCALHOST",
        ] {
            assert_eq!(check(&named(&[origin]), origin), "yes", "{origin}");
        }
        for origin in [
            "http://a.example",
            "http://128.0.0.1",
            "http://127.0.0.1.example",
            "http://127.1",
            "http://[::2]",
            "http://localhost.example",
            "http://a.localhost",
            "http://localhost.",
            "http://localhost.:80",
            "http://127.0.0.1.",
        ] {
            let mut origins = Origins::default();
            let error = origins.origin(origin).unwrap_err().to_string();
            let call = format!(".plaintext_origin(\"{origin}\")");
            assert!(error.contains("is plaintext") && error.contains(&call), "{error}");
            origins.plaintext_origin(origin).unwrap();
            assert_eq!(check(&origins, origin), "yes", "{origin}");
            assert!(origins.origin("http://b.example").is_err(), "{origin}");
        }
    }

    #[test]
    fn name_that_a_resolver_may_take_for_loopback_is_not() {
        let origins = named(&["http://localhost:8080", "http://127.0.0.1:8080"]);
        for uri in ["http://localhost.:8080/", "http://LOCALHOST.:8080/", "http://127.0.0.1.:8080/"]
        {
            assert_eq!(check(&origins, uri), "no", "{uri}");
        }
    }

    #[test]
    fn connect_and_trace_never_carry_the_token() {
        let origins = named(&["https://a.example"]);
        let uri = Uri::from_static("https://a.example/");
        for method in [Method::CONNECT, Method::TRACE] {
            assert_eq!(outcome(origins.check(&method, &uri, &HeaderMap::new())), "no");
        }
        let connect = Uri::from_static("a.example:443");
        let carry = origins.check(&Method::CONNECT, &connect, &HeaderMap::new());
        assert_eq!(outcome(carry), "no");
    }
}
