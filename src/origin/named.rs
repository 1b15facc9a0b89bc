//! A named origin.

use std::net::Ipv6Addr;

use http::uri::Scheme as UriScheme;

use super::OriginError;
use super::authority::{Host, Scheme, Target, is_loopback};

/// One named origin (RFC 6454 §4): scheme, host and port.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    scheme: Scheme,
    host: NamedHost,
    port: u16,
    /// Host and port as they were written when the origin was named, without userinfo.
    written: Box<str>,
}

/// How a token may cross the network on its way to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With TLS, or not at all: loopback.
    Confidential,
    /// Without TLS.
    Plaintext,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamedHost {
    /// A name or an IPv4 address, without the dot that a fully qualified name may end in.
    Name(Box<str>),
    V6(Ipv6Addr),
}

impl Origin {
    /// Parses an origin.
    ///
    /// # Errors
    ///
    /// An error that shows what to write instead. It contains a host and a port, and nothing else of the input.
    pub(super) fn parse(origin: &str, kind: Kind) -> Result<Self, OriginError> {
        let trimmed = origin.trim();
        if trimmed.len() != origin.len() {
            return Err(match Self::parse(trimmed, kind) {
                Ok(Self { scheme, written, .. }) => {
                    write("an origin has no whitespace around it", scheme, &written)
                }
                Err(error) => error,
            });
        }
        let (scheme, rest) = split_scheme(origin);
        if scheme.is_some_and(|scheme| scheme.to_ascii_lowercase().contains("unix")) {
            return Err(OriginError::new(
                "a Unix socket is not an origin: name the host of the requests' URIs, such as .origin(\"http://localhost\")",
            ));
        }
        let (authority, path) = split_authority(rest);
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        if userinfo.is_none() && path.contains('@') {
            // A password with a slash in it: the user name would be shown as the host.
            return Err(OriginError::new(
                "an origin has no userinfo and no path: write .origin(\"https://api.example.com\")",
            ));
        }
        let Some(scheme) = scheme else {
            let has_tls = kind == Kind::Confidential && !is_loopback(host);
            let scheme = if has_tls { Scheme::Https } else { Scheme::Http };
            check_host(host, scheme)?;
            return Err(write("an origin begins with its scheme", scheme, host));
        };
        let Some(scheme) = Scheme::parse(scheme) else {
            check_host(host, Scheme::Https)?;
            return Err(write("the scheme of an origin is https or http", Scheme::Https, host));
        };
        let target = check_host(host, scheme)?;
        if userinfo.is_some() {
            return Err(write("an origin has no userinfo", scheme, host));
        }
        // The empty path and `/` are the same (RFC 9110 §4.2.3).
        if !matches!(path, "" | "/") {
            return Err(write(
                "an origin has no path, query or fragment, and covers all of them",
                scheme,
                host,
            ));
        }
        if !origin.contains("://") {
            return Err(write("two slashes follow the scheme of an origin", scheme, host));
        }
        match kind {
            Kind::Confidential if scheme.is_plaintext_for(host) => {
                return Err(OriginError::new(format!(
                    "the origin http://{host} is plaintext, so the token can be read on the way: write .origin(\"https://{host}\"), or {} if there is no TLS",
                    call(scheme, host)
                )));
            }
            Kind::Plaintext if scheme == Scheme::Https => {
                return Err(write("the origin is not plaintext", scheme, host));
            }
            _ => {}
        }
        Ok(Self {
            scheme,
            host: match target.host {
                Host::Name(name) => NamedHost::Name(name.to_ascii_lowercase().into()),
                Host::V6(address) => NamedHost::V6(address),
            },
            port: target.port.unwrap_or(scheme.default_port()),
            written: host.into(),
        })
    }

    /// Returns scheme and host as they were written.
    pub(super) fn written(&self) -> (&'static str, &str) {
        (self.scheme.as_str(), &self.written)
    }

    /// Returns whether a target is written exactly like this origin.
    pub(super) fn is_written(&self, scheme: &UriScheme, authority: &str) -> bool {
        let named = match self.scheme {
            Scheme::Http => &UriScheme::HTTP,
            Scheme::Https => &UriScheme::HTTPS,
        };
        scheme == named && authority == &*self.written
    }

    /// Returns whether a target is this origin. Without a scheme, host and port decide.
    pub(super) fn matches(&self, scheme: Option<Scheme>, target: &Target<'_>) -> bool {
        let host = match (&self.host, target.host) {
            (NamedHost::Name(named), Host::Name(name)) => named.eq_ignore_ascii_case(name),
            (NamedHost::V6(named), Host::V6(address)) => *named == address,
            _ => false,
        };
        host && scheme.is_none_or(|scheme| scheme == self.scheme)
            && target.port.unwrap_or(self.scheme.default_port()) == self.port
    }
}

