//! The formats of a request.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Where the parameters of a request go.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{BodyFormat, Dialect};
///
/// let dialect: Dialect = serde_json::from_str(r#"{ "body": "json" }"#)?;
/// assert_eq!(dialect.body, BodyFormat::Json);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 §4, appendix B).
    #[default]
    Form,
    /// A JSON object. Parameters are strings unless [`parameter_types`](super::Dialect::parameter_types) names another type.
    Json,
    /// The query of the URL, and an empty body. See [`allow_secrets_in_query`](super::Dialect::allow_secrets_in_query).
    Query,
}

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
    /// The parameters go into the body (RFC 6749 §3.2).
    #[default]
    #[serde(alias = "post")]
    Post,
    /// All parameters go into the query of the URL, and there is no body.
    ///
    /// Secrets among them need [`allow_secrets_in_query`](super::Dialect::allow_secrets_in_query). Proxies may cache a GET request,
    /// and HTTP clients may repeat one: use it only for a server that accepts no other method.
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
    /// A number, sent with the digits that were configured.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array of strings: the words of the value. A repeated parameter, such as `resource`, adds its words to the same array.
    Array,
    /// Any JSON value, such as an object. The parameter's value is JSON text.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_fits_only_its_type() {
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
    fn method_is_read_in_either_case() {
        for json in [r#""get""#, r#""GET""#] {
            assert_eq!(serde_json::from_str::<RequestMethod>(json).unwrap(), RequestMethod::Get);
        }
        assert_eq!(serde_json::to_value(RequestMethod::Get).unwrap(), "GET");
    }
}
