use std::time::SystemTime;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::super::backoff::{LOOK_AGAIN, OUTAGE_PAUSE};
use super::super::flight::{Errand, FlightId, LOST_AFTER, Landed};
use super::super::policy::{LIFETIME_MAX, RefreshPolicy};
use super::*;
use crate::clock::SystemClock;
use crate::grant::{Keeper, Look, Notes, Obtained};
use crate::source::{StaticToken, TokenSource as _};
use crate::target::Target;

/// An event that changes the credentials.
#[derive(Clone, Debug)]
enum Step {
    Token,
    Rejected { age: u64, target: u32 },
    Accepted { age: u64, target: u32 },
    Retried { age: u64, target: u32, is_accepted: bool },
    Forced { age: u64, at_once: bool },
    Land { which: usize, result: Ending },
    Replace { lifetime: Option<u64> },
    Forget,
    Adopted { which: usize },
    Pass { milliseconds: u64 },
    UntilStale,
    Suspend { milliseconds: u64 },
    SetBack { milliseconds: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Tokens { lifetime: Option<u64>, is_of_other_login: bool },
    Transient,
    Ambiguous,
    Denied,
    Misconfigured,
}

fn step() -> impl Strategy<Value = Step> {
    let lifetime = || {
        proptest::option::of(prop_oneof![Just(0), 1..5000_u64, 5000..4_000_000_u64, Just(u64::MAX)])
    };
    let landing = prop_oneof![
        4 => (lifetime(), proptest::bool::weighted(0.1)).prop_map(
            |(lifetime, is_of_other_login)| Ending::Tokens { lifetime, is_of_other_login }
        ),
        1 => Just(Ending::Transient),
        1 => Just(Ending::Ambiguous),
        1 => Just(Ending::Denied),
        1 => Just(Ending::Misconfigured),
    ];
    let milliseconds = || prop_oneof![0..50_u64, 0..5000_u64, 0..400_000_u64];
    prop_oneof![
        6 => Just(Step::Token),
        3 => (0..3_u64, 0..3_u32).prop_map(|(age, target)| Step::Rejected { age, target }),
        2 => (0..2_u64, 0..3_u32).prop_map(|(age, target)| Step::Accepted { age, target }),
        2 => (0..2_u64, 0..3_u32, any::<bool>())
            .prop_map(|(age, target, is_accepted)| Step::Retried { age, target, is_accepted }),
        1 => (0..2_u64, any::<bool>()).prop_map(|(age, at_once)| Step::Forced { age, at_once }),
        6 => (0..4_usize, landing).prop_map(|(which, result)| Step::Land { which, result }),
        1 => lifetime().prop_map(|lifetime| Step::Replace { lifetime }),
        1 => Just(Step::Forget),
        2 => (0..4_usize).prop_map(|which| Step::Adopted { which }),
        4 => milliseconds().prop_map(|milliseconds| Step::Pass { milliseconds }),
        1 => Just(Step::UntilStale),
        1 => milliseconds().prop_map(|milliseconds| Step::Suspend { milliseconds }),
        1 => milliseconds().prop_map(|milliseconds| Step::SetBack { milliseconds }),
    ]
}

/// Drives a state through steps, and checks after each what must always hold.
struct Model {
    state: State,
    /// As the credentials have it, from the beginning.
    witness: Arc<Witness>,
    /// Numbers the token sets.
    keeper: Keeper,
    monotonic: Duration,
    wall: Duration,
    flying: Vec<(Departure, Timestamp)>,
    adopting: Vec<Adoption>,
    /// When on the monotonic clock each flight and each adoption was decided on.
    occupied: Vec<(FlightId, Duration)>,
    /// The result of each flight for its waiters.
    landings: Vec<(FlightId, super::Landing)>,
    newest: Generation,
    /// The generation whose last verdict is a rejection.
    rejected: Option<Generation>,
    newest_session: Session,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self::with_policy(&RefreshPolicy::default(), seed)
    }

    fn with_policy(policy: &RefreshPolicy, seed: u64) -> Self {
        // Half of the cases have a store.
        let setup = Setup {
            has_store: seed.is_multiple_of(2),
            has_fresh_proof: false,
            spends: !seed.is_multiple_of(5),
        };
        let state = State::new(Arc::clone(&policy.timing), seed, setup);
        Self {
            witness: state.witness(),
            state,
            keeper: Keeper::new(
                StaticToken::new("t".parse().unwrap()).boxed(),
                None,
                Arc::new(SystemClock),
            ),
            monotonic: Duration::from_secs(1000),
            wall: Duration::from_secs(1_700_000_000),
            flying: Vec::new(),
            adopting: Vec::new(),
            occupied: Vec::new(),
            landings: Vec::new(),
            newest: Generation(0),
            rejected: None,
            newest_session: Session::default(),
        }
    }

