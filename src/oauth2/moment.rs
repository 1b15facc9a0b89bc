//! Lifetimes and times of expiry, in the formats that servers use.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::dialect::LifetimeUnit;
use super::lenient::Json;

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// This long from now.
    In(Duration),
    /// This long after 1970.
    At(Duration),
}

/// The longest lifetime: a hundred years.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The earliest time: ten years after 1970. A lower number is a lifetime, and an earlier date is a zero time.
const EARLIEST: Duration = Duration::from_secs(3652 * 86_400);

/// The latest time: the end of the year 9999.
pub(super) const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// Reads a lifetime, or the time at which it ends. Returns `None` if neither is known: a number of 0 or less, or no number.
pub(super) fn lifetime(value: &Json, unit: LifetimeUnit) -> Option<When> {
    match number(value)? {
        Ok(number) => lasting(number, unit),
        Err(text) => date(text).map(When::At),
    }
}

/// Reads a time of expiry. Returns `None` if it is not known: a number of 0 or less, or a time before 1980.
pub(super) fn moment(value: &Json, unit: LifetimeUnit) -> Option<When> {
    match number(value)? {
        Ok(number) if number < EARLIEST.as_secs_f64() => lasting(number, unit),
        Ok(number) => Some(since_1970(number)),
        Err(text) => date(text).map(When::At),
    }
}

/// Returns whether a value is a number or a time, also one that counts as unknown.
pub(super) fn is_readable(value: &Json) -> bool {
    number(value)
        .is_some_and(|number| number.map_or_else(|text| since_1970_of(text).is_some(), |_| true))
}

/// Reads seconds since 1970, or thousandths, millionths or billionths of them.
fn since_1970(number: f64) -> When {
    // In seconds this is the year 5138, in milliseconds 1973.
    const NOT_SECONDS: f64 = 1e11;

    let mut seconds = number;
    for _ in 0..3 {
        if seconds >= NOT_SECONDS {
            seconds /= 1000.0;
        }
    }
    When::At(Duration::try_from_secs_f64(seconds).map_or(LATEST, |at| at.min(LATEST)))
}

fn lasting(number: f64, unit: LifetimeUnit) -> Option<When> {
    let seconds = match unit {
        LifetimeUnit::Seconds => number,
        LifetimeUnit::Milliseconds => number / 1000.0,
        LifetimeUnit::Minutes => number * 60.0,
    };
    let lifetime = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
    (number > 0.0).then_some(When::In(lifetime))
}

/// Returns a number, or as an error the text that is not a number.
fn number(value: &Json) -> Option<Result<f64, &str>> {
    let text = value.as_str().or_else(|| value.as_number())?.trim();
    // `parse` alone would accept `inf` and `NaN`.
    let is_number =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    Some(text.parse().ok().filter(|_| is_number).ok_or(text))
}

/// Reads ISO 8601, in UTC unless it has an offset, and the dates of HTTP (RFC 9110 §5.6.7).
fn date(text: &str) -> Option<Duration> {
    since_1970_of(text).filter(|at| *at >= EARLIEST)
}

