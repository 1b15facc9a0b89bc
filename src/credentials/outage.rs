//! The outage of a token endpoint, which the credentials of a pool notice together.

use std::cmp::{max, min};
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::{OUTAGE_PAUSE, RETRY_AFTER_MAX};
use super::jitter::Dice;
use super::policy::Backoff;
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::lock::Lock;
use crate::source::FetchedFor;
use crate::token::TokenSet;

/// The health of a token endpoint.
///
/// During an outage nothing is sent until a pause is over. Then one refresh is the *probe*. Until it has ended, the others are refused
/// with the error of the outage. An answer of the endpoint to any member ends the outage.
#[derive(Debug)]
pub(crate) struct Endpoint {
    origin: String,
    /// An error is neither shown nor dropped under the lock: it may have code of the source that made it.
    health: Lock<Health>,
}

#[derive(Debug)]
struct Health {
    /// The names of the members whose last request failed, without an answer of the endpoint since. Each is there once, also if the
    /// credentials were evicted and made anew.
    failed: Vec<Arc<str>>,
    outage: Option<Outage>,
    dice: Dice,
}

#[derive(Debug)]
struct Outage {
    error: TokenError,
    /// The number of probes that failed.
    probes: u32,
    pause: Pause,
    /// The credentials that probe, and for how long the others are refused meanwhile.
    probe: Option<(u64, Pause)>,
}

/// A time during which nothing is sent.
#[derive(Debug)]
struct Pause {
    length: Duration,
    until: Deadline,
}

impl Pause {
    fn new(now: Timestamp, length: Duration) -> Self {
        Self { length, until: Deadline::monotonic(now, length) }
    }

    /// Returns the time left, or `None` if it is over.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until.left(now).filter(|left| !left.is_zero())?;
        // A monotonic clock that went back would extend it by as much.
        (left <= self.length.saturating_mul(2)).then_some(left)
    }
}

/// The change that the result of a token request has made.
#[derive(Debug)]
pub(super) enum Change {
    Began(TokenError),
    Ended,
}

impl Endpoint {
    pub(super) fn new(origin: String) -> Self {
        let dice = Dice::new(RandomState::new().hash_one(&origin));
        let health = Health { failed: Vec::new(), outage: None, dice };
        Self { origin, health: Lock::new(health) }
    }

    /// Allows the credentials with this id to send a token request. With `at_once` it need not wait for the end of a pause.
    ///
    /// # Errors
    ///
    /// The error of the outage. Its `retry_after` is the time until the next probe.
    pub(super) fn admit(
        self: &Arc<Self>,
        now: Timestamp,
        id: u64,
        timeout: Duration,
        at_once: bool,
    ) -> Result<Admitted, TokenError> {
        let mut health = self.health.lock();
        if let Some(outage) = &mut health.outage {
            // Otherwise the probe could not send its own request.
            let is_for_probe = |(probe, _): &(u64, _)| FetchedFor::current_includes(*probe);
            if !outage.probe.as_ref().is_some_and(is_for_probe) {
                if let Some(refused) = outage.refuses(now, at_once) {
                    drop(health);
                    return Err(refused.into_error(&self.origin));
                }
                outage.probe = Some((id, Pause::new(now, min(timeout, PATIENCE))));
            }
        }
        Ok(Admitted { endpoint: Arc::clone(self), id })
    }

    /// Returns the error of [`admit`](Self::admit), and makes no probe.
    pub(super) fn refuses(&self, now: Timestamp, at_once: bool) -> Result<(), TokenError> {
        let refuses = |outage: &Outage| outage.refuses(now, at_once);
        let refused = self.health.lock().outage.as_ref().and_then(refuses);
        refused.map_or(Ok(()), |refused| Err(refused.into_error(&self.origin)))
    }

    /// Records the result of a token request. Returns whether an outage has begun or ended.
    pub(super) fn report(
        &self,
        now: Timestamp,
        id: u64,
        name: &Arc<str>,
        result: &Result<TokenSet, TokenError>,
    ) -> Option<Change> {
        // Dropped after the lock is released, as the last of an ended outage.
        let _replaced: TokenError;
        let mut health = self.health.lock();
        let Health { failed, outage, dice } = &mut *health;
        let error = match result {
            // This endpoint was not asked, or it is another one that has failed.
            Err(error) if error.is_of_outage() || error.is_of_other_source() => return None,
            Err(error) if error.is_transient() || error.is_ambiguous() => error,
            // Without a code it may be an error of the source itself, and not an answer of the endpoint.
            Err(error) if error.code().is_none() => return None,
            _ => {
                failed.clear();
                let ended = outage.take();
                drop(health);
                return ended.map(|_| Change::Ended);
            }
        };
        let asked_for = error.retry_after().map(|after| min(after, RETRY_AFTER_MAX));
        let mut pause = |failures| {
            // Between half and all of it, so that a fleet does not probe at once.
            let pause = PAUSE.after(failures).mul_f64(0.5 + dice.roll() / 2.0);
            Pause::new(now, max(pause, asked_for.unwrap_or_default()))
        };
        match outage {
            Some(outage) => {
                if outage.probe.take_if(|(probe, _)| *probe == id).is_some() {
                    outage.probes = outage.probes.saturating_add(1);
                    outage.pause = pause(outage.probes.saturating_add(1));
                    _replaced = mem::replace(&mut outage.error, error.clone());
                } else if let Some(asked_for) = asked_for
                    && outage.pause.left(now) < Some(asked_for)
                {
                    // This request was sent before the outage was noticed.
                    outage.pause = Pause::new(now, asked_for);
                }
                None
            }
            None => {
                if !failed.contains(name) {
                    failed.push(Arc::clone(name));
                }
                if failed.len() < MANY && asked_for.is_none() {
                    return None;
                }
                failed.clear();
                let pause = pause(1);
                *outage = Some(Outage { error: error.clone(), probes: 0, pause, probe: None });
                Some(Change::Began(error.clone()))
            }
        }
    }

