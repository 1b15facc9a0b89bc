//! The metrics that exist: names and units follow the semantic conventions of OpenTelemetry. `docs/metrics.md` documents them.

use ::metrics::{Unit, with_recorder};

/// A metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    kind: Kind,
    unit: Unit,
    about: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    const fn counter(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: Unit::Count, about }
    }

    const fn gauge(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Unit::Count, about }
    }

    /// A point in time, in seconds since 1970.
    const fn time(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit: Unit::Seconds, about }
    }

    const fn duration(name: &'static str, about: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit: Unit::Seconds, about }
    }
}

/// Describes all metrics to the current recorder.
pub(super) fn describe() {
    with_recorder(|recorder| {
        for Metric { name, kind, unit, about } in ALL {
            let (name, unit, about) = ((*name).into(), Some(*unit), (*about).into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, unit, about),
                Kind::Gauge => recorder.describe_gauge(name, unit, about),
                Kind::Histogram => recorder.describe_histogram(name, unit, about),
            }
        }
    });
}

macro_rules! metrics {
    ($($constant:ident = $new:ident($name:literal, $about:literal);)*) => {
        $(pub(super) const $constant: Metric = Metric::$new($name, $about);)*
        const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS = counter("tower_refresh.requests", "Attempts to send a request, by the verdict of the response on the token");
    RETRIES = counter("tower_refresh.retries", "Second attempts after a rejection, by the verdict of the response");
    WAITERS = gauge("tower_refresh.waiters", "Requests and calls that wait for a token");
    WAIT = duration("tower_refresh.wait.duration", "Time that requests and calls waited for a token");
    REFRESHES = counter("tower_refresh.refreshes", "Refreshes that ended, or were given up as lost");
    REFRESH = duration("tower_refresh.refresh.duration", "Time that refreshes took, with the wait for a lock or a place in a pool");
    IN_FLIGHT = gauge("tower_refresh.active_refreshes", "Refreshes in flight");
    EXPIRY = time("tower_refresh.token.expiry", "Unix time when the token expires, +Inf if it has no known expiry");
    BACKOFF = gauge("tower_refresh.backoff", "Credentials whose last refresh failed, by the kind of the error");
    REJECTION_BACKOFF = gauge("tower_refresh.rejection_backoff", "Credentials with a target that rejected the token right after a refresh, and has accepted none since");
    UNSAVED = gauge("tower_refresh.unsaved", "Credentials whose token set could not be saved in their store");
    STORE_OPERATIONS = counter("tower_refresh.store.operations", "Operations of stores");
    STORE_OPERATION = duration("tower_refresh.store.operation.duration", "Time that operations of stores took");
    POOL_SIZE = gauge("tower_refresh.pool.size", "Keys of a pool that have credentials");
    EVICTIONS = counter("tower_refresh.pool.evictions", "Credentials that a pool evicted");
    PLACES = gauge("tower_refresh.pool.places.usage", "Refreshes of a pool that occupy a place");
    PLACES_LIMIT = gauge("tower_refresh.pool.places.limit", "Refreshes of a pool that may be in flight at once");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_in_the_docs_lists_exactly_the_metrics() {
        let docs = include_str!("../docs/metrics.md");
        let rows: Vec<_> =
            docs.lines().filter(|line| line.starts_with("| `tower_refresh.")).collect();
        assert_eq!(rows.len(), ALL.len());
        for (row, Metric { name, kind, unit, .. }) in rows.into_iter().zip(ALL) {
            let kind = format!("{kind:?}").to_lowercase();
            assert!(row.starts_with(&format!("| `{name}` | {kind} |")), "{name}: {row}");
            // The facade has no units of countable things.
            let is_documented = match unit {
                Unit::Count => row.contains("| `{"),
                unit => row.contains(&format!("| `{}` |", unit.as_canonical_label())),
            };
            assert!(is_documented, "{unit:?}: {row}");
        }
    }
}
