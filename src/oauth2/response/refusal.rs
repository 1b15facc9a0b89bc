//! The meaning of an answer that grants nothing.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::document::Document;
use super::oauth_error::{Meaning, OAuthError};
use super::{Answer, Context, http_date};
use crate::classify::Challenge;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::oauth2::moment;

/// Reads an answer other than 2xx.
pub(in crate::oauth2) fn refusal(answer: &Answer, context: Context<'_>) -> TokenError {
    let document =
        answer.body.as_ref().ok().and_then(|body| Document::parse(body, context.dialect));
    let is_document = document.is_some();
    let error = document.map(|document| {
        OAuthError::read(&Document::new(&document, context.dialect), answer.status)
    });
    let error = error.unwrap_or_default();

    let told = match answer.status.as_u16() {
        300..=399 => context.misconfigured(
            "redirects are not followed, because the request carries secrets; configure the URL that it redirects to",
        ),
        407 => context.misconfigured(
            "a proxy demands credentials, and the server did not get the request; configure them in the HTTP client",
        ),
        408 => context.lost("the server or a gateway gave up waiting for the request"),
        421 | 425 => context.transient("the request was not processed"),
        429 | 503 if is_from_server(&error, answer, context.now) => {
            context.transient("the server asks to try again later")
        }
        429 | 503 => context.lost(
            "neither an OAuth error nor `Retry-After` shows that the authorization server itself answered, and a gateway may have forwarded the request before",
        ),
        400..=499 if error.is_some() => return classify(&error, answer, context),
        400..=499 => without_code(answer, is_document, context),
        // A configured code is the exception: an error that a 5xx echoes does not show who sent it, or when.
        500..=599 if error.is_by_dialect && error.meaning == Some(Meaning::Transient) => {
            context.transient("the server asks to try again later")
        }
        _ if is_document => context.lost("the request may have been processed"),
        _ => context.lost(unreadable(answer)),
    };
    finish(told, &error, answer, context)
}

/// Returns the error for an OAuth error (RFC 6749 §5.2).
pub(super) fn classify(error: &OAuthError, answer: &Answer, context: Context<'_>) -> TokenError {
    const HINT: &str = "if the code means that the user must log in again, add it to `denied` in the dialect, or to `transient` if a later attempt may succeed";

    const DENIED: &str =
        "if the code means that the user must log in again, add it to `denied` in the dialect";
    const TRANSIENT: &str =
        "if the code means that a later attempt may succeed, add it to `transient` in the dialect";

    let hinted = |text: &str, hint: &str| match error.is_by_dialect {
        true => text.to_owned(),
        false => format!("{text}; {hint}"),
    };
    let told = match error.meaning {
        Some(Meaning::Denied) => {
            context.denied(hinted("the grant was refused and the user must log in again", TRANSIENT))
        }
        Some(Meaning::Transient) => {
            context.transient(hinted("the server asks to try again later", DENIED))
        }
        Some(Meaning::Unknown) => {
            context.lost(hinted("the server failed and may have processed the request", HINT))
        }
        Some(Meaning::Misconfigured) => {
            context.misconfigured(hinted("the request was refused", HINT))
        }
        Some(Meaning::Client) => context.misconfigured(hinted(&client_refused(context), HINT)),
        None if answer.status == 401 && asks_for_basic(&answer.headers) => {
            context.misconfigured(hinted(&client_refused(context), HINT))
        }
        None => context.misconfigured(format!(
            "the request was refused with an unknown code; {HINT}; if the answer has the code elsewhere, name its place in `fields.error`"
        )),
    };
    finish(told, error, answer, context)
}

/// Adds to an error what else the answer holds: the code, the description, and `Retry-After`.
pub(super) fn finish(
    told: TokenError,
    error: &OAuthError,
    answer: &Answer,
    context: Context<'_>,
) -> TokenError {
    let told = error.add_to(told, context.secrets);
    match retry_after(&answer.headers, context.now) {
        Some(retry_after) => told.with_retry_after(retry_after),
        None => told,
    }
}

/// Returns whether a 429 or 503 is recognisably the authorization server's own.
///
/// Any other may be a gateway's, which answers so after it has forwarded the request, too: Envoy if the connection to the
/// server ends (`UC`), Heroku's router after 30 seconds (`H12`).
fn is_from_server(error: &OAuthError, answer: &Answer, now: Timestamp) -> bool {
    let is_oauth_error = match error.meaning {
        Some(meaning) => meaning != Meaning::Unknown,
        None => error.is_standard_shape,
    };
    is_oauth_error || retry_after(&answer.headers, now).is_some()
}

/// Returns the error for a 4xx that carries no error code.
fn without_code(answer: &Answer, is_document: bool, context: Context<'_>) -> TokenError {
    let status = answer.status;
    let is_empty = answer.is_empty();
    if is_empty && context.dialect.denied_statuses.contains(&status.as_u16()) {
        return context.denied("the grant was refused and the user must log in again");
    }
    let is_refusal_of_client = status == 401
        && (asks_for_basic(&answer.headers) || is_empty && context.client_auth.authenticates());
    if is_refusal_of_client {
        return context.misconfigured(client_refused(context));
    }
    let reason: Cow<'_, str> = match (is_document, is_empty) {
        (true, _) => {
            "the answer has no known error code; if it has one elsewhere, name its place in `fields.error` in the dialect".into()
        }
        (_, true) => {
            "the body is empty; if that is how this server refuses a grant, add the status to `denied_statuses` in the dialect".into()
        }
        _ => unreadable(answer),
    };
    match status.as_u16() {
        404 => context.lost(format!("{reason}; check the path of the token endpoint's URL")),
        405 => context.lost(format!(
            "{reason}; check the path of the token endpoint's URL, and `method` in the dialect"
        )),
        _ => context.lost(reason),
    }
}

/// Returns the reason why nothing was read from a body.
pub(super) fn unreadable(answer: &Answer) -> Cow<'_, str> {
    match &answer.body {
        Err(why) => why.into(),
        Ok(_) if answer.is_empty() => "the body is empty".into(),
        Ok(_) => "the body is neither JSON nor a form; a proxy, gateway or firewall may have answered instead of the server".into(),
    }
}

fn client_refused(context: Context<'_>) -> String {
    format!("the client credentials were refused; {}", context.client_auth.hint())
}

/// RFC 6749 §5.2: a server that refuses a client's `Authorization` header names the scheme that it expects.
fn asks_for_basic(headers: &HeaderMap) -> bool {
    Challenge::parse(headers)
        .iter()
        .any(|challenge| challenge.scheme().eq_ignore_ascii_case("basic"))
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = || {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        // Some servers send a fraction.
        if !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let seconds: f64 = value.parse().ok()?;
        // More digits than fit are as long as can be.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    };
    let date = || {
        let at = http_date(headers, &RETRY_AFTER)?;
        let now = http_date(headers, &DATE).unwrap_or(now.since_epoch());
        Some(at.saturating_sub(now))
    };
    seconds().or_else(date).map(|retry_after| retry_after.min(moment::LONGEST))
}
