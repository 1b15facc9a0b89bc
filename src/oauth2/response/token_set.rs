//! The token set in an answer that grants one.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::DATE;
use serde_json::Value;

use super::document::Document;
use super::extra::extra;
use super::refusal::CODE_LIMIT;
use super::{Answer, Context, http_date};
use crate::error::TokenError;
use crate::oauth2::lenient;
use crate::oauth2::moment::{self, When};
use crate::token::{AccessToken, TokenSet};

pub(super) fn token_set(
    document: &Document<'_>,
    answer: &Answer,
    context: Context<'_>,
) -> Result<TokenSet, TokenError> {
    let dialect = context.dialect;
    let fields = &dialect.fields;

    let Some(token) = document.text(&fields.access_token) else {
        return Err(context.lost(
            "the token endpoint answered 200 without an access token; if it has another name there, name it in the dialect's `fields.access_token`",
        ));
    };
    // What a program writes that forgot to look: `Bearer undefined` has been seen in the wild.
    if ["undefined", "null", "None", "nil"].contains(&token) {
        return Err(context
            .lost(format!("the token endpoint answered 200 with `{token}` for an access token")));
    }
    let access_token = AccessToken::new(token).map_err(|_| {
        context
            .lost("the token endpoint answered 200 with an access token that is not visible ASCII")
    })?;
    check_token_type(document, context)?;

    let date = http_date(&answer.headers, &DATE);
    let received = date.unwrap_or(context.now.since_epoch());
    let expiry = document
        .all(&fields.expires_in)
        .find_map(moment::lifetime)
        .or_else(|| document.all(&fields.expires_at).find_map(moment::moment))
        .or(dialect.default_lifetime.map(|lifetime| When::In(lifetime.min(moment::LONGEST))))
        .or_else(|| jwt_expiry(token).filter(|expiry| *expiry > received).map(When::At));

    let mut tokens = TokenSet::builder(access_token);
    tokens = match expiry {
        None => tokens,
        Some(When::In(lifetime)) => tokens.expires_in(lifetime),
        // By the server's own clock, if it shows it: ours may be wrong.
        Some(When::At(at)) => match date {
            Some(date) => tokens.expires_in(at.saturating_sub(date)),
            None => tokens.expires_at(time_of_day(at)),
        },
    };

    if let Some(refresh_token) = document.text(&fields.refresh_token) {
        tokens = tokens.refresh_token(refresh_token);
    }
    let refresh_expiry = document
        .all(&fields.refresh_token_expires_in)
        .find_map(moment::lifetime)
        // Servers say 0 of refresh tokens that do not expire.
        .filter(|when| !matches!(when, When::In(lifetime) if lifetime.is_zero()))
        .or_else(|| document.all(&fields.refresh_token_expires_at).find_map(moment::moment));
    if let Some(when) = refresh_expiry {
        let now = context.now.since_epoch();
        tokens = tokens.refresh_token_expires_at(time_of_day(match when {
            When::In(lifetime) => now.saturating_add(lifetime),
            // In the time of our clock, since that is what it will be compared with.
            When::At(at) => at.saturating_add(now).saturating_sub(date.unwrap_or(now)),
        }));
    }

    if let Some(scope) = document.all(&fields.scope).find_map(scope) {
        tokens = tokens.scope(scope);
    }
    if let Some(id_token) = document.text(&fields.id_token) {
        tokens = tokens.id_token(id_token);
    }
    tokens = extra(document, tokens);

    let refresh_in = if dialect.revokes_previous {
        // To renew early would have requests in flight rejected.
        tokens.clone().build().lifetime_at(context.now.wall())
    } else {
        match document.all(&fields.refresh_in).find_map(moment::lifetime) {
            Some(When::In(after)) if !after.is_zero() => Some(after),
            _ => None,
        }
    };
    if let Some(after) = refresh_in {
        tokens = tokens.refresh_in(after);
    }
    Ok(tokens.build())
}

/// RFC 6749 §7.1: a token of a type that is not understood must not be used. RFC 6749 §5.1: the type has no case.
fn check_token_type(document: &Document<'_>, context: Context<'_>) -> Result<(), TokenError> {
    let Some(token_type) = document.text(&document.dialect.fields.token_type) else {
        return Ok(());
    };
    let plain: String = token_type
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if plain == "bearer" || plain == "bearertoken" {
        return Ok(());
    }
    let shown = context.secrets.clean(token_type, CODE_LIMIT);
    Err(TokenError::misconfigured(format!(
        "the token endpoint issued a token of type `{shown}`, and only bearer tokens can be sent"
    )))
}

fn scope(value: &Value) -> Option<String> {
    let scope = match value {
        Value::String(scope) => scope.trim().to_owned(),
        Value::Array(scopes) => {
            let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
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
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims = lenient::parse(&payload)?;
    match moment::moment(claims.get("exp")?)? {
        // Whether or not it is too small for a time of day, it is one.
        When::In(since_epoch) | When::At(since_epoch) => Some(since_epoch),
    }
}

fn time_of_day(since_epoch: Duration) -> SystemTime {
    let since_epoch = since_epoch.min(moment::LATEST);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
}