    fn flight_id(&self) -> Option<FlightId> {
        self.state.flight.as_ref().map(|flight| flight.id)
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.monotonic, SystemTime::UNIX_EPOCH + self.wall)
    }

    fn tokens(lifetime: Option<u64>) -> TokenSet {
        let tokens = TokenSet::bearer("t").unwrap();
        match lifetime {
            Some(lifetime) => tokens.with_expires_in(Duration::from_millis(lifetime)),
            None => tokens,
        }
    }

    fn decided(&mut self, decision: Decision, newer_than: Option<Generation>) {
        let now = self.now();
        match decision {
            Decision::Use(issued, None) => self.usable(&issued, newer_than),
            Decision::Use(issued, Some(departure)) => {
                self.usable(&issued, newer_than);
                let is_refresh = departure.errand == Errand::Refresh;
                assert!(!is_refresh || issued.is_stale(now), "refreshed before it was stale");
                self.departed(departure);
            }
            Decision::Wait(_, Some(departure)) => self.departed(departure),
            Decision::Wait(_, None) => {
                assert!(self.state.flight.is_some(), "there is no flight to wait for")
            }
            Decision::Refuse(_) => {
                assert!(
                    self.state.flight.is_none(),
                    "refused although there is something to wait for"
                );
            }
        }
    }

    fn usable(&self, issued: &Issued, newer_than: Option<Generation>) {
        // One that had expired on arrival is used until a server rejects it.
        let has_ended = issued.expired != Deadline::NEVER && issued.ends.has_come(self.now());
        assert!(!has_ended, "a token that has ended is used");
        assert!(
            self.state.has_failed() || !issued.is_expired(self.now()),
            "an expired token is used although no refresh has failed"
        );
        assert_eq!(issued.generation, self.newest, "an old token is used");
        assert!(
            newer_than.is_none_or(|old| issued.generation > old),
            "the rejected token is used again"
        );
    }

    fn departed(&mut self, departure: Departure) {
        assert_eq!(self.flight_id(), Some(departure.id));
        assert_eq!(departure.parent, self.newest);
        self.occupied.push((departure.id, self.monotonic));
        self.landings.push((departure.id, departure.landing.clone()));
        self.flying.push((departure, self.now()));
    }

    /// Returns what the ledger hands out.
    fn obtained(&self, tokens: TokenSet, asked: Timestamp) -> Obtained {
        let id = self.keeper.new_id();
        Obtained { id, tokens, asked, is_adopted: false, is_of_other_login: false }
    }

    /// Lands a flight with the result for its errand.
    fn land_at(
        &mut self,
        departure: &Departure,
        result: Result<Obtained, TokenError>,
    ) -> Option<Result<Arc<Issued>, TokenError>> {
        let landed = match (departure.errand, result) {
            (Errand::Refresh, result) => Landed::Refreshed(result),
            (Errand::Look, Ok(obtained)) => Landed::Looked(Look::Newer(obtained)),
            (Errand::Look, Err(_)) => Landed::Looked(Look::Nothing),
            (Errand::Save, result) => Landed::Saved(result.map(|_| true)),
        };
        self.state.land(self.now(), departure, landed, Notes::default())
    }

    fn log_in(&mut self, tokens: Option<TokenSet>) -> Adoption {
        let id = self.keeper.new_id();
        self.state.adopt(self.now(), id, tokens)
    }

    fn apply(&mut self, step: Step) {
        let now = self.now();
        let before = self.flight_id();
        match step {
            Step::Token => {
                let decision = self.state.token(now);
                if let Decision::Use(issued, None) = &decision
                    && issued.is_stale(now)
                {
                    let status = self.state.status(now);
                    let left_alone = status.backoff.is_some()
                        || status.error.is_some_and(|error| error.is_denied());
                    assert!(status.refreshing || left_alone, "a stale token is not refreshed");
                }
                if let Some((_, until)) = self.state.published(now)
                    && !until.has_come(now)
                {
                    assert!(
                        matches!(decision, Decision::Use(..)),
                        "what is published is not what is decided: {decision:?}"
                    );
                }
                if let Decision::Refuse(error) = &decision {
                    assert!(error.is_remembered());
                    let only_looks = self.state.setup.has_store && error.is_refusal();
                    let backoff = self.state.status(now).backoff;
                    assert!(only_looks || error.asked_again_in() == backoff);
                    let is_short = error.asked_again_in().is_some_and(|it| it <= OUTAGE_PAUSE);
                    assert!(is_short || !error.is_transient(), "an outage that does not end");
                }
                self.decided(decision, None);
            }
            Step::Rejected { age, target } => {
                let generation = Generation(self.newest.0.saturating_sub(age));
                let decision = self.state.rejected(now, generation, of(target));
                self.decided(decision, Some(generation));
                self.judged(generation, false);
            }
            Step::Accepted { age, target } => {
                let generation = Generation(self.newest.0.saturating_sub(age));
                if self.witness.accepted(generation, of(target)) {
                    self.state.accepted(now, generation, of(target));
                }
                self.judged(generation, true);
            }
            Step::Retried { age, target, is_accepted } => {
                let generation = Generation(self.newest.0.saturating_sub(age));
                if is_accepted {
                    self.witness.accepted(generation, of(target));
                    self.state.retry_accepted(now, of(target));
                } else {
                    self.state.retry_rejected(now, generation, of(target));
                }
                self.judged(generation, is_accepted);
            }
            Step::Forced { age, at_once: false } => {
                let generation = Generation(self.newest.0.saturating_sub(age));
                let decision = self.state.forced(now, generation);
                self.decided(decision, Some(generation));
            }
            Step::Forced { age, at_once: true } => {
                let generation = Generation(self.newest.0.saturating_sub(age));
                let decision = self.state.forced_at_once(now, generation);
                if let Decision::Refuse(error) = &decision {
                    let is_risky = error.is_ambiguous() && self.state.setup.spends;
                    let is_older = generation < self.newest;
                    assert!(is_risky || is_older, "a remembered error: {error}");
                }
                if let Decision::Wait(_, Some(departure)) = &decision
                    && departure.at_once
                {
                    let is_open = self.state.is_ambiguous() && self.state.setup.spends;
                    assert!(!is_open || departure.wish.may_risk, "sent again blindly");
                }
                self.decided(decision, Some(generation));
            }
            Step::Land { which, result } if which < self.flying.len() => {
                let (departure, asked) = self.flying.remove(which);
                let result = match result {
                    Ending::Tokens { lifetime, is_of_other_login } => Ok(Obtained {
                        is_of_other_login,
                        ..self.obtained(Self::tokens(lifetime), asked)
                    }),
                    Ending::Transient => Err(TokenError::transient("x")),
                    Ending::Ambiguous => Err(TokenError::ambiguous("x")),
                    Ending::Denied => Err(TokenError::denied("x")),
                    Ending::Misconfigured => Err(TokenError::misconfigured("x")),
                };
                let landed = self.land_at(&departure, result);
                match landed {
                    Some(Ok(issued)) => {
                        assert!(
                            departure.epoch == self.state.epoch,
                            "a flight from before a log-in was published"
                        );
                        assert!(issued.generation > self.newest);
                        assert!(!issued.is_expired(now), "over on arrival, and not used");
                        self.newest = issued.generation;
                    }
                    Some(Err(_)) => {
                        assert_eq!(departure.parent, self.newest);
                        assert_eq!(before, Some(departure.id));
                    }
                    None if departure.errand != Errand::Refresh => {
                        assert!(!self.state.wants(departure.id));
                    }
                    None => {
                        assert_eq!(self.flight_id(), before, "a late landing changed the flight")
                    }
                }
            }
            Step::Replace { lifetime } => {
                let waits = self.state.session_of_new_request(now);
                let adoption = self.log_in(Some(Self::tokens(lifetime)));
                self.adopted(adoption);
                assert!(self.state.current.is_some());
                // A request of the last user is not sent for the next one.
                let is_of_last = waits == self.newest_session;
                assert_eq!(self.state.session > waits, is_of_last);
            }
            Step::Forget => {
                let adoption = self.log_in(None);
                self.adopted(adoption);
                assert!(self.state.current.is_none());
            }
            Step::Adopted { which } if which < self.adopting.len() => {
                let adoption = self.adopting.remove(which);
                self.state.adopted(now, &adoption, true);
                assert_ne!(self.flight_id(), Some(adoption.id));
            }
            Step::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds)),
            Step::UntilStale => {
                let current = self.state.current.as_ref();
                let left = current.and_then(|current| current.stale.left(now));
                self.pass(left.unwrap_or_default());
            }
            Step::Suspend { milliseconds } => self.wall += Duration::from_millis(milliseconds),
            Step::SetBack { milliseconds } => self.wall -= Duration::from_millis(milliseconds),
            Step::Land { .. } | Step::Adopted { .. } => {}
        }
        let effects = self.state.take_effects();
        for (waiters, outcome) in effects.ended {
            let _ = outcome.map(|outcome| waiters.send(outcome));
        }
        let current = self.flight_id();
        self.landings.retain(|(id, landing)| {
            let is_pending = landing.clone().now_or_never().is_none();
            assert_eq!(
                is_pending,
                Some(*id) == current,
                "waiters exist exactly while a flight does"
            );
            is_pending
        });
        if effects.news.iter().any(|event| matches!(event, Event::RefreshLost)) {
            let (_, since) = self
                .occupied
                .iter()
                .find(|(id, _)| Some(*id) == before)
                .expect("what is lost was under way");
            let patience = self.state.timing().timeout * LOST_AFTER;
            assert!(self.monotonic - *since >= patience, "declared lost too early");
        }
        assert!(self.state.session >= self.newest_session, "a session comes back");
        self.newest_session = self.state.session;
        self.holds();
    }

    /// Notes the verdict of a response on the token of this generation.
    fn judged(&mut self, generation: Generation, is_accepted: bool) {
        if generation == self.newest {
            self.rejected = Some(generation).filter(|_| !is_accepted);
        }
    }

    fn adopted(&mut self, adoption: Adoption) {
        self.occupied.push((adoption.id, self.monotonic));
        self.adopting.push(adoption);
        assert!(self.state.generation > self.newest);
        self.newest = self.state.generation;
    }

    fn holds(&self) {
        let now = self.now();
        assert_eq!(self.state.generation, self.newest);
        if let Some((issued, until)) = self.state.published(now) {
            assert_eq!(issued.generation, self.newest);
            assert!(
                until.has_come(now) || !self.state.end_of(issued).has_come(now),
                "a token that is used up is published"
            );
        }
        let session = self.state.session;
        assert!(self.state.session_of_new_request(now) >= session);
        assert_eq!(session.has_begun(), self.state.current.is_some());
        if let Some(current) = &self.state.current {
            assert_eq!(current.session, session, "the token of another session is current");
            assert!(!self.state.is_of_earlier_session(current.generation));
        }
        let status = self.state.status(now);
        assert!(status.rejection_backoff.is_none() || self.state.usable(now).is_some());
        let is_usable = !matches!(status.token, TokenStatus::Missing | TokenStatus::Expired);
        assert_eq!(is_usable, self.state.usable(now).is_some(), "{status:?}");
        if is_usable && self.rejected == Some(self.newest) {
            assert_eq!(status.token, TokenStatus::Rejected);
        }
        // Each flight that requests wait for has a task that ends it.
        if let Some(id) = self.flight_id() {
            let flying = self.flying.iter().any(|(departure, _)| departure.id == id);
            let adopting = self.adopting.iter().any(|adoption| adoption.id == id);
            assert!(flying || adopting, "a flight without a task");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_any_steps(seed: u64, steps in proptest::collection::vec(step(), 1..120)) {
        let mut model = Model::new(seed);
        for step in steps {
            model.apply(step);
        }
    }

    #[test]
    fn log_in_works_after_any_steps(
        seed: u64,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new(seed);
        for step in steps {
            model.apply(step);
        }
        model.log_in(Some(Model::tokens(Some(3_600_000))));
        prop_assert!(matches!(model.token(), Decision::Use(_, None)));
    }

    #[test]
    fn source_is_asked_at_the_time_in_the_status(
        seed: u64,
        steps in proptest::collection::vec(step(), 1..60),
        is_early: bool,
    ) {
        let mut model = Model::new(seed);
        for step in steps {
            model.apply(step);
        }
        // A flight may change it.
        model.state.end_flight(None);
        let next = model.state.status(model.now()).next_refresh;
        let tick = Duration::from_micros(1);
        model.pass(match next {
            None => 2 * LIFETIME_MAX,
            Some(next) if is_early => next.saturating_sub(tick),
            Some(next) => next,
        });
        model.token();
        let is_asked = model.state.flight.as_ref().is_some_and(|flight| flight.asks);
        let is_due = next.is_some_and(|next| !is_early || next.is_zero());
        prop_assert_eq!(is_asked, is_due, "{:?}", next);
    }

    #[test]
    fn outage_never_stops_attempts_for_longer_than_its_pause(seed: u64, failures in 1..100_u32) {
        // However many failures in a row, the source is asked again within the longest pause of an outage.
        let mut model = Model::new(seed);
        for _ in 0..failures {
            let now = model.now();
            let Decision::Wait(_, Some(departure)) = model.state.token(now) else {
                panic!("not asked again");
            };
            model.land(&departure, Err(TokenError::transient("x")));
            model.apply(Step::Pass { milliseconds: 5000 });
        }
    }
}

// ===== one promise at a time =====

impl Model {
    /// Has a policy without jitter.
    fn steady() -> Self {
        Self::with_policy(&RefreshPolicy::default().jitter(Duration::ZERO), 1)
    }

    /// Holds a token of an hour: stale after 3300 seconds, and expired after 3590.
    fn logged_in(tokens: impl Into<TokenSet>, timeout: Duration) -> Self {
        let policy = RefreshPolicy::default().jitter(Duration::ZERO).timeout(timeout);
        let mut model = Self::with_policy(&policy, 1);
        let adoption = model.log_in(Some(tokens.into()));
        model.state.adopted(model.now(), &adoption, true);
        drop(model.state.take_effects());
        model
    }

    fn pass(&mut self, time: Duration) {
        self.monotonic += time;
        self.wall += time;
    }

    fn token(&mut self) -> Decision {
        self.state.token(self.now())
    }

    /// Rejects the current token.
    fn reject(&mut self) -> Departure {
        let decision = self.state.rejected(self.now(), self.state.generation, of(1));
        let Decision::Wait(_, Some(departure)) = decision else { panic!("{decision:?}") };
        departure
    }

    fn land(&mut self, departure: &Departure, result: Result<TokenSet, TokenError>) {
        let result = result.map(|tokens| self.obtained(tokens, self.now()));
        self.land_at(departure, result);
    }

    /// Rejects the current token, refreshes it, and rejects the new one too. Returns the backoff.
    fn reject_twice(&mut self) -> Option<Duration> {
        let departure = self.reject();
        self.land(&departure, Ok(of_an_hour()));
        self.state.retry_rejected(self.now(), self.state.generation, of(1));
        self.rejection_backoff()
    }

    /// Asks for the first token, and fails. Returns the backoff.
    fn fail(&mut self, error: TokenError) -> Duration {
        let decision = self.token();
        let Decision::Wait(_, Some(departure)) = decision else { panic!("{decision:?}") };
        self.land(&departure, Err(error));
        self.state.status(self.now()).backoff.unwrap()
    }

    fn rejection_backoff(&self) -> Option<Duration> {
        self.state.status(self.now()).rejection_backoff
    }

    fn published_until(&self) -> Deadline {
        self.state.published(self.now()).unwrap().1
    }

    fn has_news(&mut self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.state.take_effects().news.iter().any(is_it)
    }
}

fn of(path: u32) -> Target {
    Target::new(1, path)
}

fn of_an_hour() -> TokenSet {
    TokenSet::bearer("t").unwrap().with_expires_in(Duration::from_secs(3600))
}

const TIMEOUT: Duration = Duration::from_secs(5);
const STALE: Duration = Duration::from_secs(3300);

#[test]
fn token_is_stale_at_its_expiry_at_the_latest() {
    let model = Model::logged_in(of_an_hour().with_refresh_in(Duration::from_secs(7200)), TIMEOUT);
    let current = model.state.current.as_ref().unwrap();
    assert_eq!(current.stale, current.expired);
}

#[test]
fn refresh_in_counts_from_before_the_token_was_asked_for() {
    let mut model = Model::steady();
    let asked = model.now();
    let Decision::Wait(_, Some(departure)) = model.token() else { panic!("there is a token") };
    model.pass(Duration::from_secs(20));
    let tokens = of_an_hour().with_refresh_in(Duration::from_secs(60));
    let obtained = model.obtained(tokens, asked);
    model.land_at(&departure, Ok(obtained));
    model.pass(Duration::from_secs(39));
    assert!(matches!(model.token(), Decision::Use(_, None)));
    model.pass(Duration::from_secs(1));
    assert!(matches!(model.token(), Decision::Use(_, Some(_))));
}

#[test]
fn after_an_unknown_outcome_a_token_is_used_to_its_end() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.pass(STALE);
    let Decision::Use(issued, Some(departure)) = model.token() else { panic!("not stale") };
    model.land(&departure, Err(TokenError::ambiguous("cut")));
    assert!(!model.published_until().or_earlier(issued.expired).has_come(model.now()));
    while !issued.is_expired(model.now()) {
        assert!(matches!(model.token(), Decision::Use(_, None)));
        model.pass(Duration::from_secs(10));
    }
    model.pass(issued.ends.left(model.now()).unwrap());
    assert!(matches!(model.token(), Decision::Wait(_, Some(_))));
}

