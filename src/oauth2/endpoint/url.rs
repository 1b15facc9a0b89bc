//! The URLs that a token endpoint may have.

use http::Uri;

use crate::error::TokenError;
use crate::origin::{is_loopback, is_sound};

/// Parses the URL of an endpoint. `is_plaintext_allowed` decides about a host and port without TLS.
pub(super) fn parse_url(
    url: &str,
    is_plaintext_allowed: impl Fn(&str) -> bool,
) -> Result<Uri, TokenError> {
    let wrong = |why: &str| {
        // Without the URL, whose query may contain a secret.
        Err(TokenError::misconfigured(format!("the URL of the token endpoint {why}")))
    };
    if url.contains('#') {
        return wrong("must not have a fragment");
    }
    if url.trim() != url {
        return wrong("must not have leading or trailing whitespace");
    }
    if !url.is_ascii() {
        return wrong(
            "must be ASCII: write an internationalized host in the form that begins with `xn--`, and percent-encode the path",
        );
    }
    let parsed: Uri = match url.parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            return wrong(&format!(
                "cannot be parsed: {error}; write it in full, such as `https://as.example.com/token`"
            ));
        }
    };
    let Some(authority) = parsed.authority() else {
        return wrong("must be absolute, such as `https://as.example.com/token`");
    };
    if authority.as_str().contains('@') {
        return wrong("must not contain a user name; use `client_auth`");
    }
    if !is_sound(authority.as_str()) {
        return wrong("must have a host, and a port that is a number up to 65535, if any");
    }
    match parsed.scheme_str() {
        Some("https") => Ok(parsed),
        Some("http") if is_loopback(authority.as_str()) => Ok(parsed),
        Some("http") if is_plaintext_allowed(authority.as_str()) => Ok(parsed),
        Some("http") => wrong(
            "must be https, or http for `localhost` and loopback addresses; if something else protects the connection, use `TokenEndpoint::new_plaintext`",
        ),
        _ => wrong("must be https"),
    }
}

pub(super) fn without_query(url: &Uri) -> String {
    format!(
        "{}://{}{}",
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |authority| authority.as_str()),
        url.path()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_accepted() {
        for good in [
            "https://as.example.com/token",
            "https://as.example.com",
            "https://as.example.com/token?tenant=a",
            "http://localhost:8080/token",
            "http://LOCALHOST/token",
            "http://127.0.0.1/token",
            "http://127.8.9.1/token",
            "http://[::1]:80/token",
        ] {
            parse_url(good, |_| false).unwrap();
        }
        for bad in [
            "http://as.example.com/sesame",
            "http://localhost.example.com/sesame",
            "http://sub.localhost/sesame",
            "http://localhost./sesame",
            "http://127.0.0.1./sesame",
            "http://127.1/sesame",
            "http://127.0.0.1.example.com/sesame",
            "http://[2001:db8::1]/sesame",
            "ftp://localhost/sesame",
            "https://user:sesame@as.example.com/",
            "http://localhost@as.example.com/sesame",
            "https://as.example.com/sesame#part",
            "https://as.example.com:sesame/",
            "https://as.example.com:+443/sesame",
            "https://as.example.com:65536/sesame",
            "http://127.0.0.1:port/sesame",
            "https://[::1]443/sesame",
            "https://:443/sesame",
            "https://as.example.com/ses ame",
            "https://as.example.com/sesame\n",
            "https://s\u{e4}sesame.example/token",
            "https://as.example.com/s\u{e4}sesame",
            "https://[fe80::1%25eth0]/sesame",
            "/sesame",
            "sesame",
            "",
        ] {
            let error = parse_url(bad, |_| false).unwrap_err();
            assert!(error.is_misconfigured(), "{bad}");
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }
}
