//! The authority of a request or of an origin, parsed without ambiguity.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::{Authority, Scheme as UriScheme};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// RFC 3986 §3.1: schemes compare without regard to case.
    pub(super) fn parse(scheme: &str) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else if scheme.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else {
            None
        }
    }

    pub(super) fn of(scheme: &UriScheme) -> Option<Self> {
        Self::parse(scheme.as_str())
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns whether a token to this host would cross the network without TLS.
    pub(super) fn is_plaintext_for(self, host: &str) -> bool {
        self == Self::Http && !is_loopback(host)
    }

    pub(super) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The parts of an authority (RFC 3986 §3.2).
pub(super) struct Target<'a> {
    pub(super) has_userinfo: bool,
    pub(super) host: Host<'a>,
    /// Absent or empty: the default port of the scheme.
    pub(super) port: Option<u16>,
}

#[derive(Clone, Copy)]
pub(super) enum Host<'a> {
    Name(&'a str),
    V6(Ipv6Addr),
}

impl<'a> Target<'a> {
    /// Parses an authority. Returns `None` if two parsers could read it differently.
    ///
    /// Not `Authority::port_u16`, which returns `None` for `:99999` as well as for no port.
    pub(super) fn parse(authority: &'a str) -> Option<Self> {
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let (host, port) = if let Some(literal) = host_port.strip_prefix('[') {
            let (address, port) = literal.split_once(']')?;
            (Host::V6(address.parse().ok()?), port)
        } else {
            let (name, port) = host_port.split_at(host_port.find(':').unwrap_or(host_port.len()));
            // A fully qualified name: `api.example.com.` is `api.example.com`. But `localhost.` is not loopback.
            let name = match name.strip_suffix('.') {
                Some(unqualified) if !is_loopback_name(unqualified) => unqualified,
                _ => name,
            };
            if name.is_empty() || !name.bytes().all(is_name_byte) {
                return None;
            }
            (Host::Name(name), port)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            // `parse` alone would take a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { has_userinfo: userinfo.is_some(), host, port })
    }
}

/// RFC 3986 §3.2.2, `reg-name`
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

/// Returns whether an authority has a host and a valid port, if it has a port. `http` accepts others, for which an HTTP client uses
/// the scheme's default port.
#[cfg(feature = "oauth2")]
pub(crate) fn is_sound(authority: &str) -> bool {
    Target::parse(authority).is_some()
}

/// Returns whether an authority is this machine, so that a request to it crosses no network.
pub(crate) fn is_loopback(authority: &str) -> bool {
    Target::parse(authority).is_some_and(|target| match target.host {
        Host::Name(name) => is_loopback_name(name),
        Host::V6(address) => address.is_loopback(),
    })
}

/// For any other name, also with a dot at its end, a resolver decides whether it is this machine.
fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Returns host and port without userinfo, if both are valid, to be shown in a message.
pub(super) fn shown(authority: &str) -> Option<&str> {
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    Authority::try_from(host).ok()?;
    Target::parse(host)?;
    Some(host)
}
