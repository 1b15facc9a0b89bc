//! The meaning of an answer without a token.

use std::borrow::Cow;

use http::HeaderMap;

use super::answer::{Answer, Context};
use super::document::Document;
use super::oauth_error::OAuthError;
use crate::classify::Challenge;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::oauth2::dialect::known::Meaning;

/// Reads an answer other than 2xx.
pub(in crate::oauth2) fn refusal(answer: &Answer, context: Context<'_>) -> TokenError {
    let document = answer.parse(context.dialect);
    let is_document = document.is_some();
    let error = document.map(|document| {
        OAuthError::read(&Document::new(&document, context.dialect), answer.status)
    });
    let error = error.unwrap_or_default();

    let failure = match answer.status.as_u16() {
        300..=399 => context.misconfigured(
            "redirects are not followed, because the request carries secrets; configure the URL that it redirects to",
        ),
        407 => context.misconfigured(
            "a proxy requires credentials and did not forward the request; configure them in the HTTP client",
        ),
        408 => context.lost("the server or a gateway gave up waiting for the request"),
        421 | 425 => context.transient("the request was not processed"),
        429 | 503 if is_from_server(&error, answer, context.now) => {
            context.transient("the server asks to try again later")
        }
        429 | 503 => context.lost(
            "neither an OAuth error nor `Retry-After` shows that the authorization server itself answered; a gateway may have forwarded the request",
        ),
        400..=499 if error.is_some() => return classify(&error, answer, context),
        400..=499 => without_code(answer, is_document, context),
        // A configured code is the exception: an error that a 5xx echoes does not show who sent it, or when. A configured
        // description does not count, because a gateway may use the same words.
        500..=599 if error.is_transient_code_of_dialect() => {
            context.transient("the server asks to try again later")
        }
        _ if is_document => context.lost("the request may have been processed"),
        _ => context.lost(answer.unreadable()),
    };
    finish(failure, &error, answer, context)
}

/// Returns the error for an OAuth error (RFC 6749 §5.2).
pub(super) fn classify(error: &OAuthError, answer: &Answer, context: Context<'_>) -> TokenError {
    const HINT: &str = "if the code means that the user must log in again, add it to `denied` in the dialect, or to `transient` if a later attempt may succeed";

    const DENIED: &str =
        "if the code means that the user must log in again, add it to `denied` in the dialect";
    const TRANSIENT: &str =
        "if the code means that a later attempt may succeed, add it to `transient` in the dialect";

    // `invalid_grant` has one meaning. Servers send other codes of RFC 6749 for a dead refresh token too.
    let is_clear = error.is_by_dialect() || error.code.as_deref() == Some("invalid_grant");
    let hinted = |text: &str, hint: &str| match is_clear {
        true => text.to_owned(),
        false => format!("{text}; {hint}"),
    };
    let failure = match error.meaning() {
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
            "the request was refused with an unknown code; {HINT}; if the answer has the code elsewhere, add its place to `fields.error` in the dialect"
        )),
    };
    finish(failure, error, answer, context)
}

/// Adds the code, the description and `Retry-After` of an answer to its error.
pub(super) fn finish(
    failure: TokenError,
    error: &OAuthError,
    answer: &Answer,
    context: Context<'_>,
) -> TokenError {
    let failure = error.add_to(failure, context.secrets);
    match answer.retry_after(context.now) {
        Some(retry_after) => failure.with_retry_after(retry_after),
        None => failure,
    }
}

/// Returns whether a 429 or 503 is recognisably the authorization server's own.
///
/// A gateway may answer with these statuses after it has forwarded the request: Envoy if the connection to the server ends
/// (`UC`), Heroku's router after 30 seconds (`H12`).
fn is_from_server(error: &OAuthError, answer: &Answer, now: Timestamp) -> bool {
    // Not the description: a gateway may use the same words.
    let is_oauth_error = match error.code_meaning() {
        Some(meaning) => meaning != Meaning::Unknown,
        None => error.is_standard_shape,
    };
    is_oauth_error || answer.retry_after(now).is_some()
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
            "the answer has no known error code; if it has one elsewhere, add its place to `fields.error` in the dialect".into()
        }
        (_, true) => {
            "the body is empty; if that is how this server refuses a grant, add the status to `denied_statuses` in the dialect".into()
        }
        _ => answer.unreadable(),
    };
    match status.as_u16() {
        404 => context.lost(format!("{reason}; check the path of the token endpoint's URL")),
        405 => context.lost(format!(
            "{reason}; check the path of the token endpoint's URL, and `method` in the dialect"
        )),
        _ => context.lost(reason),
    }
}

fn client_refused(context: Context<'_>) -> String {
    format!("the client credentials were refused; {}", context.client_auth.hint())
}

/// Returns whether the server expects Basic client authentication. It names the scheme if it refuses the client's
/// `Authorization` header (RFC 6749 §5.2).
fn asks_for_basic(headers: &HeaderMap) -> bool {
    Challenge::parse(headers)
        .iter()
        .any(|challenge| challenge.scheme().eq_ignore_ascii_case("basic"))
}
