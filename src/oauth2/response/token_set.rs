//! The token set in an answer that grants one.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::DATE;
use zeroize::Zeroizing;

use super::document::{Document, is_placeholder};
use super::extra::extra;
use super::oauth_error::CODE_LIMIT;
use super::{Answer, Context, http_date};
use crate::error::TokenError;
use crate::oauth2::dialect::LifetimeUnit;
use crate::oauth2::lenient::{self, Json};
use crate::oauth2::moment::{self, When};
use crate::token::{AccessToken, TokenSet};

pub(super) fn token_set(
    document: &Document<'_>,
    answer: &Answer,
    context: Context<'_>,
) -> Result<TokenSet, TokenError> {
    let dialect = context.dialect;
    let fields = &dialect.fields;

    warn_of_unread(document, context);
    let Some(token) = document.token(&fields.access_token) else {
        return Err(context.lost(
            "the answer has no access token; if it has another name there, name it in the dialect's `fields.access_token`",
        ));
    };
    let access_token = access_token(token, context)?;
    check_token_type(document, context)?;

    let date = http_date(&answer.headers, &DATE);
    let received = date.unwrap_or(context.now.since_epoch());
    let stated = first_time(document, &fields.expires_in, moment::lifetime)
        .or_else(|| first_time(document, &fields.expires_at, moment::moment));
    warn_of_long_lifetime(stated, received, context);
    let expiry = stated
        .map(|(_, when)| when)
        .or(dialect.default_lifetime.map(|lifetime| When::In(lifetime.min(moment::LONGEST))))
        .or_else(|| jwt_expiry(token).filter(|expiry| *expiry > received).map(When::At));

    let mut tokens = TokenSet::new(access_token);
    tokens = match expiry {
        None => tokens,
        Some(When::In(lifetime)) => tokens.with_expires_in(lifetime),
        // By the server's own clock, if it shows it: ours may be wrong.
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
            // In the time of our clock, since that is what it will be compared with.
            When::At(at) => at.saturating_add(now).saturating_sub(date.unwrap_or(now)),
        }));
    }

    if let Some(scope) = document.all(&fields.scope).find_map(scope) {
        tokens = tokens.with_scope(scope);
    }
    if let Some(id_token) = document.token(&fields.id_token) {
        tokens = tokens.with_id_token(id_token);
    }
    tokens = extra(document, tokens);

    let refresh_in = if dialect.revokes_previous {
        // To renew early would have requests in flight rejected.
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
        return Err(context.lost(format!("the answer has `{token}` for an access token")));
    }
    if let Some(scheme) = scheme(token) {
        return Err(context.lost(format!(
            "the answer has an access token that begins with its scheme, `{scheme} `; the field must hold the token alone: correct it at the server, or remove the scheme in a token source of your own"
        )));
    }
    AccessToken::new(token)
        .map_err(|_| context.lost("the answer has an access token that is not visible ASCII"))
}

/// Returns the scheme (RFC 9110 §11.1) that a token begins with.
fn scheme(token: &str) -> Option<&'static str> {
    let (first, _) = token.trim_start().split_once([' ', '\t'])?;
    ["Bearer", "DPoP", "MAC", "OAuth", "Token", "JWT"]
        .into_iter()
        .find(|scheme| first.eq_ignore_ascii_case(scheme))
}

/// RFC 6749 §5.1: the type has no case. RFC 6749 §7.1: a token of a type that is not understood must not be used.
///
/// That is for types that need a proof with each request. Others are names that a server made up for what it accepts as a
/// bearer token.
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
    let shown = context.secrets.clean(token_type, CODE_LIMIT);
    let needs_proof = WITH_PROOF.contains(&name.as_str())
        || name.starts_with("macsha")
        || name.starts_with("hmac");
    if needs_proof {
        return Err(context.misconfigured(format_args!(
            "the access token has the type `{shown}`, which needs a proof with each request, and only bearer tokens can be sent; if it is accepted as a bearer token, set `fields.token_type` to an empty list in the dialect"
        )));
    }
    context.warn(
        "token_type",
        format_args!(
            "unknown type `{shown}` of an access token, used as a bearer token; to expect it, set `fields.token_type` to an empty list in the dialect"
        ),
    );
    Ok(())
}

/// A field that the dialect does not read may be the next refresh token.
fn warn_of_unread(document: &Document<'_>, context: Context<'_>) {
    for name in document.unread() {
        context.warn(
            name,
            format_args!(
                "field of the token endpoint's answer not read, although its name is almost a usual one; name it in the dialect's `fields`"
            ),
        );
    }
}

/// Such a lifetime is often one in another unit.
fn warn_of_long_lifetime(stated: Option<(&str, When)>, received: Duration, context: Context<'_>) {
    const YEAR: Duration = Duration::from_secs(366 * 86_400);

    let Some((name, when)) = stated else { return };
    let lifetime = match when {
        When::In(lifetime) => lifetime,
        When::At(at) => at.saturating_sub(received),
    };
    if lifetime > YEAR {
        context.warn(
            name,
            format_args!(
                "lifetime of an access token is above a year: {lifetime:?}; if it is in milliseconds, set `fields.lifetime_unit` in the dialect"
            ),
        );
    }
}

fn scope(value: &Json) -> Option<String> {
    let scope = match value {
        Json::Text(scope, _) => scope.trim().to_owned(),
        Json::Array(scopes) => {
            let scopes: Vec<&str> = scopes.iter().filter_map(Json::as_str).collect();
            scopes.join(" ")
        }
        _ => return None,
    };
    Some(scope).filter(|scope| !scope.is_empty())
}

/// Returns the `exp` of a JWT (RFC 7519 §4.1.4); nothing for tokens of which nothing can be read, such as a JWE.
fn jwt_expiry(token: &str) -> Option<Duration> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = payload.trim_end_matches('=');
    let mut decoded = Zeroizing::new(Vec::with_capacity(payload.len()));
    URL_SAFE_NO_PAD.decode_vec(payload, &mut decoded).ok()?;
    let claims = lenient::parse(&decoded)?;
    let exp = claims.find("/exp").into_iter().next()?;
    match moment::moment(exp, LifetimeUnit::Seconds)? {
        // Whether or not it is too small for a time of day, it is one.
        When::In(since_epoch) | When::At(since_epoch) => Some(since_epoch),
    }
}

fn time_of_day(since_epoch: Duration) -> SystemTime {
    let since_epoch = since_epoch.min(moment::LATEST);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
}
