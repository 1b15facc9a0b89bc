//! A snapshot of the credentials, for a health endpoint.

use std::fmt;
use std::time::{Duration, SystemTime};

#[cfg(feature = "serde")]
use super::seconds;
use crate::error::TokenError;

/// A snapshot of the state of [`Credentials`](crate::Credentials), returned by [`status`](crate::Credentials::status).
///
/// Use it for a health endpoint. For changes, use [`Event`](crate::Event).
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, StaticToken, TokenStatus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::TokenError> {
/// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
/// assert_eq!(credentials.status().token, TokenStatus::Missing);
///
/// credentials.warm_up().await?;
/// assert_eq!(credentials.status().token, TokenStatus::Fresh);
/// assert_eq!(credentials.status().to_string(), "fresh, generation 1");
/// # Ok(())
/// # }
/// ```
///
/// # Display
///
/// One line for an operator. Later versions may change it:
///
/// ```text
/// fresh, generation 3, usable for 59m, refresh due in 54m
/// stale, generation 3, usable for 40s, refresh due in 3s, last failure: no token for now: 503
/// rejected, generation 4, usable for 59m, refresh due in 54m, rejections start no refresh for 9s
/// missing, no refresh before the credentials change, last failure: token denied: expired: invalid_grant
/// fresh, generation 5, usable for 59m, refresh due in 54m, unsaved
/// ```
///
/// # JSON
///
/// With the feature `serde` the status is [`Serialize`]. All times are numbers of seconds with up to three decimals, and
/// `refresh_token_expires_at` counts from 1970-01-01T00:00:00Z. `token` and `error.kind` are the names of the variants of
/// [`TokenStatus`] and [`TokenErrorKind`](crate::TokenErrorKind) in snake case. `error.kind` is `denied` if the user must log in.
/// Later versions may add fields.
///
/// ```json
/// {
///   "token": "stale",
///   "generation": 3,
///   "usable_for": 40.5,
///   "refresh_token_expires_at": 1800000000,
///   "refreshing": false,
///   "next_refresh": 0.75,
///   "unsaved": false,
///   "error": { "kind": "transient", "message": "no token for now: 503", "code": null },
///   "backoff": 0.75,
///   "rejection_backoff": null
/// }
/// ```
///
/// [`Serialize`]: https://docs.rs/serde/1/serde/trait.Serialize.html
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The state of the current access token.
    pub token: TokenStatus,
    /// The generation of the current token set, which is higher than that of any earlier one.
    pub generation: Option<u64>,
    /// Time until the access token counts as expired, which is the leeway before its expiry, or `None` if there is no token or its
    /// expiry is not known. After a failed refresh, the token is used for the leeway too.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::left"))]
    pub usable_for: Option<Duration>,
    /// Time of day at which the refresh token expires, as stated by the server, or `None` if there is no refresh token or
    /// the server has not stated it.
    ///
    /// This is information: the refresh token is also sent after this time, and the server decides.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::since_epoch"))]
    pub refresh_token_expires_at: Option<SystemTime>,
    /// True if a refresh, a look at the store or a save is in flight, or a log-in or log-out is being recorded.
    pub refreshing: bool,
    /// Time until a request has the source asked: until the token is stale or expired, and the backoff after a failure is over. Zero
    /// if the next request does, or the source is being asked. `None` if no request does before the credentials change.
    ///
    /// A request whose token is rejected may have the source asked earlier. An idle program refreshes nothing.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::left"))]
    pub next_refresh: Option<Duration>,
    /// True if a token set, a log-in or a log-out is not saved in the store yet. It is lost if the program ends before that.
    pub unsaved: bool,
    /// The last failure, unless a refresh or a log-in has succeeded since.
    pub error: Option<TokenError>,
    /// Time until the next refresh may start after that failure, or `None` if it may start now, or not before the
    /// credentials change.
    ///
    /// After an [ambiguous](TokenError::is_ambiguous) failure no refresh starts before the current token expires. With a store, a
    /// [denied](TokenError::is_denied) failure has a backoff too. It is the time until the store is checked again for tokens of other
    /// processes, as after two ambiguous failures. `next_refresh` is the time until the source is asked.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::left"))]
    pub backoff: Option<Duration>,
    /// Time left during which rejections by at least one target start no refresh, because the last refreshes did not help
    /// there. See [`RefreshPolicy::rejection_backoff`](crate::RefreshPolicy::rejection_backoff).
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::left"))]
    pub rejection_backoff: Option<Duration>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.token)?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        if let Some(usable_for) = self.usable_for.filter(|left| !left.is_zero()) {
            write!(f, ", usable for {}", Rounded(usable_for))?;
        }
        match self.next_refresh {
            _ if self.refreshing => write!(f, ", refreshing")?,
            Some(Duration::ZERO) => write!(f, ", refresh due")?,
            Some(next) => write!(f, ", refresh due in {}", Rounded(next))?,
            None if self.error.is_some() => {
                write!(f, ", no refresh before the credentials change")?;
            }
            None => {}
        }
        if let Some(left) = self.rejection_backoff {
            write!(f, ", rejections start no refresh for {}", Rounded(left))?;
        }
        if self.unsaved {
            write!(f, ", unsaved")?;
        }
        match &self.error {
            Some(error) => write!(f, ", last failure: {error}"),
            None => Ok(()),
        }
    }
}