#[test]
fn after_an_unknown_outcome_the_leeway_does_not_count() {
    for has_store in [false, true] {
        let policy = RefreshPolicy::default()
            .jitter(Duration::ZERO)
            .refresh_ahead(Duration::from_secs(100))
            .leeway(Duration::from_secs(60));
        let mut model = Model::with_policy(&policy, 1);
        model.state.setup.has_store = has_store;
        let tokens = TokenSet::bearer("t").unwrap().with_expires_in(Duration::from_secs(600));
        let adoption = model.log_in(Some(tokens));
        model.state.adopted(model.now(), &adoption, true);

        model.pass(Duration::from_secs(500));
        let Decision::Use(_, Some(lost)) = model.token() else { panic!("not stale") };
        model.land(&lost, Err(TokenError::ambiguous("cut")));
        assert!(!lost.wish.may_risk);
        for second in 500..600 {
            assert_eq!(model.state.status(model.now()).token, TokenStatus::Stale);
            // In the leeway requests go on with the token, and a refresh behind them may send again if no store shares it.
            match model.token() {
                Decision::Use(_, None) => {}
                Decision::Use(_, Some(again)) => {
                    assert!(second >= 540 && again.wish.may_risk && !has_store, "{second}");
                    model.land(&again, Err(TokenError::ambiguous("cut")));
                }
                decision => panic!("{has_store} {second}: {decision:?}"),
            }
            model.pass(Duration::from_secs(1));
        }
        model.pass(Duration::from_secs(60));
        let decision = model.token();
        assert!(matches!(decision, Decision::Wait(_, Some(again)) if again.wish.may_risk));
    }
}

