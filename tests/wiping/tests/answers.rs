//! The tokens of an answer, from its body to the end of the token set.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tower_refresh::oauth2::{Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{Cause, Renewal, TokenError, TokenSet, TokenSource as _};
use wiping::freed_unwiped;

const ACCESS: &str = "a7Fq-2nZc_9xLw/Kd";
const REFRESH: &str = "r4Tb.8mVy+1pHs~Je";
const ID: &str = "i3Gk-6wXu_5tRo=Nf";

fn plain() -> String {
    format!(
        r#"{{"access_token":"{ACCESS}","refresh_token":"{REFRESH}","id_token":"{ID}","expires_in":60}}"#
    )
}

/// Fault S19.
#[test]
fn no_copy_of_an_answers_tokens_is_freed_unwiped() {
    let plain = plain();
    let escaped = plain.replace('/', "\\/").replace('+', "\\u002b");
    let form: String = [("access_token", ACCESS), ("refresh_token", REFRESH), ("id_token", ID)]
        .map(|(name, value)| format!("{name}={}", value.replace('/', "%2f").replace('+', "%2B")))
        .join("&");
    for (kind, body) in [
        ("plain", plain.clone()),
        ("escaped", escaped.clone()),
        ("indented", plain.replace(',', ",\n  ")),
        ("with a flaw", plain.replace("60", "Infinity")),
        ("after other text", format!("Notice: {{x}} on line 3\n{escaped}")),
        ("with single quotation marks", plain.replace('"', "'")),
        (
            "twice",
            plain.replacen('{', &format!("{{\"access_token\":\"{ACCESS}\",\"x\":[1,2,3],"), 1),
        ),
        (
            "encoded as a string",
            format!("\"{}\"", escaped.replace('\\', "\\\\").replace('"', "\\\"")),
        ),
        (
            "with a string in it",
            plain.replace("60", &format!("60,\"x\":\"{}\"", plain.replace('"', "\\\""))),
        ),
        ("in another spelling", plain.replace("refresh_token", "refreshToken")),
        ("form", form),
        ("long", plain.replace("60", &format!("60,\"x\":\"{}\"", "x".repeat(20_000)))),
    ] {
        let freed = freed_unwiped(&[ACCESS, REFRESH, ID], || {
            let tokens = refresh(body.clone().into_bytes()).unwrap();
            assert_eq!(tokens.access_token().expose_secret(), ACCESS);
            assert_eq!(tokens.refresh_token().unwrap().expose_secret(), REFRESH);
            assert_eq!(tokens.id_token(), Some(ID));
            std::mem::forget(body);
        });
        assert!(freed.is_empty(), "{kind}: {}", freed.join("\n"));
    }
}

/// Fault S19: fields that the dialect has kept, also as JSON text.
#[test]
fn no_copy_of_a_further_field_is_freed_unwiped() {
    const DEVICE: &str = "d8Hq-4sBv_2yLm/Gp";
    let padding = "x".repeat(100);
    let mut dialect = Dialect::rfc6749();
    dialect.fields.extra.insert("device".into(), vec!["/device".into()]);
    for device in [
        format!("\"{DEVICE}\""),
        format!("[\"{DEVICE}\"]"),
        format!("{{\"a\":\"{padding}\",\"b\":{{\"c\":\"{DEVICE}\"}},\"d\":\"{padding}\"}}"),
        // Too long to be kept.
        format!("[\"{DEVICE}\",\"{}\"]", "x".repeat(10_000)),
    ] {
        let body = plain().replace("60", &format!("60,\"device\":{device}"));
        let freed = freed_unwiped(&[ACCESS, REFRESH, ID, DEVICE], || {
            let tokens = refresh_in(dialect.clone(), body.into_bytes()).unwrap();
            assert_eq!(tokens.extra("device").is_some(), device.len() < 9_000);
            std::mem::forget(device);
        });
        assert!(freed.is_empty(), "{}", freed.join("\n"));
    }
}

/// Fault S19.
#[test]
fn no_copy_of_an_unusable_answers_tokens_is_freed_unwiped() {
    let plain = plain();
    for (kind, body) in [
        ("cut", plain.trim_end_matches('}').as_bytes().to_vec()),
        ("malformed", plain.replace("60", "60]").into_bytes()),
        ("page", format!("<html>{plain}</html>").into_bytes()),
        ("of another type", plain.replace("60", "60,\"token_type\":\"mac\"").into_bytes()),
        ("not UTF-8", [&b"\xff"[..], plain.replace(ACCESS, "a b").as_bytes()].concat()),
        ("UTF-16", plain.replace(ACCESS, "a b").bytes().flat_map(|byte| [byte, 0]).collect()),
    ] {
        let freed = freed_unwiped(&[ACCESS, REFRESH, ID], || {
            assert!(refresh(body).is_err(), "{kind}");
        });
        assert!(freed.is_empty(), "{kind}: {}", freed.join("\n"));
    }
}

/// Asks for a token once, with this for an answer. The body itself is the HTTP client's, and is leaked.
fn refresh(body: Vec<u8>) -> Result<TokenSet, TokenError> {
    refresh_in(Dialect::rfc6749(), body)
}

fn refresh_in(dialect: Dialect, body: Vec<u8>) -> Result<TokenSet, TokenError> {
    let body: &'static [u8] = body.leak();
    let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let frames: Vec<_> = body
            .chunks(4096)
            .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk))))
            .collect();
        let response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
        async move { Ok::<_, Infallible>(response) }
    });
    let endpoint = TokenEndpoint::new(client, "https://as.example.com/token").unwrap();
    let endpoint = endpoint.dialect(dialect);
    let grant = RefreshTokenGrant::new(endpoint, "first-one");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(grant.fetch(Renewal::new(Cause::Missing)))
}