/// A duration in the largest unit of which there are at least two, rounded down.
pub(crate) struct Rounded(pub(crate) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        match units.into_iter().find(|(unit, _)| seconds >= 2 * unit) {
            Some((unit, name)) => write!(f, "{}{name}", seconds / unit),
            None => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

/// The state of an access token.
///
/// `Display` and the feature `serde` write the name in snake case.
///
/// # Examples
///
/// ```
/// use tower_refresh::TokenStatus;
///
/// assert_eq!(TokenStatus::Stale.to_string(), "stale");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TokenStatus {
    /// There is no token: none was obtained, or it was removed by a log-out.
    Missing,
    /// The token is used.
    Fresh,
    /// The token is used, and refreshed in the background.
    Stale,
    /// A resource server rejected the token, and no response has accepted it since, or the token is being replaced.
    ///
    /// It is about the current token: one that has replaced a rejected token is fresh until it is rejected too.
    Rejected,
    /// The token is not used any more.
    Expired,
}

impl fmt::Display for TokenStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_a_status_has_what_an_operator_needs() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let fresh = Status {
            token: TokenStatus::Fresh,
            generation: Some(3),
            usable_for: seconds(3599),
            refresh_token_expires_at: None,
            refreshing: false,
            next_refresh: seconds(3299),
            unsaved: false,
            error: None,
            backoff: None,
            rejection_backoff: None,
        };
        let error = || Some(TokenError::transient("503"));
        let stale = Status {
            token: TokenStatus::Stale,
            usable_for: seconds(40),
            next_refresh: seconds(3),
            backoff: seconds(3),
            error: error(),
            ..fresh.clone()
        };
        let rejected = Status {
            token: TokenStatus::Rejected,
            generation: Some(4),
            rejection_backoff: seconds(9),
            ..fresh.clone()
        };
        let missing = Status {
            token: TokenStatus::Missing,
            generation: None,
            usable_for: None,
            next_refresh: None,
            error: Some(TokenError::denied("expired").with_code("invalid_grant")),
            ..fresh.clone()
        };
        let unsaved = Status { generation: Some(5), unsaved: true, ..fresh.clone() };
        let due = Status { next_refresh: Some(Duration::ZERO), ..fresh.clone() };
        let refreshing = Status { refreshing: true, ..due.clone() };
        let endless = Status { usable_for: None, next_refresh: None, ..fresh.clone() };
        for (status, expected) in [
            (fresh, "fresh, generation 3, usable for 59m, refresh due in 54m"),
            (
                stale,
                "stale, generation 3, usable for 40s, refresh due in 3s, last failure: no token for now: 503",
            ),
            (
                rejected,
                "rejected, generation 4, usable for 59m, refresh due in 54m, rejections start no refresh for 9s",
            ),
            (
                missing,
                "missing, no refresh before the credentials change, last failure: token denied: expired: invalid_grant",
            ),
            (unsaved, "fresh, generation 5, usable for 59m, refresh due in 54m, unsaved"),
            (due, "fresh, generation 3, usable for 59m, refresh due"),
            (refreshing, "fresh, generation 3, usable for 59m, refreshing"),
            (endless, "fresh, generation 3"),
        ] {
            assert_eq!(status.to_string(), expected);
        }
    }

    #[test]
    fn rounded_duration_has_one_unit_and_two_of_it() {
        for (milliseconds, expected) in [
            (0, "0ms"),
            (1_999, "1999ms"),
            (2_000, "2s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_199_999, "119m"),
            (7_200_000, "2h"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(Rounded(Duration::from_millis(milliseconds)).to_string(), expected);
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod json_tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_has_the_documented_json() {
        let mut status = Status {
            token: TokenStatus::Stale,
            generation: Some(3),
            usable_for: Some(Duration::from_millis(40_500)),
            refresh_token_expires_at: Some(
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            ),
            refreshing: false,
            next_refresh: Some(Duration::from_millis(750)),
            unsaved: false,
            error: Some(TokenError::transient("503")),
            backoff: Some(Duration::from_millis(750)),
            rejection_backoff: None,
        };
        let expected = json!({
            "token": "stale",
            "generation": 3,
            "usable_for": 40.5,
            "refresh_token_expires_at": 1_800_000_000,
            "refreshing": false,
            "next_refresh": 0.75,
            "unsaved": false,
            "error": { "kind": "transient", "message": "no token for now: 503", "code": null },
            "backoff": 0.75,
            "rejection_backoff": null,
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);

        let denied = TokenError::denied("expired").with_code("invalid_grant");
        let expected = json!({
            "kind": "denied",
            "message": "token denied: expired: invalid_grant",
            "code": "invalid_grant",
        });
        assert_eq!(serde_json::to_value(denied).unwrap(), expected);

        status.error = None;
        status.next_refresh = Some(Duration::from_micros(1_632_417));
        status.refresh_token_expires_at = Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        let shown = serde_json::to_value(&status).unwrap();
        assert_eq!(
            (&shown["error"], &shown["refresh_token_expires_at"]),
            (&json!(null), &json!(0))
        );
        assert_eq!(shown["next_refresh"].to_string(), "1.632");
    }

    #[test]
    fn json_of_a_token_status_is_its_display() {
        for status in [TokenStatus::Missing, TokenStatus::Rejected, TokenStatus::Expired] {
            assert_eq!(serde_json::to_value(status).unwrap(), json!(status.to_string()));
        }
    }
}