#[test]
fn failure_of_a_forced_refresh_delays_no_refresh_of_a_stale_token() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    let next = |model: &Model| model.state.status(model.now()).next_refresh.unwrap();
    assert_eq!(next(&model), STALE);
    let forced = model.state.forced(model.now(), model.state.generation);
    let Decision::Wait(_, Some(departure)) = forced else { panic!("{forced:?}") };
    assert_eq!(next(&model), Duration::ZERO);
    model.land(&departure, Err(TokenError::transient("down")));
    assert_eq!(next(&model), STALE);
    model.pass(STALE);
    assert_eq!(next(&model), Duration::ZERO);
    let Decision::Use(_, Some(departure)) = model.token() else { panic!("not stale") };
    model.land(&departure, Err(TokenError::transient("down")));
    let backoff = model.state.status(model.now()).backoff;
    assert_eq!(Some(next(&model)), backoff);
}

#[test]
fn refresh_at_once_asks_after_any_failure() {
    for error in
        [TokenError::transient("x"), TokenError::denied("x"), TokenError::misconfigured("x")]
    {
        for has_store in [false, true] {
            let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
            model.state.setup.has_store = has_store;
            let departure = model.reject();
            model.land(&departure, Err(error.clone()));
            let at_once = model.state.forced_at_once(model.now(), model.state.generation);
            let Decision::Wait(_, Some(departure)) = at_once else { panic!("{at_once:?}") };
            assert!(departure.at_once && departure.errand == Errand::Refresh);
            // Those who ask meanwhile wait for it.
            let joined = model.state.forced_at_once(model.now(), model.state.generation);
            assert!(matches!(joined, Decision::Wait(_, None)));
        }
    }
}

