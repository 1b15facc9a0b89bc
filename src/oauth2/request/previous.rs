//! Parameters from the previous token set.

use super::Parameters;
use crate::error::TokenError;
use crate::oauth2::dialect::{Dialect, PreviousField};
use crate::token::{RefreshToken, TokenSet};

/// Adds the parameters of the dialect's `parameters_from_previous`.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured) if the access token is asked for and there is none: the server would refuse
/// the request.
pub(in crate::oauth2) fn from_previous(
    dialect: &Dialect,
    previous: Option<&TokenSet>,
    refresh_token: &RefreshToken,
    parameters: &mut Parameters,
) -> Result<(), TokenError> {
    for (name, source) in &dialect.parameters_from_previous {
        let value = match dialect.previous_field(source) {
            Some(PreviousField::AccessToken) => {
                let Some(previous) = previous else {
                    return Err(TokenError::misconfigured(format!(
                        "the parameter `{name}` is the previous access token, and there is none yet: begin with a token set that has both tokens (`Credentials::replace`)"
                    )));
                };
                Some(previous.access_token().expose_secret())
            }
            // The one that is spent by this request: it may be newer than the set.
            Some(PreviousField::RefreshToken) => Some(refresh_token.expose_secret()),
            Some(PreviousField::IdToken) => previous.and_then(TokenSet::id_token),
            Some(PreviousField::Scope) => previous.and_then(TokenSet::scope),
            Some(PreviousField::Extra(extra)) => previous.and_then(|set| set.extra(extra)),
            None => None,
        };
        if let Some(value) = value {
            parameters.push_from_previous(name, value);
        }
    }
    Ok(())
}
