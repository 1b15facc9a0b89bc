//! The check of requests before they use the token.
//!
//! The mode of a Unix socket determines which users can connect. Over TCP every user of the machine can connect, and every page
//! in a browser can send requests, so that each request must have the key of this run.
//!
//! Three more rules keep pages out, over both kinds of sockets:
//!
//! - The `Host` must be the listener's own name. That of a page differs, even if its DNS name points to loopback (DNS
//!   rebinding).
//! - Requests with `Origin` or `Sec-Fetch-Site`, which browsers add, are refused. So no preflight succeeds.
//! - Without a preflight a page cannot send the header with the key.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{self, Path, PathBuf};

use http::header::{HOST, ORIGIN, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use subtle::ConstantTimeEq as _;
use tower_refresh::BoxError;

use crate::answer::Refusal;
use crate::headers::{KEY, has_unknown_coding};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub struct Guard {
    /// The names of the listener that a request may use.
    names: Vec<String>,
    /// The path of a Unix socket, which is also a name.
    path: Option<PathBuf>,
    key: Option<Key>,
}

impl Guard {
    /// Over a Unix socket there is no port. The name is `localhost` or, as some clients send it, the percent-encoded path of the
    /// socket or the end of that path. Browsers cannot connect to a Unix socket, so these names weaken no protection.
    pub fn of_unix_socket(path: &Path) -> Self {
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { names: vec!["localhost".to_owned()], path: Some(path), key: None }
    }

    /// Over TCP the name is the address. `localhost` may resolve to another one, where another user may listen. A request for
    /// it could disclose the key.
    pub fn of_tcp(address: SocketAddr, key: Key) -> Self {
        let name = address.to_string();
        // The default port, which clients omit from `Host`.
        let short = name.strip_suffix(":80").map(str::to_owned);
        Self { names: short.into_iter().chain([name]).collect(), path: None, key: Some(key) }
    }

    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::upgrade());
        }
        if request.method() == Method::TRACE {
            return Err(Refusal::method("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if !self.is_addressed(request) {
            let why = format!("the request must be for {}", self.names.join(" or "));
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "host", why));
        }
        let headers = request.headers();
        if headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
            let why = "requests of browsers are refused";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "browser", why));
        }
        if let Some(key) = &self.key {
            let mut keys = headers.get_all(KEY).iter();
            let is_right = keys.next().is_some_and(|value| key.is(value.as_bytes()));
            if !is_right || keys.next().is_some() {
                return Err(Refusal::key());
            }
        }
        // RFC 9110 §7.8: HTTP/1.0 knows no upgrade, and the header is ignored there. An offer of h2c is ignored as well: Java's
        // client and `curl --http2` make it with each first request, and go on over HTTP/1.1.
        let is_h2c = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
        if request.version() != Version::HTTP_10 && !headers.get_all(UPGRADE).iter().all(is_h2c) {
            return Err(Refusal::upgrade());
        }
        if has_unknown_coding(headers) {
            let why = "the only transfer coding that is supported is chunked";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "transfer-coding", why));
        }
        Ok(())
    }

    /// Everything that names a host must name the listener: the target (HTTP/2: `:authority`) and `Host`.
    fn is_addressed<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let hosts = request.headers().get_all(HOST).iter().map(|host| host.as_bytes());
        let mut named = target.into_iter().chain(hosts).peekable();
        let is_own =
            |name: &[u8]| self.names.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
        named.peek().is_some() && named.all(|name| is_own(name) || self.is_path(name))
    }

    fn is_path(&self, name: &[u8]) -> bool {
        let Some((path, name)) = self.path.as_ref().zip(percent_decoded(name)) else {
            return false;
        };
        !name.is_empty() && path.ends_with(OsStr::from_bytes(&name))
    }
}

fn percent_decoded(name: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = str::from_utf8(after.get(..2)?).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            decoded.push(byte);
            rest = after;
        }
    }
    Some(decoded)
}

/// The key that callers over TCP must send. Each run has a new one, which is shown once.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    pub fn random() -> Result<Self, BoxError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Returns the whole header, as `curl -H` takes it.
    pub fn header(&self) -> String {
        format!("{KEY}: {}", self.0)
    }

    /// Writes the header into a file that only this user can read.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut draft = OsString::from(path);
        draft.push(".new");
        // Always a new file: an existing one may be readable for others, or a link to such a file.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", self.header())?;
        fs::rename(draft, path)
    }

    /// Compares in constant time.
    fn is(&self, value: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(value).into()
    }
}