#[test]
fn refresh_at_once_sends_no_refresh_token_of_unknown_outcome() {
    for spends in [true, false] {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.state.setup.spends = spends;
        model.pass(STALE);
        let Decision::Use(issued, Some(departure)) = model.token() else { panic!("not stale") };
        model.land(&departure, Err(TokenError::ambiguous("cut")));
        let at_once = model.state.forced_at_once(model.now(), issued.generation);
        let is_asked = matches!(at_once, Decision::Wait(_, Some(_)));
        assert_eq!(is_asked, !spends);
        model.state.end_flight(None);
        // The token works no more, and there is nothing to lose.
        model.pass(issued.expired.left(model.now()).unwrap());
        let at_once = model.state.forced_at_once(model.now(), issued.generation);
        assert!(matches!(at_once, Decision::Wait(_, Some(it)) if it.wish.may_risk));
    }
}

/// S15
#[test]
fn refresh_that_was_given_up_on_is_used_until_the_later_one_lands() {
    for is_first_first in [true, false] {
        let mut model = Model::steady();
        let Decision::Wait(_, Some(first)) = model.token() else { panic!("there is a token") };
        model.pass(RefreshPolicy::default().timing.timeout * LOST_AFTER);
        let Decision::Wait(_, Some(second)) = model.token() else { panic!("not given up on") };
        let tokens =
            |name| TokenSet::bearer(name).unwrap().with_expires_in(Duration::from_secs(3600));
        if is_first_first {
            model.land(&first, Ok(tokens("first")));
            assert!(matches!(model.token(), Decision::Use(_, None)));
        }
        model.land(&second, Ok(tokens("second")));
        let Decision::Use(issued, None) = model.token() else { panic!("no token") };
        assert_eq!(issued.tokens.access_token().expose_secret(), "second");
    }
}

