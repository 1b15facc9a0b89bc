//! Parameters from the previous token set.

use super::Parameters;
use crate::error::TokenError;
use crate::oauth2::dialect::Dialect;
use crate::token::{RefreshToken, TokenSet};

/// Adds the parameters of the dialect's `parameters_from_previous`.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured) if the access token is a parameter and there is no previous set: the server
/// would refuse the request.
pub(in crate::oauth2) fn from_previous(
    dialect: &Dialect,
    previous: Option<&TokenSet>,
    refresh_token: &RefreshToken,
    parameters: &mut Parameters,
) -> Result<(), TokenError> {
    for (name, source) in &dialect.parameters_from_previous {
        let value = match (source.as_str(), previous) {
            // It may be newer than the one in the set.
            ("refresh_token", _) => Some(refresh_token.expose_secret()),
            ("access_token", None) => {
                return Err(TokenError::misconfigured(format!(
                    "the parameter `{name}` is the previous access token, which does not exist yet: begin with a token set that has both tokens (`Credentials::log_in`)"
                )));
            }
            (_, None) => None,
            ("access_token", Some(previous)) => Some(previous.access_token().expose_secret()),
            ("id_token", Some(previous)) => previous.id_token(),
            ("scope", Some(previous)) => previous.scope(),
            (extra, Some(previous)) => {
                dialect.fields.extra_name(extra).and_then(|name| previous.extra(name))
            }
        };
        if let Some(value) = value {
            parameters.push_from_previous(name, value);
        }
    }
    Ok(())
}
