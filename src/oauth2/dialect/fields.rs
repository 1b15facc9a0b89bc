//! The places of the fields in an answer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::known::pointers;
use super::parse::{names_or_pointers, one_or_many};

/// The places of the fields in an answer: JSON pointers (RFC 6901), in the order in which they are tried.
///
/// [A guide](crate::docs::token_endpoints#the-answer) lists the places by default.
///
/// In serde's formats a single pointer may be written as a string. A form counts as a flat object. If an object repeats a
/// member, the last usable value counts.
///
/// # Other spellings
///
/// A default list also finds names that differ only in case and punctuation: `refreshToken`, `RefreshToken` and
/// `refresh-token` for `/refresh_token`. A list of your own finds only the names in it. If the answer then has an unread field
/// whose name differs from a default one only in case and punctuation, its name is logged at WARN. So is the name of a number or a time that
/// nothing reads, if the answer has no lifetime and the name contains `expir` or `ttl`.
///
/// # Times and lifetimes
///
/// A number of 0 or less is unknown, as is a time before 1980, such as the zero time `0001-01-01T00:00:00Z` of some
/// languages. The next pointer is tried, then the next source of a lifetime.
///
/// The unit of a number is [`lifetime_unit`](Self::lifetime_unit), or that of the last word of the pointer: milliseconds for `ms`,
/// `millis` or `milliseconds`, as in `/expires_in_ms` and `/expiresInMillis`, and minutes for `minutes`, as in `/ttl_minutes`. A
/// lifetime of an access token above one year is logged at WARN.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{Dialect, LifetimeUnit};
///
/// let mut dialect = Dialect::rfc6749();
/// dialect.fields.access_token = vec!["/session/token".into()];
/// dialect.fields.expires_in = vec!["/session/ttl".into()];
/// dialect.fields.lifetime_unit = LifetimeUnit::Milliseconds;
///
/// let same: Dialect = serde_json::from_str(
///     r#"{"fields": {
///         "access_token": "/session/token",
///         "expires_in": "/session/ttl",
///         "lifetime_unit": "milliseconds"
///     }}"#,
/// )?;
/// assert_eq!(same, dialect);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Fields {
    /// The access token.
    #[serde(deserialize_with = "one_or_many")]
    pub access_token: Vec<String>,
    /// The type of the access token (RFC 6749 §7.1).
    ///
    /// Without a type the token is a bearer token. A type that requires a proof with each request, such as `mac` or `DPoP`, is
    /// an error. So is `N_A` if the [`issued_token_type`](Self::issued_token_type) is neither that of an access token nor the one
    /// that was requested. Any other type, such as `bot` or `user`, counts as bearer and is logged at WARN. If the list is empty,
    /// the type is ignored.
    #[serde(deserialize_with = "one_or_many")]
    pub token_type: Vec<String>,
    /// The lifetime of the access token.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_in: Vec<String>,
    /// The time at which the access token expires: seconds or milliseconds since 1970, ISO 8601, or an HTTP date.
    ///
    /// Used if there is no lifetime. A positive number that would be a time before 1980 is a lifetime.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_at: Vec<String>,
    /// The time after which to start refreshing the access token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_in: Vec<String>,
    /// The refresh token: a string, or an integer, whose digits are kept.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token: Vec<String>,
    /// The lifetime of the refresh token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token_expires_in: Vec<String>,
    /// The time at which the refresh token expires, in the forms of [`expires_at`](Self::expires_at).
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token_expires_at: Vec<String>,
    /// The scope: a string, or an array of strings.
    #[serde(deserialize_with = "one_or_many")]
    pub scope: Vec<String>,
    /// The id token.
    #[serde(deserialize_with = "one_or_many")]
    pub id_token: Vec<String>,
    /// The type of the issued token (RFC 8693 §2.2.1), which [`TokenSet::extra`](crate::TokenSet::extra) returns as
    /// `issued_token_type`.
    #[serde(deserialize_with = "one_or_many")]
    pub issued_token_type: Vec<String>,
    /// Further fields to keep, by the name for [`TokenSet::extra`](crate::TokenSet::extra). At most 32, by default none.
    ///
    /// In serde's formats `{"instance_url": "/instance_url"}`, with one pointer or a list of them, or a list of names of
    /// top-level fields: `["instance_url"]`. If the answer to a refresh lacks a field, or the field is `null`, empty or longer
    /// than 8 KiB, its previous value is kept.
    #[serde(deserialize_with = "names_or_pointers")]
    pub extra: BTreeMap<String, Vec<String>>,
    /// The error code: a string or a number. Codes of known meaning take precedence: see
    /// [`Dialect::denied`](super::Dialect::denied).
    #[serde(deserialize_with = "one_or_many")]
    pub error: Vec<String>,
    /// The error description: a string, or an array of strings.
    #[serde(deserialize_with = "one_or_many")]
    pub error_description: Vec<String>,
    /// The unit of the lifetimes. Seconds by default (RFC 6749 §5.1).
    pub lifetime_unit: LifetimeUnit,
}

