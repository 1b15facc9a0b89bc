//! The result of a request for a token.

use http::StatusCode;

use super::answer::{Answer, Context};
use super::document::Document;
use super::oauth_error::{OAuthError, is_flagged_as_failed};
use super::refusal::{classify, finish, refusal};
use super::token_set::token_set;
use crate::error::TokenError;
use crate::oauth2::dialect::Dialect;
use crate::token::{RefreshToken, TokenSet};

/// Reads an answer to a request for a token.
///
/// Only a refusal that is recognisably the server's own proves that the request was not processed. Before any other failure,
/// the server may have processed it.
pub(in crate::oauth2) fn read(
    answer: &Answer,
    context: Context<'_>,
) -> Result<TokenSet, TokenError> {
    if !answer.status.is_success() {
        return Err(refusal(answer, context));
    }

    let Some(document) = answer.parse(context.dialect) else {
        let lost = context.lost(answer.unreadable());
        return Err(finish(lost, &OAuthError::default(), answer, context));
    };
    let document = Document::new(&document, context.dialect);

    let error = OAuthError::read(&document, answer.status);
    let failed = is_flagged_as_failed(&document) || error.code_meaning().is_some();
    if document.has_token() && !failed {
        return token_set(&document, answer, context);
    }
    if error.is_some() && context.dialect.errors_with_200 {
        return Err(classify(&error, answer, context));
    }
    const OPTION: &str = "if this server always reports errors with status 200, set `errors_with_200` in the dialect";
    let failure = match (error.is_some(), failed) {
        (true, true) => context.lost(format!("the answer contains an error; {OPTION}")),
        (true, false) => context.lost(format!(
            "the answer has no access token and may contain an error; {OPTION}; if the token has another name, add it to `fields.access_token` in the dialect"
        )),
        (false, true) => context.lost("the answer reports a failure"),
        // The error names the field that is missing.
        (false, false) => match token_set(&document, answer, context) {
            Ok(tokens) => return Ok(tokens),
            Err(error) => error,
        },
    };
    Err(finish(failure, &error, answer, context))
}

/// Returns whether the part of a body that was read has an access token or an error.
pub(in crate::oauth2) fn is_answer(body: &[u8], status: StatusCode, dialect: &Dialect) -> bool {
    Document::parse(body, dialect).is_some_and(|document| {
        let document = Document::new(&document, dialect);
        document.has_token() || OAuthError::read(&document, status).is_some()
    })
}

/// Returns the refresh token in a 2xx answer that [`read`] failed on.
pub(in crate::oauth2) fn refresh_token(
    answer: &Answer,
    context: Context<'_>,
) -> Option<RefreshToken> {
    let document = answer.parse(context.dialect).filter(|_| answer.status.is_success())?;
    Document::new(&document, context.dialect).refresh_token().map(RefreshToken::from)
}
