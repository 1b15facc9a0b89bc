//! Times as numbers of seconds, for serde.

use std::time::{Duration, SystemTime};

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

/// Serializes a `Duration` or an `Option<Duration>`, so that it can be deserialized.
pub(super) fn serialize<S: Serializer>(
    duration: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (*duration).into().as_ref().map(Duration::as_secs_f64).serialize(serializer)
}

/// Serializes the time left in whole milliseconds: shorter than microseconds, and without the digits of their binary fraction.
pub(crate) fn left<S: Serializer>(
    left: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let seconds = |left: Duration| left.as_millis() as f64 / 1000.0;
    (*left).into().map(seconds).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    duration(f64::deserialize(deserializer)?)
}

pub(super) fn deserialize_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    Option::<f64>::deserialize(deserializer)?.map(duration).transpose()
}

/// Returns the longest duration for a number that is too large, as the one of `Duration::MAX` is.
fn duration<E: de::Error>(seconds: f64) -> Result<Duration, E> {
    match Duration::try_from_secs_f64(seconds) {
        Err(_) if seconds > 0.0 => Ok(Duration::MAX),
        duration => duration.map_err(E::custom),
    }
}

/// Serializes a time of day as whole seconds since 1970.
pub(super) fn since_epoch<S: Serializer>(
    at: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(|at| crate::clock::since_epoch(at).as_secs()).serialize(serializer)
}