#[test]
fn set_that_the_ledger_handed_out_before_the_current_one_is_not_used() {
    let mut model = Model::steady();
    let Decision::Wait(_, Some(departure)) = model.token() else { panic!("there is a token") };
    let earlier = model.obtained(of_an_hour(), model.now());
    let later = model.obtained(of_an_hour(), model.now());
    assert!(model.land_at(&departure, Ok(later)).is_some());
    assert!(model.land_at(&departure, Ok(earlier)).is_none());
}

#[test]
fn token_without_expiry_is_refreshed_after_an_unknown_outcome() {
    let tokens = TokenSet::bearer("t").unwrap().with_refresh_in(Duration::from_secs(60));
    let mut model = Model::logged_in(tokens, TIMEOUT);
    model.pass(Duration::from_secs(60));
    let Decision::Use(_, Some(departure)) = model.token() else { panic!("not stale") };
    model.land(&departure, Err(TokenError::ambiguous("cut")));
    let backoff = model.state.status(model.now()).backoff.unwrap();
    assert!(matches!(model.token(), Decision::Use(_, None)));
    model.pass(backoff);
    assert!(matches!(model.token(), Decision::Use(_, Some(_))));
}

#[test]
fn token_rejected_during_its_refresh_is_rejected_until_accepted() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.pass(STALE);
    let Decision::Use(issued, Some(departure)) = model.token() else { panic!("not stale") };
    let is_rejected =
        |model: &Model| model.state.status(model.now()).token == TokenStatus::Rejected;
    let rejected = model.state.rejected(model.now(), issued.generation, of(1));
    assert!(matches!(rejected, Decision::Wait(_, None)) && is_rejected(&model));
    model.land(&departure, Err(TokenError::transient("down")));
    assert!(is_rejected(&model));
    model.witness.accepted(issued.generation, of(2));
    assert!(!is_rejected(&model));
}

