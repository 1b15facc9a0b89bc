//! The token set in an answer.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::DATE;
use zeroize::Zeroizing;

use super::answer::{Answer, Context};
use super::document::{Document, is_placeholder};
use super::extra::{self, extra};
use super::oauth_error::CODE_LIMIT;
use crate::error::TokenError;
use crate::oauth2::dialect::LifetimeUnit;
use crate::oauth2::lenient::{self, Json};
use crate::oauth2::moment::{self, When};
use crate::oauth2::security_token::ACCESS_TOKEN;
use crate::token::{AccessToken, TokenSet};

pub(super) fn token_set(
    document: &Document<'_>,
    answer: &Answer,
    context: Context<'_>,
) -> Result<TokenSet, TokenError> {
    let dialect = context.dialect;
    let fields = &dialect.fields;

    context.log_fields(document);
    let Some(token) = document.token(&fields.access_token) else {
        return Err(context.lost(
            "the answer has no access token; if it has another name, add it to `fields.access_token` in the dialect",
        ));
    };
    let access_token = access_token(token, context)?;
    check_token_type(document, context)?;

    let date = answer.date(&DATE);
    let received = date.unwrap_or(context.now.since_epoch());
    let stated = first_time(document, &fields.expires_in, moment::lifetime)
        .or_else(|| first_time(document, &fields.expires_at, moment::moment));
    warn_of_long_lifetime(document, stated, received, context);
    let expiry = stated
        .map(|(_, when)| when)
        .or(dialect.default_lifetime.map(|lifetime| When::In(lifetime.min(moment::LONGEST))))
        .or_else(|| jwt_expiry(token).filter(|expiry| *expiry > received).map(When::At));

    let mut tokens = TokenSet::new(access_token);
    tokens = match expiry {
        None => {
            context.log_unread_lifetime(document);
            tokens
        }
        Some(When::In(lifetime)) => tokens.with_expires_in(lifetime),
        // By the clock of the server, if it states a date, because the local one may be wrong.
        Some(When::At(at)) => match date {
            Some(date) => tokens.with_expires_in(at.saturating_sub(date)),
            None => tokens.with_expires_at(time_of_day(at)),
        },
    };

    if let Some(refresh_token) = document.refresh_token() {
        tokens = tokens.with_refresh_token(refresh_token);
    }
    let refresh_expiry = first_time(document, &fields.refresh_token_expires_in, moment::lifetime)
        .or_else(|| first_time(document, &fields.refresh_token_expires_at, moment::moment));
    if let Some((_, when)) = refresh_expiry {
        let now = context.now.since_epoch();
        tokens = tokens.with_refresh_token_expires_at(time_of_day(match when {
            When::In(lifetime) => now.saturating_add(lifetime),
            // By the local clock, with which it will be compared.
            When::At(at) => at.saturating_add(now).saturating_sub(date.unwrap_or(now)),
        }));
    }

    if let Some(scope) = document.all(&fields.scope).find_map(|value| value.as_words(" ")) {
        tokens = tokens.with_scope(scope);
    }
    if let Some(id_token) = document.token(&fields.id_token) {
        tokens = tokens.with_id_token(id_token);
    }
    let issued = document.text(&fields.issued_token_type);
    match issued {
        Some(issued) if issued.len() <= extra::VALUE_MAX => {
            tokens = tokens.with_extra("issued_token_type", issued);
        }
        Some(_) => context.log_too_long(document, "issued_token_type"),
        None => {}
    }
    tokens = extra(document, tokens, context);

    let refresh_in = if dialect.revokes_previous {
        // An early refresh would revoke the token of requests in flight.
        tokens.lifetime_at(context.now.wall())
    } else {
        match first_time(document, &fields.refresh_in, moment::lifetime) {
            Some((_, When::In(after))) => Some(after),
            _ => None,
        }
    };
    if let Some(after) = refresh_in {
        tokens = tokens.with_refresh_in(after);
    }
    Ok(tokens)
}

/// Returns the first of these fields that states a time, with its name.
fn first_time<'a>(
    document: &Document<'a>,
    pointers: &'a [String],
    read: fn(&Json, LifetimeUnit) -> Option<When>,
) -> Option<(&'a str, When)> {
    document.named(pointers).find_map(|found| Some((found.name, read(found.value, found.unit)?)))
}

