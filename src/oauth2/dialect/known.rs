//! The names that are understood without configuration: fields of an answer, error codes, and parameters of a request.

use self::Meaning::{Client, Denied, Misconfigured, Transient, Unknown};

/// The places of each field of [`Fields`](super::Fields), tried from left to right. `/` leads into an object or an array.
#[rustfmt::skip]
pub(super) const FIELDS: [(&str, &[&str]); 13] = [
    ("access_token", &["access_token"]),
    ("token_type", &["token_type"]),
    ("expires_in", &["expires_in", "expiresIn", "expires_in_ms", "expires_in_millis", "expires_in_milliseconds"]),
    ("expires_at", &[
        "expires_at", "expiresAt", "expires_on", "expires", "access_token_expires_at", "accessTokenExpiresAt",
        "expiration", "expiry", "expires_at_ms",
    ]),
    ("refresh_in", &["refresh_in", "refresh_in_ms"]),
    ("refresh_token", &["refresh_token"]),
    ("refresh_token_expires_in", &[
        "refresh_token_expires_in", "refresh_expires_in", "refreshTokenExpiresIn", "refresh_token_expires_in_ms",
        "refresh_expires_in_ms",
    ]),
    ("refresh_token_expires_at", &["refresh_token_expires_at", "refreshTokenExpiresAt"]),
    ("scope", &["scope"]),
    ("id_token", &["id_token"]),
    ("issued_token_type", &["issued_token_type"]),
    ("error", &[
        "error", "error/code", "error/error", "error/error_code", "error/errorCode", "error/type", "error/status",
        "errors/0", "errors/0/code", "errors/0/error", "errors/0/errorType", "errors/0/type",
        "error_code", "errorCode", "error_codes/0", "errcode", "__type", "code", "status",
    ]),
    ("error_description", &[
        "error_description", "errorDescription", "error/error_description", "error/description", "error/message",
        "error/msg", "errors/0/error_description", "errors/0/description", "errors/0/message", "errors/0/detail",
        "error_message", "errorMessage", "error_msg", "errorSummary", "errmsg", "message", "msg", "description", "detail",
    ]),
];

/// The meaning of each error code.
const CODES: [(&str, Meaning); 19] = [
    // RFC 6749 §5.2
    ("invalid_grant", Denied),
    ("invalid_client", Client),
    ("invalid_request", Misconfigured),
    ("invalid_scope", Misconfigured),
    ("unauthorized_client", Misconfigured),
    ("unsupported_grant_type", Misconfigured),
    // RFC 6749 §4.1.2.1; `server_error` is "an unexpected condition".
    ("temporarily_unavailable", Transient),
    ("server_error", Unknown),
    // RFC 8707 §2
    ("invalid_target", Misconfigured),
    // RFC 8628 §3.5
    ("authorization_pending", Transient),
    ("expired_token", Denied),
    ("slow_down", Transient),
    // OpenID Connect Core §3.1.2.6
    ("account_selection_required", Denied),
    ("consent_required", Denied),
    ("interaction_required", Denied),
    ("login_required", Denied),
    // Google's, and those of rate limiters
    ("internal_failure", Transient),
    ("rate_limit_exceeded", Transient),
    ("too_many_requests", Transient),
];

/// The parameters of token requests, with the properties of each.
pub(in crate::oauth2) const PARAMETERS: [(&str, u8); 26] = [
    // RFC 6749 appendix A
    ("grant_type", VISIBLE | PUBLIC | RESERVED),
    ("scope", VISIBLE | PUBLIC),
    ("client_id", VISIBLE | PUBLIC),
    ("client_secret", VISIBLE | RESERVED),
    ("refresh_token", VISIBLE | RESERVED),
    ("access_token", VISIBLE),
    ("code", VISIBLE | RESERVED),
    ("redirect_uri", VISIBLE),
    ("username", ONE_LINE),
    ("password", ONE_LINE | RESERVED),
    // RFC 7009 §2.1
    ("token", VISIBLE),
    ("token_type_hint", VISIBLE | PUBLIC),
    // RFC 7521 §4
    ("assertion", VISIBLE | RESERVED),
    ("client_assertion", VISIBLE | RESERVED),
    ("client_assertion_type", VISIBLE | PUBLIC),
    // RFC 7636 §4.1
    ("code_verifier", VISIBLE),
    // RFC 8628 §3.4
    ("device_code", VISIBLE),
    // RFC 8693 §2.1
    ("audience", VISIBLE | PUBLIC),
    ("subject_token", VISIBLE | RESERVED),
    ("subject_token_type", VISIBLE | PUBLIC),
    ("actor_token", VISIBLE | RESERVED),
    ("actor_token_type", VISIBLE | PUBLIC),
    ("requested_token_type", PUBLIC),
    // Microsoft Entra ID, on behalf of a user
    ("requested_token_use", VISIBLE | PUBLIC),
    // RFC 8707 §2
    ("resource", VISIBLE | PUBLIC),
    // OpenID Connect Core §2
    ("id_token", VISIBLE),
];

/// Consists of visible ASCII characters and spaces (VSCHAR and similar, RFC 6749 appendix A).
pub(in crate::oauth2) const VISIBLE: u8 = 1;
/// Typed by a person: no control character other than a tab (UNICODECHARNOCRLF, RFC 6749 appendix A).
pub(in crate::oauth2) const ONE_LINE: u8 = 2;
/// Not a secret.
pub(in crate::oauth2) const PUBLIC: u8 = 4;
/// Set only by a grant or the client authentication.
pub(in crate::oauth2) const RESERVED: u8 = 8;

/// Returns the properties of a parameter.
pub(in crate::oauth2) fn parameter(name: &str) -> u8 {
    PARAMETERS.iter().find(|(known, _)| *known == name).map_or(0, |(_, traits)| *traits)
}

/// The meaning of an error code for the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oauth2) enum Meaning {
    /// The user must log in again.
    Denied,
    /// A later attempt may succeed.
    Transient,
    /// The server failed, perhaps after it had processed the request.
    Unknown,
    Misconfigured,
    /// The client's own credentials were refused.
    Client,
}

impl Meaning {
    /// Returns the meaning of a code that is in the table.
    pub(in crate::oauth2) fn of_code(code: &str) -> Option<Self> {
        CODES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
    }
}

/// Returns the places of a field as JSON pointers.
pub(super) fn pointers(field: &str) -> Vec<String> {
    let places = FIELDS.iter().find(|(known, _)| *known == field).map(|(_, places)| *places);
    places.unwrap_or_default().iter().map(|place| format!("/{place}")).collect()
}