/// E2
#[test]
fn target_that_rejects_every_token_makes_no_request_wait() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    assert!(model.reject_twice().is_some());
    model.witness.accepted(model.state.generation, of(2));
    model.pass(STALE);
    let Decision::Use(issued, Some(_)) = model.token() else { panic!("not stale") };
    let reject = |model: &mut Model, path| {
        let rejected = model.state.rejected(model.now(), issued.generation, of(path));
        assert!(matches!(rejected, Decision::Wait(_, None)));
    };
    reject(&mut model, 1);
    assert!(matches!(model.token(), Decision::Use(_, None)));
    // Until the next acceptance, which does not depend on the target that rejects every token.
    assert_eq!(model.state.status(model.now()).token, TokenStatus::Rejected);
    model.witness.accepted(issued.generation, of(2));
    assert_eq!(model.state.status(model.now()).token, TokenStatus::Stale);
    reject(&mut model, 2);
    assert!(matches!(model.token(), Decision::Wait(_, None)));
}

#[test]
fn session_of_other_credentials_that_ended_denies_nothing_for_good() {
    for has_store in [true, false] {
        let mut model = Model::steady();
        model.state.setup.has_store = has_store;
        let backoff = model.fail(super::super::session::is_over());
        let Decision::Refuse(error) = model.token() else { panic!("no backoff") };
        assert_eq!(error.asked_again_in(), Some(backoff), "{error}");
        model.pass(backoff);
        assert!(matches!(model.token(), Decision::Wait(_, Some(_))));
    }
}

#[test]
fn acceptance_is_heard_after_the_input_of_the_source_has_changed() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.state.source_changed();
    model.reject();
    let is_rejected =
        |model: &Model| model.state.status(model.now()).token == TokenStatus::Rejected;
    model.state.end_flight(None);
    assert!(is_rejected(&model));
    model.witness.accepted(model.state.generation, of(2));
    assert!(!is_rejected(&model));
}

#[test]
fn departure_that_is_called_off_sends_no_event() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.pass(STALE);
    let Decision::Use(_, Some(departure)) = model.token() else { panic!("not stale") };
    model.state.call_off(&departure);
    assert!(!model.has_news(|_| true));
}

#[test]
fn after_a_lost_flight_nothing_is_sent_while_the_token_works() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.pass(STALE);
    let Decision::Use(issued, Some(_)) = model.token() else { panic!("not stale") };
    model.pass(TIMEOUT * LOST_AFTER);
    while !issued.is_expired(model.now()) {
        assert!(matches!(model.token(), Decision::Use(_, None)));
        let forced = model.state.forced(model.now(), issued.generation);
        assert!(matches!(forced, Decision::Refuse(error) if error.is_ambiguous()));
        model.pass(Duration::from_secs(10));
    }
    model.pass(issued.ends.left(model.now()).unwrap());
    assert!(matches!(model.token(), Decision::Wait(_, Some(_))));
}

#[test]
fn request_after_ten_timeouts_declares_an_early_refresh_lost() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.pass(STALE);
    assert!(matches!(model.token(), Decision::Use(_, Some(_))));
    let turn = model.state.turn();
    let tick = Duration::from_millis(1);
    model.pass(TIMEOUT * LOST_AFTER - tick);
    assert!(!model.published_until().has_come(model.now()));
    model.token();
    assert!(!model.has_news(|event| matches!(event, Event::RefreshLost)));

    model.pass(tick);
    // Otherwise no request would come by here and notice.
    assert!(model.published_until().has_come(model.now()));
    model.token();
    assert!(model.has_news(|event| matches!(event, Event::RefreshLost)));
    assert!(!Arc::ptr_eq(&model.state.turn(), &turn));
}

#[test]
fn lost_look_at_the_store_is_no_unknown_outcome() {
    let mut model = with_a_store();
    model.pass(STALE * 2);
    let Decision::Wait(_, Some(departure)) = model.token() else { panic!("not expired") };
    model.land(&departure, Err(TokenError::denied("gone")));
    model.pass(LOOK_AGAIN);
    let Decision::Wait(_, Some(look)) = model.token() else { panic!("not looked at") };
    assert_eq!(look.errand, Errand::Look);
    model.pass(TIMEOUT * LOST_AFTER);
    let decision = model.token();
    assert!(model.has_news(|event| matches!(event, Event::RefreshLost)));
    assert!(model.state.status(model.now()).error.unwrap().is_denied(), "{decision:?}");
}