fn access_token(token: &str, context: Context<'_>) -> Result<AccessToken, TokenError> {
    if is_placeholder(token) {
        return Err(context.lost(format!("the access token in the answer is `{token}`")));
    }
    if let Some(scheme) = scheme(token) {
        return Err(context.lost(format!(
            "the access token in the answer begins with its scheme, `{scheme} `; the field must contain only the token: correct it at the server, or remove the scheme in a token source of your own"
        )));
    }
    AccessToken::new(token)
        .map_err(|_| context.lost("the access token in the answer is not visible ASCII"))
}

/// Returns the scheme (RFC 9110 §11.1) that a token begins with.
fn scheme(token: &str) -> Option<&'static str> {
    let (first, _) = token.trim_start().split_once([' ', '\t'])?;
    ["Bearer", "DPoP", "MAC", "OAuth", "Token", "JWT"]
        .into_iter()
        .find(|scheme| first.eq_ignore_ascii_case(scheme))
}

/// Checks the type of an access token, without regard to case (RFC 6749 §5.1).
///
/// A token of an unknown type must not be used (RFC 6749 §7.1). This rule is applied to types that require a proof with each
/// request. Servers use other names for tokens that they accept as bearer tokens.
fn check_token_type(document: &Document<'_>, context: Context<'_>) -> Result<(), TokenError> {
    const WITH_PROOF: [&str; 8] =
        ["mac", "dpop", "pop", "hok", "hawk", "signature", "httpsignature", "digest"];

    let Some(token_type) = document.text(&document.dialect.fields.token_type) else {
        return Ok(());
    };
    let name = lenient::fold(token_type);
    if name == "bearer" || name == "bearertoken" {
        return Ok(());
    }
    let issued = document.text(&document.dialect.fields.issued_token_type);
    if let Some(issued) = issued.filter(|issued| name == "na" && *issued != ACCESS_TOKEN) {
        return check_issued(issued, context);
    }
    let shown = context.secrets.clean(token_type, CODE_LIMIT);
    let needs_proof = WITH_PROOF.contains(&name.as_str())
        || name.starts_with("macsha")
        || name.starts_with("hmac");
    if needs_proof {
        return Err(context.misconfigured(format_args!(
            "the access token has the type `{shown}`, which requires a proof with each request, and only bearer tokens are supported; if the server accepts it as a bearer token, set `fields.token_type` to an empty list in the dialect"
        )));
    }
    context.log_unknown_type(document, token_type);
    Ok(())
}

/// Checks the type of a token that the server calls unusable as an access token (`N_A`, RFC 8693 §2.2.1).
fn check_issued(issued: &str, context: Context<'_>) -> Result<(), TokenError> {
    if context.requested_token_type == Some(issued) {
        return Ok(());
    }
    let shown = context.secrets.clean(issued, TYPE_LIMIT);
    Err(context.misconfigured(format_args!(
        "the issued token is not an access token: its type is `{shown}`, and `N_A` means that no resource server accepts it; request another type with `requested_token_type`, or this type if the token is for a further grant"
    )))
}

/// How much of a token's type is shown, in characters.
const TYPE_LIMIT: usize = 100;

/// Logs a lifetime above a year, which may be in another unit.
fn warn_of_long_lifetime(
    document: &Document<'_>,
    stated: Option<(&str, When)>,
    received: Duration,
    context: Context<'_>,
) {
    const YEAR: Duration = Duration::from_secs(366 * 86_400);

    let Some((name, when)) = stated else { return };
    let lifetime = match when {
        When::In(lifetime) => lifetime,
        When::At(at) => at.saturating_sub(received),
    };
    if lifetime > YEAR {
        context.log_long_lifetime(document, name, lifetime);
    }
}

/// Returns the `exp` of a JWT (RFC 7519 §4.1.4), or `None` for other tokens, such as a JWE.
fn jwt_expiry(token: &str) -> Option<Duration> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = payload.trim_end_matches('=');
    let mut decoded = Zeroizing::new(Vec::with_capacity(payload.len()));
    URL_SAFE_NO_PAD.decode_vec(payload, &mut decoded).ok()?;
    let claims = lenient::parse_where(&decoded, |_| 0)?;
    let exp = claims.find("/exp").into_iter().next()?;
    match moment::moment(exp, LifetimeUnit::Seconds)? {
        // `exp` is always a time, even if `moment` takes a small number for a lifetime.
        When::In(since_epoch) | When::At(since_epoch) => Some(since_epoch),
    }
}

fn time_of_day(since_epoch: Duration) -> SystemTime {
    let since_epoch = since_epoch.min(moment::LATEST);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
}
