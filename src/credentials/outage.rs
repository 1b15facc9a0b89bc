//! The outage of a token endpoint, which the credentials of a pool notice together.

use std::cmp::{max, min};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::backoff::{OUTAGE_PAUSE, RETRY_AFTER_MAX};
use super::jitter::Dice;
use super::policy::Backoff;
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::lock::Lock;
use crate::token::TokenSet;

/// The health of a token endpoint.
///
/// During an outage nothing is sent until a pause is over. Then one refresh is the *probe*, and the others go on waiting until it has
/// ended. An answer of the endpoint to any member ends the outage.
#[derive(Debug)]
pub(crate) struct Endpoint {
    origin: String,
    health: Lock<Health>,
}

#[derive(Debug)]
struct Health {
    /// The members whose last request failed, without an answer of the endpoint since. Each is there once.
    failed: Vec<MemberId>,
    outage: Option<Outage>,
    dice: Dice,
}

#[derive(Debug)]
struct Outage {
    error: TokenError,
    /// The number of probes that failed.
    probes: u32,
    /// The end of the pause.
    until: Deadline,
    /// The member that probes, and until when the others wait for it.
    probe: Option<(MemberId, Deadline)>,
}

/// Identifies credentials within a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId(pub(super) u64);

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

    /// Allows a member to send a token request.
    ///
    /// # Errors
    ///
    /// The error of the outage. Its `retry_after` is the time until the next probe.
    pub(super) fn admit(
        self: &Arc<Self>,
        now: Timestamp,
        member: MemberId,
        timeout: Duration,
    ) -> Result<Admitted, TokenError> {
        let mut health = self.health.lock();
        if let Some(outage) = &mut health.outage {
            let next = match &outage.probe {
                Some((_, patience)) if !patience.has_come(now) => Some(PAUSE.first),
                _ => outage.until.left(now).filter(|left| !left.is_zero()),
            };
            if let Some(next) = next {
                return Err(refusal(&self.origin, &outage.error, next));
            }
            outage.probe = Some((member, Deadline::monotonic(now, timeout)));
        }
        Ok(Admitted { endpoint: Arc::clone(self), member })
    }

    /// Takes in the result of a token request. Returns whether an outage has begun or ended.
    pub(super) fn report(
        &self,
        now: Timestamp,
        member: MemberId,
        result: &Result<TokenSet, TokenError>,
    ) -> Option<Change> {
        let mut health = self.health.lock();
        let Health { failed, outage, dice } = &mut *health;
        let error = match result {
            Err(error) if error.is_transient() || error.is_ambiguous() => error,
            // Without a code it may be an error of the source itself, and not an answer of the endpoint.
            Err(error) if error.code().is_none() => return None,
            _ => {
                failed.clear();
                return outage.take().map(|_| Change::Ended);
            }
        };
        let asked_for = error.retry_after().map(|after| min(after, RETRY_AFTER_MAX));
        let mut pause = |failures| {
            // Between half and all of it, so that a fleet does not probe at once.
            let pause = PAUSE.after(failures).mul_f64(0.5 + dice.roll() / 2.0);
            Deadline::monotonic(now, max(pause, asked_for.unwrap_or_default()))
        };
        match outage {
            Some(outage) => {
                if outage.probe.take_if(|(probe, _)| *probe == member).is_some() {
                    outage.probes = outage.probes.saturating_add(1);
                    outage.until = pause(outage.probes.saturating_add(1));
                    outage.error = error.clone();
                } else if let Some(asked_for) = asked_for {
                    // One that was sent before the outage was noticed.
                    let asked_for = Deadline::monotonic(now, asked_for);
                    outage.until = outage.until.or_later(asked_for);
                }
                None
            }
            None => {
                if !failed.contains(&member) {
                    failed.push(member);
                }
                if failed.len() < MANY && asked_for.is_none() {
                    return None;
                }
                failed.clear();
                let until = pause(1);
                *outage = Some(Outage { error: error.clone(), probes: 0, until, probe: None });
                Some(Change::Began(error.clone()))
            }
        }
    }

    /// Returns the error of the outage and the time until the next probe.
    pub(crate) fn outage(&self, now: Timestamp) -> Option<(TokenError, Duration)> {
        let health = self.health.lock();
        let outage = health.outage.as_ref()?;
        Some((outage.error.clone(), outage.until.left(now).unwrap_or_default()))
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

fn refusal(origin: &str, error: &TokenError, next: Duration) -> TokenError {
    let message = format!(
        "{origin} fails for several credentials, and is asked by one of them at a time: {}",
        error.get_ref()
    );
    TokenError::unsent(message).with_retry_after(next).of_outage()
}

/// The permission to send a token request. Dropping it allows the next probe, if it was one.
#[derive(Debug)]
pub(super) struct Admitted {
    endpoint: Arc<Endpoint>,
    member: MemberId,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(outage) = &mut self.endpoint.health.lock().outage {
            outage.probe.take_if(|(probe, _)| *probe == self.member);
        }
    }
}

/// The number of credentials that must fail, one after another, before it is an outage: one may fail by itself.
const MANY: usize = 3;

/// The pauses between two probes.
const PAUSE: Backoff = Backoff { first: Duration::from_secs(1), max: OUTAGE_PAUSE };