/// The unit of a lifetime that is a number.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{Dialect, LifetimeUnit};
///
/// let mut dialect = Dialect::rfc6749();
/// dialect.fields.lifetime_unit = LifetimeUnit::Milliseconds;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LifetimeUnit {
    /// Seconds (RFC 6749 §5.1).
    #[default]
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
    /// Sixty seconds.
    Minutes,
}

impl LifetimeUnit {
    /// Returns the unit that the last word of a name states.
    pub(in crate::oauth2) fn of_name(name: &str) -> Option<Self> {
        const UNITS: [(LifetimeUnit, &[&str]); 2] = [
            (
                LifetimeUnit::Milliseconds,
                &["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"],
            ),
            (LifetimeUnit::Minutes, &["mins", "minutes"]),
        ];

        let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_last_word = |unit: &&str| {
            let at = name.len().saturating_sub(unit.len());
            let (before, word) = name.split_at_checked(at).unwrap_or_default();
            let begins_word = match before.chars().next_back() {
                Some(c) if c.is_ascii_lowercase() => {
                    word.starts_with(|c: char| c.is_ascii_uppercase())
                }
                Some(c) => !c.is_ascii_alphanumeric(),
                None => true,
            };
            begins_word && word.eq_ignore_ascii_case(unit)
        };
        let unit = UNITS.into_iter().find(|(_, words)| words.iter().any(is_last_word));
        unit.map(|(unit, _)| unit)
    }
}

impl Fields {
    /// Returns the default.
    pub(in crate::oauth2) fn usual() -> &'static Self {
        static USUAL: LazyLock<Fields> = LazyLock::new(Fields::default);
        &USUAL
    }

    /// Returns the name of the extra field with this name or pointer.
    pub(in crate::oauth2) fn extra_name(&self, name_or_pointer: &str) -> Option<&str> {
        let mut extra = self.extra.iter().filter(|(name, pointers)| {
            *name == name_or_pointer || pointers.iter().any(|pointer| pointer == name_or_pointer)
        });
        extra.next().map(|(name, _)| name.as_str())
    }

    /// Returns the lists with their names.
    pub(in crate::oauth2) fn lists(&self) -> [(&'static str, &[String]); 13] {
        [
            ("access_token", &self.access_token),
            ("token_type", &self.token_type),
            ("expires_in", &self.expires_in),
            ("expires_at", &self.expires_at),
            ("refresh_in", &self.refresh_in),
            ("refresh_token", &self.refresh_token),
            ("refresh_token_expires_in", &self.refresh_token_expires_in),
            ("refresh_token_expires_at", &self.refresh_token_expires_at),
            ("scope", &self.scope),
            ("id_token", &self.id_token),
            ("issued_token_type", &self.issued_token_type),
            ("error", &self.error),
            ("error_description", &self.error_description),
        ]
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            access_token: pointers("access_token"),
            token_type: pointers("token_type"),
            expires_in: pointers("expires_in"),
            expires_at: pointers("expires_at"),
            refresh_in: pointers("refresh_in"),
            refresh_token: pointers("refresh_token"),
            refresh_token_expires_in: pointers("refresh_token_expires_in"),
            refresh_token_expires_at: pointers("refresh_token_expires_at"),
            scope: pointers("scope"),
            id_token: pointers("id_token"),
            issued_token_type: pointers("issued_token_type"),
            error: pointers("error"),
            error_description: pointers("error_description"),
            extra: BTreeMap::new(),
            lifetime_unit: LifetimeUnit::Seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_a_usual_name() {
        for (name, pointers) in Fields::usual().lists() {
            assert!(!pointers.is_empty(), "{name}");
        }
    }

    #[test]
    fn guide_lists_the_default_places_of_each_field() {
        let guide = include_str!("../../docs/token_endpoints.md");
        for (name, pointers) in Fields::usual().lists() {
            let places = pointers.iter().map(|pointer| format!("`{}`", &pointer[1..]));
            let places = places.collect::<Vec<_>>().join(", ");
            let mut rows = guide.lines().filter(|line| line.starts_with(&format!("| `{name}`")));
            assert!(rows.any(|row| row.contains(&places)), "{name}: {places}");
        }
    }
}
