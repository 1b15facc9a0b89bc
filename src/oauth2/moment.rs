//! Lifetimes and times of expiry, in the forms in which servers give them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// So long from now.
    In(Duration),
    /// So long after 1970.
    At(Duration),
}

/// No lifetime is longer: a hundred years.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// No time of day is later: the end of the year 9999.
pub(super) const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// Understands a field that ought to be a lifetime in seconds.
///
/// A date is understood all the same; an empty string and whatever else is no number is nothing.
pub(super) fn lifetime(value: &Value) -> Option<When> {
    match value {
        Value::Number(number) => Some(When::In(clamp(number.as_f64()?))),
        Value::String(text) => match number(text) {
            Some(seconds) => Some(When::In(clamp(seconds))),
            None => date(text).map(When::At),
        },
        _ => None,
    }
}

/// Understands a field that ought to be a time of day.
pub(super) fn moment(value: &Value) -> Option<When> {
    match value {
        Value::Number(number) => Some(since_1970(number.as_f64()?)),
        Value::String(text) => match number(text) {
            Some(seconds) => Some(since_1970(seconds)),
            None => date(text).map(When::At),
        },
        _ => None,
    }
}

/// Understands seconds since 1970, or thousandths, millionths or billionths of them.
fn since_1970(number: f64) -> When {
    // Ten years after 1970 nobody issued tokens yet: such a number is a lifetime.
    const TEN_YEARS: f64 = 10.0 * 365.25 * 86_400.0;
    // In seconds this is the year 5138, in milliseconds 1973.
    const NOT_SECONDS: f64 = 1e11;

    let mut seconds = number;
    for _ in 0..3 {
        if seconds >= NOT_SECONDS {
            seconds /= 1000.0;
        }
    }
    if number < TEN_YEARS {
        When::In(clamp(number))
    } else {
        When::At(Duration::try_from_secs_f64(seconds).map_or(LATEST, |at| at.min(LATEST)))
    }
}

/// Understands a number in a string. `parse` alone would take `inf` and `NaN` for numbers.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .then(|| text.parse().ok())
        .flatten()
}

fn clamp(seconds: f64) -> Duration {
    if seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).map_or(LONGEST, |lifetime| lifetime.min(LONGEST))
}

/// Understands ISO 8601, of which no offset is taken for UTC, and the dates of HTTP (RFC 9110 §5.6.7).
fn date(text: &str) -> Option<Duration> {
    let text = text.trim();
    let iso = without_excess_fraction(text);
    if let Ok(timestamp) = iso.parse::<Timestamp>() {
        return Some(after_1970(timestamp));
    }
    if let Ok(civil) = iso.parse::<DateTime>() {
        return Some(after_1970(TimeZone::UTC.to_timestamp(civil).ok()?));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

fn after_1970(timestamp: Timestamp) -> Duration {
    Duration::try_from(timestamp.as_duration()).unwrap_or(Duration::ZERO).min(LATEST)
}

/// Cuts the fraction of a second to nanoseconds, which is all that the parser takes.
fn without_excess_fraction(text: &str) -> String {
    let Some((seconds, rest)) = text.split_once(['.', ',']) else {
        return text.to_owned();
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, offset) = rest.split_at(digits);
    let fraction = fraction.get(..9).unwrap_or(fraction);
    if fraction.is_empty() {
        return format!("{seconds}{offset}");
    }
    format!("{seconds}.{fraction}{offset}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lifetimes_are_seconds_however_they_are_written() {
        for (value, expected) in [
            (json!(3600), Some(seconds(3600))),
            (json!("3600"), Some(seconds(3600))),
            (json!(3599.5), Some(Duration::from_millis(3_599_500))),
            (json!("3600.0"), Some(seconds(3600))),
            (json!(0), Some(Duration::ZERO)),
            (json!(-5), Some(Duration::ZERO)),
            (json!("-1e999"), Some(Duration::ZERO)),
            (json!(u64::MAX), Some(LONGEST)),
            (json!("1e400"), Some(LONGEST)),
            (json!(99_999_999_999_u64), Some(LONGEST)),
            (json!(null), None),
            (json!(""), None),
            (json!("inf"), None),
            (json!("NaN"), None),
            (json!("soon"), None),
            (json!(true), None),
            (json!([3600]), None),
        ] {
            assert_eq!(lifetime(&value), expected.map(When::In), "{value}");
        }
    }

    #[test]
    fn times_of_day_are_understood_in_every_usual_form() {
        let at = When::At(seconds(1_667_310_223));
        for (value, expected) in [
            (json!(1_667_310_223), at),
            (json!("1667310223"), at),
            (json!(1_667_310_223_000_u64), at),
            (json!(1_667_310_223_000_000_u64), at),
            (json!("2022-11-01T13:43:43Z"), at),
            (json!("2022-11-01T13:43:43.Z"), at),
            (json!("2022-11-01T13:43:43.0Z"), at),
            (json!("2022-11-01T15:43:43.000000000000+02:00"), at),
            (json!("2022-11-01T13:43:43.000+0000"), at),
            (json!("2022-11-01 13:43:43Z"), at),
            (json!("2022-11-01T13:43:43"), at),
            (json!("Tue, 01 Nov 2022 13:43:43 GMT"), at),
            (
                json!("2022-11-01T13:43:43.7826152Z"),
                When::At(Duration::new(1_667_310_223, 782_615_200)),
            ),
            (
                json!("2022-11-01T13:43:43.78261521234567Z"),
                When::At(Duration::new(1_667_310_223, 782_615_212)),
            ),
            (json!(3600), When::In(seconds(3600))),
            (json!(-3600), When::In(Duration::ZERO)),
            (json!("1960-01-01T00:00:00Z"), When::At(Duration::ZERO)),
            (json!("1e400"), When::At(LATEST)),
        ] {
            assert_eq!(moment(&value), Some(expected), "{value}");
        }
        assert_eq!(moment(&json!("tomorrow")), None);
    }
}
