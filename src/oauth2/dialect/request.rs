//! How a dialect shapes a request.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{BodyFormat, Dialect};

/// The method of token requests.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{Dialect, RequestMethod};
///
/// let dialect: Dialect = serde_json::from_str(r#"{ "method": "GET" }"#)?;
/// assert_eq!(dialect.method, RequestMethod::Get);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum RequestMethod {
    /// RFC 6749 §3.2.
    #[default]
    #[serde(alias = "post")]
    Post,
    /// All parameters go into the query of the URL, and there is no body.
    ///
    /// Secrets among them need [`allow_secrets_in_query`](Dialect::allow_secrets_in_query). Proxies may cache a GET request,
    /// and HTTP clients may repeat one: use it only for a server that takes no other.
    #[serde(alias = "get")]
    Get,
}

/// The type of a parameter in a JSON body.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{Dialect, ParameterType};
///
/// let dialect: Dialect =
///     serde_json::from_str(r#"{ "body": "json", "parameter_types": { "shop_id": "number" } }"#)?;
/// assert_eq!(dialect.parameter_types["shop_id"], ParameterType::Number);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParameterType {
    /// A string.
    #[default]
    String,
    /// A number. It is sent with all the digits that it was given with.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array of strings: the words of the value, and of all values if there are several (as of `resource`).
    Array,
    /// Any JSON value, such as an object; the parameter's value is its text.
    Json,
}

impl ParameterType {
    /// Returns whether a value can be sent as this type.
    pub(in crate::oauth2) fn fits(self, text: &str) -> bool {
        // Whitespace around a value would pass for JSON.
        let is_json = || text.trim().len() == text.len();
        match self {
            Self::String | Self::Array => true,
            Self::Number => is_json() && serde_json::from_str::<serde_json::Number>(text).is_ok(),
            Self::Boolean => matches!(text, "true" | "false"),
            Self::Json => serde_json::from_str::<IgnoredAny>(text).is_ok(),
        }
    }

    pub(in crate::oauth2) fn noun(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "`true` or `false`",
            Self::Array => "an array",
            Self::Json => "JSON",
        }
    }
}

/// A part of the previous token set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oauth2) enum PreviousField<'a> {
    AccessToken,
    RefreshToken,
    IdToken,
    Scope,
    /// By its name in [`Fields::extra`](super::Fields::extra).
    Extra(&'a str),
}

impl Dialect {
    /// Returns whether parameters go into the query.
    pub(in crate::oauth2) fn uses_query(&self) -> bool {
        self.method == RequestMethod::Get || self.body == BodyFormat::Query
    }

    /// Returns the name that a parameter has in the RFC, where ours or the server's may be given.
    pub(in crate::oauth2) fn rfc_name<'a>(&'a self, name: &'a str) -> &'a str {
        let mut names = self.parameter_names.iter();
        names.find(|(_, theirs)| *theirs == name).map_or(name, |(ours, _)| ours)
    }

    /// Returns the type of a parameter by its name in the RFC or at the server.
    pub(in crate::oauth2) fn parameter_type(&self, name: &str) -> ParameterType {
        let names = [name, self.parameter_name(name), self.rfc_name(name)];
        names
            .into_iter()
            .find_map(|name| self.parameter_types.get(name))
            .copied()
            .unwrap_or_default()
    }

    /// Returns which part of the previous token set a value of `parameters_from_previous` names.
    pub(in crate::oauth2) fn previous_field(&self, source: &str) -> Option<PreviousField<'_>> {
        Some(match source {
            "access_token" => PreviousField::AccessToken,
            "refresh_token" => PreviousField::RefreshToken,
            "id_token" => PreviousField::IdToken,
            "scope" => PreviousField::Scope,
            _ => {
                let mut extra = self.fields.extra.iter();
                let (name, _) = extra.find(|(name, pointers)| {
                    *name == source || pointers.iter().any(|pointer| pointer == source)
                })?;
                PreviousField::Extra(name)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_its_type_or_not() {
        for (kind, good, bad) in [
            (
                ParameterType::Number,
                &["0", "-1", "1.50", "1e3", "123456789012345678901234567890"][..],
                &["", "007", "+1", "1 ", "NaN", "1e400x", "0x1", "\"1\"", "1,2"][..],
            ),
            (ParameterType::Boolean, &["true", "false"], &["", "True", "1", "true "]),
            (
                ParameterType::Json,
                &["null", "{}", "[1, \"a\"]", "\"a\"", " {} "],
                &["", "a", "{", "[1,]", "{}{}"],
            ),
        ] {
            for text in good {
                assert!(kind.fits(text), "{kind:?} {text}");
            }
            for text in bad {
                assert!(!kind.fits(text), "{kind:?} {text}");
            }
        }
    }

    #[test]
    fn a_method_is_read_in_either_case() {
        let dialect: Dialect = serde_json::from_str(r#"{"method": "get"}"#).unwrap();
        assert_eq!(dialect.method, RequestMethod::Get);
        assert_eq!(serde_json::to_value(RequestMethod::Get).unwrap(), "GET");
    }
}