fn since_1970_of(text: &str) -> Option<Duration> {
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

/// Cuts the fraction of a second to nanoseconds, the limit of the parser.
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
    use super::LifetimeUnit::{Milliseconds, Minutes, Seconds};
    use super::*;
    use crate::oauth2::lenient;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn json(value: &str) -> Json {
        let object = lenient::parse_where(format!(r#"{{"v":{value}}}"#).as_bytes(), |_| 0);
        let Some(Json::Object(mut members)) = object else { panic!("{value}") };
        members.remove(0).1
    }

    #[test]
    fn lifetime_is_a_number_in_any_usual_notation() {
        for (value, expected) in [
            ("3600", Some(seconds(3600))),
            ("\"3600\"", Some(seconds(3600))),
            ("3599.5", Some(Duration::from_millis(3_599_500))),
            ("\"3600.0\"", Some(seconds(3600))),
            ("0042", Some(seconds(42))),
            ("+1", Some(seconds(1))),
            (".5", Some(Duration::from_millis(500))),
            ("1.", Some(seconds(1))),
            ("18446744073709551615", Some(LONGEST)),
            ("\"1e400\"", Some(LONGEST)),
            ("1e400", Some(LONGEST)),
            ("99999999999", Some(LONGEST)),
            ("null", None),
            ("\"\"", None),
            ("\"inf\"", None),
            ("\"NaN\"", None),
            ("Infinity", None),
            ("\"soon\"", None),
            ("true", None),
            ("[3600]", None),
        ] {
            assert_eq!(lifetime(&json(value), Seconds), expected.map(When::In), "{value}");
        }
    }

    /// Faults A40, A41.
    #[test]
    fn zero_negative_numbers_and_zero_times_are_unknown() {
        for value in [
            "0",
            "-0",
            "0.0",
            "\"0\"",
            "-1",
            "\"-5\"",
            "-62135596800",
            "-62135596800000",
            "\"-1e999\"",
            "\"0001-01-01T00:00:00Z\"",
            "\"0001-01-01T00:00:00\"",
            "\"0001-01-01T00:00:00.0000000+00:00\"",
            "\"0001-01-01 00:00:00 +0000 UTC\"",
            "\"0000-00-00 00:00:00\"",
            "\"1899-12-30T00:00:00Z\"",
            "\"1970-01-01T00:00:00.000+0000\"",
            "\"1979-12-31T23:59:59Z\"",
            "\"Thu, 01 Jan 1970 00:00:00 GMT\"",
        ] {
            for unit in [Seconds, Milliseconds, Minutes] {
                assert_eq!(lifetime(&json(value), unit), None, "{value}");
                assert_eq!(moment(&json(value), unit), None, "{value}");
            }
        }
    }

    /// Fault N7.
    #[test]
    fn lifetime_may_be_in_milliseconds() {
        assert_eq!(lifetime(&json("900000"), Milliseconds), Some(When::In(seconds(900))));
        assert_eq!(
            lifetime(&json("\"1\""), Milliseconds),
            Some(When::In(Duration::from_millis(1)))
        );
        assert_eq!(moment(&json("900000"), Milliseconds), Some(When::In(seconds(900))));
        let at = When::At(seconds(1_667_310_223));
        assert_eq!(moment(&json("1667310223000"), Milliseconds), Some(at));
    }

    #[test]
    fn lifetime_in_minutes_is_read_and_a_time_is_unaffected() {
        for (value, expected) in
            [("15", seconds(900)), ("\"0.5\"", seconds(30)), ("1e400", LONGEST)]
        {
            assert_eq!(lifetime(&json(value), Minutes), Some(When::In(expected)), "{value}");
        }
        let at = When::At(seconds(1_667_310_223));
        assert_eq!(moment(&json("1667310223"), Minutes), Some(at));
        assert_eq!(moment(&json("15"), Minutes), Some(When::In(seconds(900))));
    }

    #[test]
    fn times_are_read_in_every_usual_format() {
        let at = When::At(seconds(1_667_310_223));
        for (value, expected) in [
            ("1667310223", at),
            ("\"1667310223\"", at),
            ("1667310223000", at),
            ("1667310223000000", at),
            ("\"2022-11-01T13:43:43Z\"", at),
            ("\"2022-11-01T13:43:43.Z\"", at),
            ("\"2022-11-01T13:43:43.0Z\"", at),
            ("\"2022-11-01T15:43:43.000000000000+02:00\"", at),
            ("\"2022-11-01T13:43:43.000+0000\"", at),
            ("\"2022-11-01 13:43:43Z\"", at),
            ("\"2022-11-01T13:43:43\"", at),
            ("\"Tue, 01 Nov 2022 13:43:43 GMT\"", at),
            (
                "\"2022-11-01T13:43:43.7826152Z\"",
                When::At(Duration::new(1_667_310_223, 782_615_200)),
            ),
            (
                "\"2022-11-01T13:43:43.78261521234567Z\"",
                When::At(Duration::new(1_667_310_223, 782_615_212)),
            ),
            ("3600", When::In(seconds(3600))),
            ("\"1e400\"", When::At(LATEST)),
        ] {
            assert_eq!(moment(&json(value), Seconds), Some(expected), "{value}");
        }
        assert_eq!(moment(&json("\"tomorrow\""), Seconds), None);
    }
}
