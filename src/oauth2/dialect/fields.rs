//! Where in an answer things are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where in an answer things are: JSON pointers (RFC 6901), of which the first that finds something counts.
///
/// In serde's formats a single pointer may be written as a string. An answer that is a form is taken for a flat object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Fields {
    /// The access token.
    #[serde(deserialize_with = "one_or_many")]
    pub access_token: Vec<String>,
    /// The type of the access token; a bearer token if there is none.
    #[serde(deserialize_with = "one_or_many")]
    pub token_type: Vec<String>,
    /// The lifetime of the access token in seconds.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_in: Vec<String>,
    /// The time at which the access token expires: seconds or milliseconds since 1970, ISO 8601, or an HTTP date.
    ///
    /// Looked at if there is no lifetime. A number that would lie before 1980 is a lifetime: nobody means 1970.
    #[serde(deserialize_with = "one_or_many")]
    pub expires_at: Vec<String>,
    /// The seconds after which to begin to renew the access token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_in: Vec<String>,
    /// The refresh token.
    #[serde(deserialize_with = "one_or_many")]
    pub refresh_token: Vec<String>,
    /// The lifetime of the refresh token in seconds; 0 is taken for "not known".
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
    /// Further fields to keep, by the name under which [`TokenSet::extra`](crate::TokenSet::extra) returns them; none unless
    /// named here. At most 32.
    ///
    /// In serde's formats `{"instance_url": "/instance_url"}`, a list of pointers in the place of one, or a list of names
    /// that stand at the top: `["instance_url"]`. A field that an answer to a refresh leaves out is kept from before, as is
    /// one that is `null`, empty, or longer than 8 KiB.
    #[serde(deserialize_with = "super::extra::names_or_pointers")]
    pub extra: BTreeMap<String, Vec<String>>,
    /// The error code. A code that means something to us is preferred to one that does not.
    #[serde(deserialize_with = "one_or_many")]
    pub error: Vec<String>,
    /// The error description.
    #[serde(deserialize_with = "one_or_many")]
    pub error_description: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        let pointers = |names: &[&str]| names.iter().map(|name| format!("/{name}")).collect();
        Self {
            access_token: pointers(&["access_token"]),
            token_type: pointers(&["token_type"]),
            expires_in: pointers(&["expires_in", "expiresIn"]),
            expires_at: pointers(&[
                "expires_at",
                "expiresAt",
                "expires_on",
                "expires",
                "access_token_expires_at",
                "accessTokenExpiresAt",
                "expiration",
                "expiry",
            ]),
            refresh_in: pointers(&["refresh_in"]),
            refresh_token: pointers(&["refresh_token"]),
            refresh_token_expires_in: pointers(&[
                "refresh_token_expires_in",
                "refresh_expires_in",
                "refreshTokenExpiresIn",
            ]),
            refresh_token_expires_at: pointers(&[
                "refresh_token_expires_at",
                "refreshTokenExpiresAt",
            ]),
            scope: pointers(&["scope"]),
            id_token: pointers(&["id_token"]),
            extra: BTreeMap::new(),
            error: pointers(&[
                "error",
                "error/code",
                "error/error",
                "error/type",
                "error/status",
                "errors/0/code",
                "errors/0/error",
                "errors/0/errorType",
                "errors/0/type",
                "error_code",
                "errorCode",
            ]),
            error_description: pointers(&[
                "error_description",
                "errorDescription",
                "error/error_description",
                "error/description",
                "error/message",
                "errors/0/error_description",
                "errors/0/description",
                "errors/0/message",
                "errors/0/detail",
                "error_message",
                "message",
            ]),
        }
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a JSON pointer or a list of them")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(pointer) => vec![pointer],
        OneOrMany::Many(pointers) => pointers,
    })
}