/// Splits an origin into its scheme, if it has one, and the text after the slashes.
fn split_scheme(origin: &str) -> (Option<&str>, &str) {
    if let Some((scheme, rest)) = origin.split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return (Some(scheme), rest);
    }
    match origin.split_once(':') {
        // `api.example.com:8443` has no scheme, and `https:api.example.com` has one.
        Some((scheme, rest))
            if Scheme::parse(scheme).is_some() || scheme.to_ascii_lowercase().contains("unix") =>
        {
            (Some(scheme), rest.trim_start_matches('/'))
        }
        _ => (None, origin.strip_prefix("//").unwrap_or(origin)),
    }
}

fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// Parses host and port.
fn check_host(host: &str, scheme: Scheme) -> Result<Target<'_>, OriginError> {
    let wrong = |message: &'static str| Err(OriginError::new(message));
    if host.contains('*') {
        return wrong(
            "an origin is one host, without a wildcard: name each with .origin(..), or all with .any_https_origin()",
        );
    }
    if host.contains(|c: char| c == ',' || c.is_whitespace()) {
        return wrong(
            "an origin is one scheme, host and port: name each with a call of .origin(..)",
        );
    }
    if !host.is_ascii() {
        return wrong(
            "the host of an origin is ASCII: write the form that begins with `xn--`, such as .origin(\"https://xn--bcher-kva.example\") for bücher.example",
        );
    }
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if let Some((address, _)) = address.split_once('%')
            && Target::parse(&format!("[{address}]{port}")).is_some()
        {
            let host = format!("[{address}]{port}");
            return Err(write("an IPv6 address has no zone in an origin", scheme, &host));
        }
        if address.parse::<Ipv6Addr>().is_err() {
            return wrong(NOT_IPV6);
        }
    } else if host.starts_with('[') {
        return wrong(NOT_IPV6);
    } else if host.parse::<Ipv6Addr>().is_ok() {
        let host = format!("[{host}]");
        return Err(write("an IPv6 address is in brackets in an origin", scheme, &host));
    }

    let (name, port) = match host.rfind(']').map_or(host.find(':'), |at| Some(at + 1)) {
        Some(at) => host.split_at(at),
        None => (host, ""),
    };
    if name.is_empty() || name == "." {
        return wrong("the origin has no host: write .origin(\"https://api.example.com\")");
    }
    let is_in_brackets = name.starts_with('[');
    if !is_in_brackets && !name.bytes().all(is_host_byte) {
        return wrong(
            "the host of an origin has letters, digits, `-`, `_` and `.` only: write .origin(\"https://api.example.com\")",
        );
    }
    match Target::parse(host) {
        Some(target) if target.port != Some(0) => Ok(target),
        _ if port.starts_with(':') => Err(write(
            "the port of an origin is a number from 1 to 65535",
            scheme,
            &format!("{name}:8443"),
        )),
        _ => wrong("the origin has no host: write .origin(\"https://api.example.com\")"),
    }
}

const NOT_IPV6: &str = "the host of the origin is in brackets and is not an IPv6 address: write .origin(\"https://[2001:db8::1]\")";

/// RFC 1123 §2.1, and the underscore of some names.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn write(rule: &str, scheme: Scheme, host: &str) -> OriginError {
    OriginError::new(format!("{rule}: write {}", call(scheme, host)))
}