    /// Returns the error of the outage and the time until the next probe.
    pub(crate) fn outage(&self, now: Timestamp) -> Option<(TokenError, Duration)> {
        let health = self.health.lock();
        let outage = health.outage.as_ref()?;
        Some((outage.error.clone(), outage.pause.left(now).unwrap_or_default()))
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

impl Outage {
    /// Returns the refusal of a request, or `None` if it may be sent now.
    fn refuses(&self, now: Timestamp, at_once: bool) -> Option<Refusal> {
        let is_probed =
            self.probe.as_ref().is_some_and(|(_, patience)| patience.left(now).is_some());
        let next = match is_probed {
            true => Some(PAUSE.first),
            false => self.pause.left(now).filter(|_| !at_once),
        };
        next.map(|next| Refusal { error: self.error.clone(), next })
    }
}

/// The refusal of a request during an outage.
struct Refusal {
    error: TokenError,
    /// The time until a request may be sent.
    next: Duration,
}

impl Refusal {
    fn into_error(self, origin: &str) -> TokenError {
        let message = format!(
            "{origin} fails for several credentials or has asked for a pause, and is asked for one of them at a time: {}",
            self.error.get_ref()
        );
        TokenError::unsent(message).with_retry_after(self.next).of_outage()
    }
}

/// The permission to send a token request. Dropping it allows the next probe, if it was one.
#[derive(Debug)]
pub(super) struct Admitted {
    endpoint: Arc<Endpoint>,
    id: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(outage) = &mut self.endpoint.health.lock().outage {
            outage.probe.take_if(|(probe, _)| *probe == self.id);
        }
    }
}

/// The number of credentials whose failures, without an answer in between, are an outage: a single one may fail for its own reasons.
const MANY: usize = 3;

/// The longest time for which a probe keeps the others from sending.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between two probes.
const PAUSE: Backoff = Backoff { first: Duration::from_secs(1), max: OUTAGE_PAUSE };

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;
    use std::sync::{Weak, mpsc};
    use std::thread;
    use std::time::SystemTime;

    use super::*;

    /// An error that looks at the endpoint when it is shown and when it is dropped.
    #[derive(Debug)]
    struct Curious(Weak<Endpoint>);

    impl Curious {
        fn look(&self) {
            self.0.upgrade().map(|endpoint| endpoint.outage(at(0)));
        }
    }

    impl fmt::Display for Curious {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.look();
            f.write_str("503")
        }
    }

    impl Error for Curious {}

    impl Drop for Curious {
        fn drop(&mut self) {
            self.look();
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn probe_at_once_ends_the_pause_and_waits_for_no_other() {
        let endpoint = Arc::new(Endpoint::new("https://auth.test".into()));
        let error = TokenError::transient("busy").with_retry_after(Duration::from_secs(60));
        endpoint.report(at(0), 1, &"1".into(), &Err(error));
        let admit = |id, at_once| endpoint.admit(at(1), id, Duration::from_secs(30), at_once);
        assert!(admit(2, false).is_err());
        let probe = admit(2, true).unwrap();
        // One at a time.
        assert!(admit(3, true).is_err());
        drop(probe);
        assert!(admit(3, true).is_ok());
    }

    #[test]
    fn error_that_looks_at_its_endpoint_does_not_hang() {
        let (done, is_done) = mpsc::channel();
        drop(thread::spawn(move || {
            let endpoint = Arc::new(Endpoint::new("https://auth.test".into()));
            let timeout = Duration::from_secs(30);
            let fail = |seconds, id: u64| {
                let error = TokenError::transient(Curious(Arc::downgrade(&endpoint)));
                endpoint.report(at(seconds), id, &id.to_string().into(), &Err(error))
            };
            assert!(fail(0, 1).is_none() && fail(0, 2).is_none());
            assert!(matches!(fail(0, 3), Some(Change::Began(_))));
            assert!(endpoint.refuses(at(0), false).is_err());
            assert!(endpoint.admit(at(0), 4, timeout, false).is_err());
            // The probe fails, and then the next one succeeds.
            let probe = endpoint.admit(at(10), 4, timeout, false).unwrap();
            assert!(fail(10, 4).is_none());
            drop(probe);
            let success = TokenSet::bearer("t");
            let ended = endpoint.report(at(20), 5, &"5".into(), &success);
            assert!(matches!(ended, Some(Change::Ended)));
            done.send(())
        }));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(()));
    }
}