#[test]
fn wall_clock_makes_no_flight_look_lost() {
    let mut model = Model::steady();
    let Decision::Wait(_, Some(departure)) = model.token() else { panic!("there is a token") };
    model.wall += LIFETIME_MAX;
    assert!(matches!(model.token(), Decision::Wait(_, None)));
    assert!(model.state.wants(departure.id));
}

#[test]
fn backoff_restarts_after_a_success() {
    let mut model = Model::steady();
    for _ in 0..3 {
        let backoff = model.fail(TokenError::transient("down"));
        model.pass(backoff);
    }
    let Decision::Wait(_, Some(departure)) = model.token() else { panic!("there is a token") };
    model.land(&departure, Ok(of_an_hour()));
    model.pass(Duration::from_secs(3600));
    assert!(model.fail(TokenError::transient("down")) <= Duration::from_secs(1));
}

fn with_a_store() -> Model {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    model.state.setup.has_store = true;
    model
}

#[test]
fn while_denied_a_store_is_looked_at_every_five_seconds() {
    let denied_and_looks_again = |mut model: Model| {
        model.pass(STALE * 2);
        let decision = model.token();
        let Decision::Wait(_, Some(departure)) = decision else { panic!("{decision:?}") };
        model.land(&departure, Err(TokenError::denied("gone")));
        assert!(matches!(model.token(), Decision::Refuse(error) if error.is_denied()));
        model.pass(LOOK_AGAIN);
        matches!(model.token(), Decision::Wait(_, Some(_)))
    };
    assert!(denied_and_looks_again(with_a_store()));
    assert!(!denied_and_looks_again(Model::logged_in(of_an_hour(), TIMEOUT)));
}

#[test]
fn rejection_backoff_does_not_stop_a_look_at_the_store() {
    let mut model = with_a_store();
    let rejection_backoff = model.reject_twice();
    assert!(rejection_backoff.is_some());

    let look = model.reject();
    assert_eq!(look.errand, Errand::Look);
    model.land(&look, Err(TokenError::transient("nothing newer")));
    assert_eq!(model.rejection_backoff(), rejection_backoff);
    assert!(model.state.status(model.now()).error.is_none());
    // Not for each rejection.
    let rejected = model.state.rejected(model.now(), model.state.generation, of(1));
    assert!(matches!(rejected, Decision::Refuse(_)), "{rejected:?}");

    // A response accepts the token, so that the backoff goes on after its end.
    model.witness.accepted(model.state.generation, of(2));
    model.pass(LOOK_AGAIN);
    let look = model.reject();
    assert_eq!(look.errand, Errand::Look);
    model.land(&look, Ok(of_an_hour()));
    model.state.retry_accepted(model.now(), of(1));
    assert_eq!(model.rejection_backoff(), None);
}

#[test]
fn forced_refresh_looks_at_the_store_after_an_unknown_outcome() {
    let mut model = with_a_store();
    model.pass(STALE);
    let Decision::Use(_, Some(departure)) = model.token() else { panic!("not stale") };
    model.land(&departure, Err(TokenError::ambiguous("cut")));

    let forced = |model: &mut Model| model.state.forced(model.now(), model.state.generation);
    let Decision::Wait(_, Some(look)) = forced(&mut model) else { panic!("not looked at") };
    assert_eq!(look.errand, Errand::Look);
    model.land(&look, Err(TokenError::transient("nothing newer")));
    // The look has changed nothing.
    let refused = forced(&mut model);
    assert!(matches!(&refused, Decision::Refuse(error) if error.is_ambiguous()), "{refused:?}");

    model.pass(LOOK_AGAIN);
    let Decision::Wait(_, Some(look)) = forced(&mut model) else { panic!("not looked at") };
    model.land(&look, Ok(of_an_hour()));
    assert!(matches!(model.token(), Decision::Use(_, None)));
}

#[test]
fn without_a_store_a_rejection_backoff_refuses_at_once() {
    let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
    assert!(model.reject_twice().is_some());
    let rejected = model.state.rejected(model.now(), model.state.generation, of(1));
    assert!(matches!(rejected, Decision::Refuse(_)), "{rejected:?}");
}

#[test]
fn two_instances_back_off_for_different_times() {
    let [one, other] = [2, 4].map(|seed| Model::new(seed).fail(TokenError::transient("down")));
    assert_ne!(one, other);
}

#[test]
fn misconfigured_source_is_tried_again_after_five_minutes() {
    let mut model = Model::steady();
    model.fail(TokenError::misconfigured("fix me"));
    let tick = Duration::from_millis(1);
    model.pass(Duration::from_secs(300) - tick);
    assert!(matches!(model.token(), Decision::Refuse(error) if error.is_misconfigured()));
    model.pass(tick);
    assert!(matches!(model.token(), Decision::Wait(_, Some(_))));
}
