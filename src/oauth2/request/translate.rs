//! Parameters under the names of the server.

use std::borrow::Cow;

use super::characters::check_characters;
use super::parameters::{Parameter, Parameters};
use crate::error::TokenError;
use crate::oauth2::dialect::known::{self, PUBLIC};
use crate::oauth2::dialect::{Dialect, ParameterType};
use crate::oauth2::scrub::Secrets;

/// A parameter under the server's name.
pub(super) struct Pair<'a> {
    pub(super) name: &'a str,
    /// The value as text.
    pub(super) text: Cow<'a, str>,
    /// The type of the value in a JSON body.
    pub(super) kind: ParameterType,
}

/// Translates all parameters into the dialect, in the order in which they are sent.
pub(super) fn translate<'a>(
    dialect: &'a Dialect,
    of_the_grant: &'a Parameters,
    of_the_client: &'a Parameters,
    secrets: &mut Secrets,
) -> Result<Vec<Pair<'a>>, TokenError> {
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    let mut add = |pair: Pair<'a>| {
        // RFC 6749 §3.2: parameters must not be sent twice. RFC 8707 §2 and RFC 8693 §2.1 allow these two.
        let repeatable = ["resource", "audience"].map(|name| dialect.parameter_name(name));
        if pairs.iter().any(|other| other.name == pair.name) && !repeatable.contains(&pair.name) {
            return Err(TokenError::misconfigured(format!(
                "the parameter `{}` is set twice: check the grant, its `params_with`, the client authentication, and the dialect's `extra_parameters` and `parameters_from_previous`",
                pair.name
            )));
        }
        pairs.push(pair);
        Ok(())
    };

    let mut exposed = None;
    for parameter in of_the_grant.iter().chain(of_the_client.iter()) {
        let Parameter { name, value, is_from_previous } = parameter;
        let value = match name.as_str() {
            "grant_type" if !is_from_previous => match dialect.grant_type(value.expose()) {
                Some(value) => value,
                None => continue,
            },
            _ => value.expose(),
        };
        check_characters(dialect.rfc_name(name), value)?;
        if *is_from_previous || known::parameter(name) & PUBLIC == 0 {
            secrets.add(value);
            exposed = Some(name);
        }
        let sent_as = if *is_from_previous { name } else { dialect.parameter_name(name) };
        let kind = dialect.parameter_type(name);
        add(Pair { name: sent_as, text: Cow::Borrowed(value), kind })?;
    }
    for (name, value) in &dialect.extra_parameters {
        let (text, kind) = match value.as_str() {
            Some(text) => (Cow::Borrowed(text), dialect.parameter_type(name)),
            None => (Cow::Owned(value.to_string()), ParameterType::Json),
        };
        check_characters(dialect.rfc_name(name), &text)?;
        add(Pair { name, text, kind })?;
    }

    match exposed {
        Some(name) if dialect.uses_query() && !dialect.allow_secrets_in_query => {
            Err(TokenError::misconfigured(format!(
                "the parameter `{name}` is a secret and would go into the query: choose another `method` or `body` in the dialect, or set `allow_secrets_in_query`"
            )))
        }
        _ => Ok(pairs),
    }
}
