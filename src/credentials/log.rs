//! The log lines of the credentials. Each change is logged once at its level, and at DEBUG while it lasts.
//!
//! A failure is a change if no refresh has failed with this kind and code since the last one that succeeded. A program that
//! works logs one line at DEBUG for each refresh.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::event::Event;
use super::flight::Flown;
use super::generation::Generation;
use crate::classify::Rejection;
use crate::error::{TokenError, TokenErrorKind};
use crate::grant::Keeper;
use crate::trace::{self, ms, target};

/// The troubles that were logged, so that each is logged once.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Made for the first trouble, and dropped when it is over.
    troubles: ArcSwapOption<Troubles>,
}

/// The credentials that lines are about.
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) keeper: &'a Keeper,
    /// True if they belong to a pool. Then a user who must log in is not the operator's concern.
    pub(super) is_member: bool,
}

/// The occasion of events.
#[derive(Clone, Copy)]
pub(super) enum Occasion<'a> {
    Rejection(&'a Rejection),
    Landing(&'a Flown),
    Other,
}

impl Log {
    /// Logs events of one decision. Not to be called under the lock of the state.
    pub(super) fn write(&self, subject: &Subject<'_>, events: &[Event], occasion: Occasion<'_>) {
        let mut is_found = false;
        for event in events {
            is_found |= matches!(event, Event::FoundInStore);
            self.write_event(subject, event, occasion, is_found);
        }
        let has = |is_it: fn(&Event) -> bool| events.iter().any(is_it);
        let is_refreshed = has(|event| matches!(event, Event::Refreshed { .. }));
        if is_refreshed && !has(|event| matches!(event, Event::Unsaved { .. })) {
            // The set that was unsaved is of no more use.
            self.is_over(|trouble| *trouble == Trouble::Unsaved);
        }
    }

    fn write_event(
        &self,
        subject: &Subject<'_>,
        event: &Event,
        occasion: Occasion<'_>,
        is_found: bool,
    ) {
        let credentials = subject.name;
        match event {
            // The line of `Refreshed` follows.
            Event::FoundInStore => {}
            Event::RefreshStarted { cause } => trace::detail!(
                target: target::REFRESH,
                credentials,
                cause = cause.as_str(),
                "refresh started"
            ),
            Event::Refreshed { generation, usable_for } => {
                self.refreshed(credentials, *generation, *usable_for, occasion, is_found);
            }
            Event::RefreshFailed { error, retry_in, usable_for } => {
                self.failed(subject, error, *retry_in, *usable_for, occasion);
            }
            Event::RefreshLost => {
                let is_news = self.is_news(Trouble::Lost);
                trace::change!(
                    is_news, warning,
                    target: target::REFRESH,
                    credentials,
                    endpoint = subject.endpoint(),
                    "refresh counts as lost: it did not end within ten timeouts, and another one may start; give the source a time limit of its own"
                );
            }
            Event::RefreshSuperseded => trace::debug!(
                target: target::REFRESH,
                credentials,
                "result of a refresh not used: a log-in, a log-out or a newer refresh came first"
            ),
            Event::ExpiredOnArrival { reason } => trace::warning!(
                target: target::REFRESH,
                credentials,
                endpoint = subject.endpoint(),
                reason,
                "token had expired when it arrived, and is used until a server rejects it"
            ),
            Event::RejectionBackoffStarted { duration, origin, status, challenge_error } => {
                let (origin, challenge_error) = (origin.as_deref(), challenge_error.as_deref());
                let status = status.map(|status| status.as_u16());
                let trouble = Trouble::Rejected(
                    origin.map(Into::into),
                    status,
                    challenge_error.map(Into::into),
                );
                trace::change!(
                    self.is_news(trouble), warning,
                    target: target::REJECTION,
                    credentials,
                    origin,
                    status,
                    challenge.error = challenge_error,
                    backoff_ms = ms(*duration),
                    "token rejected again right after a refresh: check its audience, scope and issuer; rejections by this target start no refresh meanwhile"
                );
            }
            Event::RejectionBackoffEnded => {
                if self.is_over(Trouble::is_rejection) {
                    trace::info!(
                        target: target::REJECTION,
                        credentials,
                        "token accepted by a target that had rejected it after a refresh"
                    );
                } else {
                    trace::debug!(target: target::REJECTION, credentials, "rejection backoff left");
                }
            }
            Event::LoggedIn { generation, .. } => {
                self.is_over(|_| true);
                trace::debug!(target: target::SESSION, credentials, generation, "logged in");
            }
            Event::LoggedOut => {
                self.is_over(|_| true);
                trace::debug!(target: target::SESSION, credentials, "logged out");
            }
            Event::Unsaved { error } => {
                let is_news = self.is_news(Trouble::Unsaved);
                trace::change!(
                    is_news, error,
                    target: target::STORE,
                    credentials,
                    store = subject.keeper.store_name(),
                    kind = error.kind().as_str(),
                    code = error.code(),
                    %error,
                    "token set not saved: it is lost if the program ends before the store works again; repair the store"
                );
            }
            Event::Saved => {
                if self.is_over(|trouble| *trouble == Trouble::Unsaved) {
                    trace::info!(
                        target: target::STORE,
                        credentials,
                        store = subject.keeper.store_name(),
                        "token set saved after all"
                    );
                } else {
                    trace::debug!(
                        target: target::STORE,
                        credentials,
                        store = subject.keeper.store_name(),
                        "log-in or log-out saved"
                    );
                }
            }
            Event::OutcomeUnknown { error } => trace::warning!(
                target: target::STORE,
                credentials,
                store = subject.keeper.store_name(),
                kind = error.kind().as_str(),
                %error,
                "the store has a refresh token whose last use has an unknown outcome: a process may have ended during a refresh; await `Credentials::flush` before a program ends"
            ),
            // Only the pool and the subscription send these.
            Event::OutageStarted { .. } | Event::OutageEnded { .. } | Event::Lagged { .. } => {}
        }
    }

    fn refreshed(
        &self,
        credentials: &str,
        generation: u64,
        usable_for: Option<Duration>,
        occasion: Occasion<'_>,
        is_found: bool,
    ) {
        let flown = occasion.flown();
        let cause = flown.map(|flown| flown.cause.as_str());
        let duration_ms = flown.map(|flown| ms(flown.duration));
        let waiters = flown.map(Flown::waiters);
        let usable_for_ms = usable_for.map(ms);
        if is_found {
            trace::debug!(
                target: target::REFRESH,
                credentials, generation, cause, duration_ms, waiters, usable_for_ms,
                "newer token found in the store"
            );
        } else {
            trace::debug!(
                target: target::REFRESH,
                credentials, generation, cause, duration_ms, waiters, usable_for_ms,
                "token refreshed"
            );
        }
        let failures = self.failures();
        let late = flown.and_then(|flown| flown.late);
        if self.is_over(|trouble| trouble.is_failure() || late.is_none() && trouble.is_delay()) {
            trace::info!(
                target: target::REFRESH,
                credentials, generation, failures,
                "refreshes work again"
            );
        }
        if let Some(timeout) = late {
            trace::change!(
                self.is_news(Trouble::Late), warning,
                target: target::REFRESH,
                credentials, generation, cause, duration_ms, waiters,
                timeout_ms = ms(timeout),
                "refresh took longer than requests wait for it: raise `RefreshPolicy::timeout`, or make the source or the store faster"
            );
        }
    }

    fn failed(
        &self,
        subject: &Subject<'_>,
        error: &TokenError,
        retry_in: Option<Duration>,
        usable_for: Option<Duration>,
        occasion: Occasion<'_>,
    ) {
        let credentials = subject.name;
        let endpoint = subject.endpoint();
        let endpoint = endpoint.as_deref();
        let cause = occasion.flown().map(|flown| flown.cause.as_str());
        let (kind, code) = (error.kind().as_str(), error.code());
        let (retry_in_ms, usable_for_ms) = (retry_in.map(ms), usable_for.map(ms));
        if error.is_of_outage() {
            // The outage has been logged once.
            trace::debug!(
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, %error,
                "refresh not sent during an outage of the token endpoint"
            );
            return;
        }
        if let Some(held_back) = error.held_back_for() {
            trace::change!(
                self.is_news(Trouble::HeldBack), warning,
                target: target::REFRESH,
                credentials, cause, endpoint, kind,
                retry_in_ms = ms(held_back),
                usable_for_ms,
                %error,
                "outcome of a refresh unknown again: requests fail without a working access token until the refresh token may be sent again, or a log-in"
            );
            return;
        }
        let is_news = self.is_news(Trouble::Failed(error.kind(), code.map(Into::into)));
        match error.kind() {
            TokenErrorKind::Transient => trace::change!(
                is_news, warning,
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, usable_for_ms, %error,
                "refresh failed, and is tried again after the backoff"
            ),
            TokenErrorKind::Ambiguous => trace::change!(
                is_news, warning,
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, usable_for_ms, %error,
                "outcome of a refresh unknown: the refresh token may be spent, and is not sent again while the access token works"
            ),
            TokenErrorKind::Misconfigured => trace::change!(
                is_news, error,
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, usable_for_ms, %error,
                "refresh failed because of the configuration: correct it as the field `error` states"
            ),
            TokenErrorKind::Denied if subject.is_member => trace::change!(
                is_news, warning,
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, usable_for_ms, %error,
                "refresh of a user denied: the user must log in again"
            ),
            TokenErrorKind::Denied => trace::change!(
                is_news, error,
                target: target::REFRESH,
                credentials, cause, endpoint, kind, code, retry_in_ms, usable_for_ms, %error,
                "refresh denied: log in again, or replace the configured refresh token or secret"
            ),
        }
    }

    /// Logs that a request stops waiting for a token.
    pub(super) fn timed_out(&self, subject: &Subject<'_>, timeout: Duration) {
        let is_news = self.is_news(Trouble::TimedOut);
        trace::change!(
            is_news, warning,
            target: target::REFRESH,
            credentials = subject.name,
            endpoint = subject.endpoint(),
            timeout_ms = ms(timeout),
            "request failed because no token arrived in time: the refresh goes on; the source or the store is slow or does not answer"
        );
    }

    // ===== changes =====

    /// Returns whether a trouble was not logged yet.
    fn is_news(&self, trouble: Trouble) -> bool {
        let mut is_news = false;
        self.troubles.rcu(|troubles| {
            let mut next = troubles.as_deref().cloned().unwrap_or_default();
            next.failures = next.failures.saturating_add(u32::from(trouble.is_failure()));
            let alike = next.logged.iter().filter(|logged| logged.is_like(&trouble)).count();
            is_news = alike < MOST && !next.logged.contains(&trouble);
            if is_news {
                next.logged.push(trouble.clone());
            }
            Some(Arc::new(next))
        });
        is_news
    }

    /// Forgets the troubles that are over. Returns whether there were any.
    fn is_over(&self, is_over: impl Fn(&Trouble) -> bool) -> bool {
        if self.troubles.load().is_none() {
            return false;
        }
        let mut were_any = false;
        self.troubles.rcu(|troubles| {
            let mut next = troubles.as_deref().cloned().unwrap_or_default();
            let before = next.logged.len();
            next.logged.retain(|trouble| !is_over(trouble));
            were_any = next.logged.len() < before;
            if !next.logged.iter().any(Trouble::is_failure) {
                next.failures = 0;
            }
            (!next.logged.is_empty()).then(|| Arc::new(next))
        });
        were_any
    }

    /// Returns the number of refreshes that have failed since the last one that succeeded.
    pub(super) fn failures(&self) -> u32 {
        self.troubles.load().as_ref().map_or(0, |troubles| troubles.failures)
    }
}

/// Logs one rejection.
pub(super) fn rejected(credentials: &str, generation: Generation, rejection: &Rejection) {
    trace::debug!(
        target: target::REJECTION,
        credentials,
        generation = generation.0,
        origin = rejection.origin.as_deref(),
        status = rejection.status.map(|status| status.as_u16()),
        challenge.error = rejection.error(),
        "token rejected"
    );
}

/// Logs one response whose challenge asks for more than the token grants.
pub(super) fn insufficient(credentials: &str, generation: Generation, rejection: &Rejection) {
    trace::debug!(
        target: target::REJECTION,
        credentials,
        generation = generation.0,
        origin = rejection.origin.as_deref(),
        status = rejection.status.map(|status| status.as_u16()),
        challenge.error = rejection.error(),
        "token accepted, and the challenge asks for more: a refresh does not help"
    );
}

impl Subject<'_> {
    /// Returns the origin of the token endpoint. A source is code of others.
    fn endpoint(&self) -> Option<String> {
        trace::guarded(|| self.keeper.token_endpoint()).flatten()
    }
}

impl<'a> Occasion<'a> {
    fn flown(self) -> Option<&'a Flown> {
        let Self::Landing(flown) = self else { return None };
        Some(flown)
    }
}

/// The troubles since they were last over.
#[derive(Clone, Debug, Default)]
struct Troubles {
    logged: Vec<Trouble>,
    /// The number of refreshes that failed in a row.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Failed(TokenErrorKind, Option<Box<str>>),
    /// Nothing may be sent for a while, because two outcomes are unknown.
    HeldBack,
    Lost,
    TimedOut,
    Late,
    Unsaved,
    Rejected(Option<Arc<str>>, Option<u16>, Option<Box<str>>),
}

impl Trouble {
    fn is_like(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(..) | Self::HeldBack | Self::Lost)
    }

    fn is_delay(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Late)
    }

    fn is_rejection(&self) -> bool {
        matches!(self, Self::Rejected(..))
    }
}

/// The number of troubles of one sort that are logged before they are over. A server may send another error code each time.
const MOST: usize = 16;