/// Returns the call that names this origin.
pub(super) fn call(scheme: Scheme, host: &str) -> String {
    let setter = if scheme.is_plaintext_for(host) { "plaintext_origin" } else { "origin" };
    format!(".{setter}(\"{}://{host}\")", scheme.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(origin: &str, kind: Kind) -> String {
        Origin::parse(origin, kind).unwrap_err().to_string()
    }

    #[test]
    fn each_error_shows_what_to_write_instead() {
        for (origin, message) in [
            // No scheme.
            (
                "api.example.com",
                "begins with its scheme: write .origin(\"https://api.example.com\")",
            ),
            ("api.example.com:8443/v1", "write .origin(\"https://api.example.com:8443\")"),
            ("//api.example.com", "write .origin(\"https://api.example.com\")"),
            ("u:sesame@api.example.com", "write .origin(\"https://api.example.com\")"),
            ("localhost:8080", "write .origin(\"http://localhost:8080\")"),
            ("[::1]:8080", "write .origin(\"http://[::1]:8080\")"),
            (
                "api.example.com?next=https://b.example",
                "write .origin(\"https://api.example.com\")",
            ),
            // Another scheme.
            ("wss://a.example", "is https or http: write .origin(\"https://a.example\")"),
            ("grpc://a.example:50051", "write .origin(\"https://a.example:50051\")"),
            (
                "https:a.example",
                "two slashes follow the scheme of an origin: write .origin(\"https://a.example\")",
            ),
            ("http:/a.example/", "write .plaintext_origin(\"http://a.example\")"),
            // More than an origin.
            (
                "https://a.example/v1",
                "no path, query or fragment, and covers all of them: write .origin(\"https://a.example\")",
            ),
            ("https://a.example//", "write .origin(\"https://a.example\")"),
            ("https://a.example:8443?key=sesame", "write .origin(\"https://a.example:8443\")"),
            ("https://a.example#sesame", "write .origin(\"https://a.example\")"),
            (
                "http://sesame:b@a.example",
                "no userinfo: write .plaintext_origin(\"http://a.example\")",
            ),
            (
                " https://a.example\n",
                "no whitespace around it: write .origin(\"https://a.example\")",
            ),
            (" a.example/sesame\n", "write .origin(\"https://a.example\")"),
            ("https://a.example,https://b.example", "name each with a call of .origin(..)"),
            ("https://a.example https://b.example", "name each with a call of .origin(..)"),
            ("a.example, b.example", "name each with a call of .origin(..)"),
            // Wildcards.
            ("*", ".any_https_origin()"),
            ("https://*", ".any_https_origin()"),
            ("https://*.example.com", "without a wildcard: name each with .origin(..)"),
            ("*.example.com:443", "without a wildcard"),
            // Internationalized names.
            ("https://b\u{fc}cher.example", "write the form that begins with `xn--`"),
            ("b\u{fc}cher.example/v1", "begins with `xn--`"),
            ("https://api\u{3002}example.com", "begins with `xn--`"),
            ("https://b%C3%BCcher.example", "letters, digits, `-`, `_` and `.` only"),
            // IPv6.
            (
                "http://[fe80::1%eth0]",
                "no zone in an origin: write .plaintext_origin(\"http://[fe80::1]\")",
            ),
            ("http://[fe80::1%25eth0]:8080", "write .plaintext_origin(\"http://[fe80::1]:8080\")"),
            ("[fe80::1%eth0]", "write .origin(\"https://[fe80::1]\")"),
            (
                "https://2001:db8::1",
                "in brackets in an origin: write .origin(\"https://[2001:db8::1]\")",
            ),
            ("::1", "write .origin(\"https://[::1]\")"),
            ("https://[::1", "write .origin(\"https://[2001:db8::1]\")"),
            ("https://[v1.a]", "is not an IPv6 address"),
            ("https://[127.0.0.1]", "is not an IPv6 address"),
            // Unix sockets.
            ("unix:/run/sesame.sock", "a Unix socket is not an origin"),
            ("unix:///run/sesame.sock", ".origin(\"http://localhost\")"),
            ("http+unix://%2Frun%2Fsesame.sock", ".origin(\"http://localhost\")"),
            // Ports.
            (
                "https://a.example:99999",
                "a number from 1 to 65535: write .origin(\"https://a.example:8443\")",
            ),
            ("https://a.example:0", "from 1 to 65535"),
            ("https://a.example:+443", "from 1 to 65535"),
            ("https://a.example:443:443", "from 1 to 65535"),
            ("https://[::1]:sesame", "write .origin(\"https://[::1]:8443\")"),
            ("a.example:sesame", "write .origin(\"https://a.example:8443\")"),
            // Plaintext.
            (
                "http://a.example:8080",
                "can be read on the way: write .origin(\"https://a.example:8080\"), or .plaintext_origin(\"http://a.example:8080\") if there is no TLS",
            ),
            // No host.
            ("", "has no host: write .origin(\"https://api.example.com\")"),
            ("https://", "no host"),
            ("https:///v1", "no host"),
            ("https://:8443", "no host"),
            ("https://.", "no host"),
            ("/v1", "no host"),
            // Placeholders that were not filled in.
            ("https://$API_HOST", "letters, digits, `-`, `_` and `.` only"),
            ("https://{host}:8443", "letters, digits, `-`, `_` and `.` only"),
        ] {
            let refused = refused(origin, Kind::Confidential);
            assert!(refused.contains(message), "{origin}: {refused}");
            assert!(!refused.contains("sesame"), "{origin}: {refused}");
        }
    }

    #[test]
    fn each_error_of_a_plaintext_origin_shows_what_to_write_instead() {
        for (origin, message) in [
            ("https://a.example", "not plaintext: write .origin(\"https://a.example\")"),
            ("a.example:8080", "write .plaintext_origin(\"http://a.example:8080\")"),
            ("http://a.example/v1", "write .plaintext_origin(\"http://a.example\")"),
            ("localhost:8080", "write .origin(\"http://localhost:8080\")"),
            ("wss://a.example", "write .origin(\"https://a.example\")"),
        ] {
            let refused = refused(origin, Kind::Plaintext);
            assert!(refused.contains(message), "{origin}: {refused}");
        }
    }

    #[test]
    fn each_suggestion_is_an_origin() {
        let origins = [
            "api.example.com",
            "localhost:8080",
            "::1",
            "u:p@a.example:8443/v1",
            "http://[fe80::1%25eth0]:8080/v1",
            "https://[::1]:99999",
            "a_b.example:x",
            "https:a.example.",
            "https://b\u{fc}cher.example",
            "https://",
        ];
        for origin in origins {
            for kind in [Kind::Confidential, Kind::Plaintext] {
                let refused = refused(origin, kind);
                let suggestion = refused.split('"').nth(1).unwrap();
                let kind = match refused.contains(".plaintext_origin(") {
                    true => Kind::Plaintext,
                    false => Kind::Confidential,
                };
                Origin::parse(suggestion, kind).unwrap();
            }
        }
    }
}
