use std::time::SystemTime;

use super::budget::{BUDGET, ORIGINS, REFUNDS, SPARE};
use super::witness::{ANY, bit};
use super::*;

fn evidence(first: Duration, max: Duration) -> Evidence {
    let rejection_backoff = Backoff::new(first, max);
    Evidence::new(Arc::new(Timing { rejection_backoff, ..Timing::default() }))
}

/// Events at one target after another, with every refresh granted.
struct Story {
    evidence: Evidence,
    now: Duration,
    generation: Generation,
    refreshes: u32,
}

impl Story {
    fn new() -> Self {
        let mut evidence = evidence(Duration::from_secs(5), Duration::from_secs(300));
        let generation = Generation(1);
        evidence.token_issued(generation);
        Self { evidence, now: Duration::from_secs(1000), generation, refreshes: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.now, SystemTime::UNIX_EPOCH + self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Returns whether the rejection led to a refresh.
    fn rejected(&mut self, target: Target) -> bool {
        self.evidence.hear(self.generation);
        self.evidence.acquit_silent(self.now());
        let is_refreshed =
            self.evidence.judge(self.now(), self.generation, target) == Judgement::Counts;
        if is_refreshed {
            let rejected = self.generation;
            self.generation.0 += 1;
            self.refreshes += 1;
            self.evidence.token_issued(self.generation);
            self.evidence.refreshed(self.now(), target, rejected);
        }
        self.evidence.ask(self.generation);
        is_refreshed
    }

    fn accepted(&mut self, target: Target) {
        if self.evidence.witness.accepted(self.generation, target) {
            self.evidence.hear(self.generation);
            self.evidence.accepted(self.now(), target);
            self.evidence.ask(self.generation);
        }
    }
}

fn at(origin: u32, path: u32) -> Target {
    Target::new(origin, path)
}

#[test]
fn a_target_that_rejects_the_new_token_too_backs_off() {
    let mut story = Story::new();
    let mut refreshed_at = Vec::new();
    for second in 0..100 {
        if story.rejected(at(1, 1)) {
            refreshed_at.push(second);
        }
        story.pass(1);
    }
    // 5 and 10 seconds, each from the rejection that follows the refresh. The last refresh is left to other targets.
    assert_eq!(refreshed_at, [0, 6, 17]);
    assert!(story.rejected(at(1, 2)));
}

#[test]
fn a_suspect_starts_no_refresh_while_others_accept_the_token() {
    let mut story = Story::new();
    for _ in 0..1800 {
        story.rejected(at(1, 1));
        story.accepted(at(1, 2));
        story.pass(1);
    }
    assert_eq!(story.refreshes, 1);
    for _ in 0..86_400 {
        story.rejected(at(1, 1));
        story.accepted(at(1, 2));
        story.pass(1);
    }
    // They may accept any token.
    assert!((20..=26).contains(&story.refreshes), "{}", story.refreshes);
}

#[test]
fn another_target_is_heard_while_a_suspect_backs_off() {
    let mut story = Story::new();
    story.rejected(at(1, 1));
    assert!(!story.rejected(at(1, 1)));
    story.accepted(at(1, 2));
    assert!(story.rejected(at(1, 2)));
}

#[test]
fn acceptance_of_an_older_token_does_not_speak_for_the_newer() {
    let mut story = Story::new();
    story.rejected(at(1, 1));
    story.rejected(at(1, 1));
    story.accepted(at(1, 2));
    story.evidence.hear(story.generation);
    // The token expires and is refreshed.
    story.generation.0 += 1;
    story.evidence.token_issued(story.generation);
    story.pass(5);
    assert!(story.rejected(at(1, 1)));
}

#[test]
fn the_budget_of_an_origin_bounds_its_refreshes_and_no_other_origins() {
    let mut story = Story::new();
    let mut path = 0;
    for _ in 0..3600 {
        path += 1;
        story.rejected(at(1, path));
        story.pass(1);
    }
    assert_eq!(story.refreshes, BUDGET + 3600 / 300 - 1);
    assert!(story.rejected(at(2, 1)));
}

/// As with GraphQL, where some operations are rejected and others accepted.
#[test]
fn a_target_that_accepts_and_rejects_is_refreshed_once_it_only_rejects() {
    let mut story = Story::new();
    for _ in 0..120 {
        story.rejected(at(1, 1));
        story.accepted(at(1, 1));
        story.pass(1);
    }
    let before = story.refreshes;
    assert!(before < BUDGET);
    for _ in 0..=5 {
        story.rejected(at(1, 1));
        story.pass(1);
    }
    assert_eq!(story.refreshes, before + 1);
}

#[test]
fn a_useful_refresh_is_given_back_to_the_budget() {
    let mut story = Story::new();
    for _ in 0..REFUNDS {
        assert!(story.rejected(at(1, 1)));
        story.evidence.retry_accepted(story.now(), at(1, 1));
    }
    story.pass(600);
    for _ in 0..100 {
        // Without a retry, the target shows it later.
        assert!(story.rejected(at(1, 1)));
        story.accepted(at(1, 1));
        story.pass(30);
    }
}

#[test]
fn retries_that_happen_to_be_accepted_refresh_at_a_bounded_rate() {
    let mut story = Story::new();
    for _ in 0..3600 {
        // One server of several behind one name rejects every token.
        if story.rejected(at(1, 1)) {
            story.evidence.retry_accepted(story.now(), at(1, 1));
        }
        story.accepted(at(1, 1));
        story.pass(1);
    }
    assert!(story.refreshes <= REFUNDS + 120 + BUDGET + 12 + SPARE, "{}", story.refreshes);
}

#[test]
fn a_target_that_accepts_and_rejects_in_turn_stays_within_the_budget() {
    let mut story = Story::new();
    for _ in 0..600 {
        story.rejected(at(1, 1));
        story.accepted(at(1, 1));
        story.pass(1);
    }
    assert!(story.refreshes <= BUDGET + 2, "{}", story.refreshes);
}

#[test]
fn many_origins_that_reject_everything_stay_within_their_budgets() {
    let mut story = Story::new();
    for origin in 0..10_000 {
        story.rejected(at(origin, 1));
    }
    assert_eq!(story.refreshes, ORIGINS as u32);
}

#[test]
fn a_retry_that_was_rejected_backs_off_once() {
    let mut story = Story::new();
    let (one, first) = (at(1, 1), Some(Duration::from_secs(5)));
    assert!(story.rejected(one));
    for expected in [first, None, None] {
        let (now, generation) = (story.now(), story.generation);
        assert_eq!(story.evidence.retry_rejected(now, one, generation), expected);
    }
    story.evidence.ask(story.generation);
    assert!(story.evidence.is_rejected(story.generation));
    story.accepted(at(1, 2));
    assert!(!story.evidence.is_rejected(story.generation));
}

#[test]
fn an_application_that_is_silent_has_accepted_the_token() {
    for (target, silence, is_refreshed) in [
        (Target::APPLICATION, 300, true),
        (Target::APPLICATION, 299, false),
        // A request reports its acceptance.
        (at(1, 1), 300, false),
    ] {
        let mut story = Story::new();
        assert!(story.rejected(target));
        story.pass(silence);
        assert_eq!(story.rejected(target), is_refreshed, "{silence}");
    }
}

#[test]
fn an_acceptance_of_a_good_token_changes_nothing() {
    let mut story = Story::new();
    let bits = |story: &Story| story.evidence.witness.bits();
    assert_eq!(bits(&story), ANY);
    story.accepted(at(1, 1));
    assert_eq!(bits(&story), 0);
    story.rejected(at(1, 2));
    story.accepted(at(1, 1));
    assert_eq!(bits(&story), bit(at(1, 2)));
}

#[test]
fn an_acceptance_by_a_target_with_the_bit_of_a_suspect_is_no_news() {
    let mut story = Story::new();
    let (suspect, good) = (at(1, 2), at(1, 2 + ANY.trailing_zeros()));
    assert_eq!(bit(suspect), bit(good));
    story.rejected(suspect);
    assert!(!story.evidence.witness.accepted(story.generation, good));
    assert!(story.evidence.witness.accepted(story.generation, suspect));
}

#[test]
fn a_backoff_of_zero_holds_nothing_back() {
    let mut story = Story::new();
    story.evidence = evidence(Duration::ZERO, Duration::ZERO);
    for path in 0..100 {
        assert!(story.rejected(at(1, path)));
    }
}
