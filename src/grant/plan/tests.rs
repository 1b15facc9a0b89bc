//! The decisions, in tables.

use std::num::NonZeroU64;

use super::*;
use crate::clock::Deadline;
use crate::grant::due::due;
use crate::grant::ledger::{Begun, Due, Held, Unsaved};
use crate::grant::record::{Binding, Place, WriteId};
use crate::grant::session::{is_brought_back, log_in, log_in_by_source};

const HOUR: Duration = Duration::from_secs(3600);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// The time when the wall clock shows this.
fn at(wall: SystemTime) -> Timestamp {
    Timestamp::new(wall.duration_since(start()).unwrap_or_default(), wall)
}

fn set(name: &str) -> TokenSet {
    TokenSet::bearer(name)
        .unwrap()
        .with_expires_in(HOUR)
        .with_refresh_token(format!("refresh-{name}"))
}

fn current(name: &str) -> Current {
    Current::new(set(name), start())
}

fn setup() -> Setup {
    Setup {
        binding: Binding::default().shared(),
        configured: Some(RefreshToken::new("configured")),
        rotates: true,
        reuse_grace: None,
        store: "the store".into(),
    }
}

/// A record after so many refreshes.
fn record(revision: u64) -> Record {
    (1..=revision).fold(first(&setup()), |record, revision| {
        record.succeed(current(&format!("t{revision}")), revision)
    })
}

fn with_attempts(record: &Record, attempts: u32, sent: SystemTime) -> Record {
    let mut next = record.next();
    let token = next.refresh_token().cloned().unwrap();
    next.send(&token, sent);
    next.sent.as_mut().unwrap().attempts = attempts;
    next
}

fn has_spent(record: &Record, name: &str) -> bool {
    record.fate(&RefreshToken::new(format!("refresh-{name}"))) == Fate::Superseded
}

/// A ledger that knows the record after so many refreshes.
fn knows(revision: u64, unsaved: Option<Unsaved>) -> Ledger {
    Ledger { record: Some(record(revision)), unsaved, ..Ledger::default() }
}

/// A ledger whose credentials have the set of this revision.
fn holds(revision: u64) -> Ledger {
    let place = Place { position: Position { epoch: 1, revision }, login_epoch: 1 };
    let held = Held { id: SetId(NonZeroU64::MIN), place };
    Ledger { held: Some(held), ..Ledger::default() }
}

fn wish(cause: Cause) -> Wish {
    Wish {
        cause,
        has: Some(SetId(NonZeroU64::MIN)).filter(|_| cause != Cause::Missing),
        may_risk: false,
        leeway: Leeway(Duration::from_secs(10)),
    }
}

/// Returns the next step in a word, and with which access token.
fn planned(
    record: &Record,
    ledger: &Ledger,
    wish: &Wish,
    setup: &Setup,
    now: SystemTime,
) -> String {
    let access = |tokens: &TokenSet| tokens.access_token().expose_secret().to_owned();
    match plan(record, ledger, wish, setup, at(now)) {
        Plan::Use(set) => format!("use {}", access(&set.tokens)),
        Plan::Ask(attempt) => match (attempt.write, attempt.refresh_token) {
            (Some(_), _) => format!("send {}", access(&attempt.previous.unwrap())),
            (None, Ok(_)) => "ask".into(),
            (None, Err(why)) => format!("ask without: {why:?}"),
        },
        Plan::Fail(error) if error.is_ambiguous() => "ambiguous".into(),
        Plan::Fail(error) => panic!("{error}"),
    }
}

const CAUSES: [Cause; 5] =
    [Cause::Missing, Cause::Expiring, Cause::Expired, Cause::Rejected, Cause::Forced];

#[test]
fn only_a_newer_set_that_works_is_used() {
    let record = record(3);
    for cause in CAUSES {
        let planned = |has, now| planned(&record, &holds(has), &wish(cause), &setup(), now);
        assert_eq!(planned(2, start()), "use t3", "{cause:?}");
        assert_eq!(planned(2, start() + HOUR), "send t3", "{cause:?}");
        let same = if cause == Cause::Missing { "use t3" } else { "send t3" };
        assert_eq!(planned(3, start()), same, "{cause:?}");
        assert_eq!(planned(4, start()), same, "{cause:?}");
    }
}

#[test]
fn edited_access_revision_makes_a_set_no_newer_than_its_record() {
    let mut edited = record(3);
    edited.current.as_mut().unwrap().access_revision = Some(9);
    let found = planned(&edited, &holds(3), &wish(Cause::Rejected), &setup(), start());
    assert_eq!(found, "send t3");
}

#[test]
fn leeway_is_that_of_the_policy() {
    for leeway in [0, 10, 60, 400] {
        let wish = Wish { leeway: Leeway(Duration::from_secs(leeway)), ..wish(Cause::Expired) };
        // At most a tenth of the lifetime.
        let end = start() + HOUR - Duration::from_secs(leeway.min(360));
        let planned = |now| planned(&record(3), &holds(2), &wish, &setup(), now);
        assert_eq!(planned(end - Duration::from_secs(1)), "use t3", "{leeway}");
        assert_eq!(planned(end), "send t3", "{leeway}");
    }
}

#[test]
fn refresh_token_with_an_unknown_outcome_waits_for_the_end_of_the_access_token() {
    let record = with_attempts(&record(3), 1, start());
    for cause in CAUSES {
        for may_risk in [false, true] {
            let wish = Wish { may_risk, ..wish(cause) };
            let expected = match (cause, may_risk) {
                (Cause::Missing, _) => "use t3",
                (_, true) => "send t3",
                (_, false) => "ambiguous",
            };
            let found = planned(&record, &holds(3), &wish, &setup(), start());
            assert_eq!(found, expected, "{cause:?} {may_risk}");
        }
    }
}

#[test]
fn attempt_that_this_process_is_making_is_not_repeated() {
    let record = with_attempts(&record(3), 1, start());
    let by = record.sent.as_ref().unwrap().by;
    let until = Deadline::monotonic(at(start()), LONGEST_FETCH);
    let ledger = Ledger { sending: Some(Box::new((by, until))), ours: Some(by), ..holds(3) };
    let wish = Wish { may_risk: true, ..wish(Cause::Expired) };
    assert_eq!(planned(&record, &ledger, &wish, &setup(), start()), "ambiguous");
    // The wall clock may be set meanwhile.
    for wall in [start() - HOUR, start() + HOUR] {
        let now = Timestamp::new(Duration::ZERO, wall);
        assert!(matches!(plan(&record, &ledger, &wish, &setup(), now), Plan::Fail(_)));
    }
    // The source is taken for dead at last.
    let at_last = start() + LONGEST_FETCH;
    assert_eq!(planned(&record, &ledger, &wish, &setup(), at_last), "send t3");
}

#[test]
fn attempts_are_further_and_further_apart() {
    for (attempts, pause) in [(0, 0), (1, 0), (2, 60), (3, 120), (5, 480), (6, 900), (99, 900)] {
        let sent = start() + HOUR;
        let record = with_attempts(&record(3), attempts, sent);
        let after = |seconds| {
            let now = sent + Duration::from_secs(seconds);
            let wish = Wish { may_risk: true, ..wish(Cause::Expired) };
            planned(&record, &holds(3), &wish, &setup(), now)
        };
        assert_eq!(after(pause), "send t3", "{attempts}");
        if pause > 0 {
            assert_eq!(after(pause - 1), "ambiguous", "{attempts}");
        }
    }
}

/// N9
#[test]
fn refusal_after_an_unknown_outcome_names_the_time_of_the_next_attempt() {
    let sent = start() + 2 * HOUR;
    for (attempts, pause) in [(2, 60), (3, 120), (20, 900)] {
        let record = with_attempts(&record(1), attempts, sent);
        let wish = Wish { may_risk: true, ..wish(Cause::Expired) };
        let now = sent + Duration::from_secs(10);
        let plan = plan(&record, &holds(1), &wish, &setup(), at(now));
        let Plan::Fail(error) = plan else { panic!("{plan:?}") };
        let next = httpdate::fmt_http_date(sent + Duration::from_secs(pause));
        assert!(error.to_string().ends_with(&next), "{error}");
    }
}

#[test]
fn clock_that_was_far_ahead_locks_no_process_out() {
    let day = Duration::from_secs(86400);
    let now = start() + day;
    let wish = Wish { may_risk: true, ..wish(Cause::Expired) };
    for sent in [now + day, now + day * 365, time_of_day(u64::MAX)] {
        let record = with_attempts(&record(3), 4, sent);
        let found = planned(&record, &holds(3), &wish, &setup(), now);
        assert_eq!(found, "send t3", "{sent:?}");
    }
}

#[test]
fn rejected_token_whose_refresh_token_was_replaced_is_not_used_again() {
    let replaced = record(3).replace_refresh_token(current("successor"));
    assert_eq!(replaced.position(), Position { epoch: 1, revision: 4 });
    let found = planned(&replaced, &holds(3), &wish(Cause::Rejected), &setup(), start());
    assert_eq!(found, "send t3");
    // Also if the outcome of the successor is unknown.
    let sent = with_attempts(&replaced, 1, start());
    let wish = Wish { may_risk: true, ..wish(Cause::Rejected) };
    assert_eq!(planned(&sent, &holds(3), &wish, &setup(), start()), "send t3");
}

#[test]
fn grace_window_is_used_if_it_is_open_by_both_clocks() {
    let setup = Setup { reuse_grace: Some(Duration::from_secs(10)), ..setup() };
    let sent = start() + Duration::from_secs(100);
    let open = with_attempts(&record(3), 1, sent);
    let ours = Ledger { ours: Some(open.sent.as_ref().unwrap().by), ..holds(3) };
    // By a clock that shows so many seconds after the recorded time: of another process, and of this one.
    for (seconds, others, own) in [
        (-60, "ambiguous", "ambiguous"),
        (-6, "ambiguous", "ambiguous"),
        (-5, "send t3", "ambiguous"),
        (0, "send t3", "send t3"),
        (4, "send t3", "send t3"),
        (5, "ambiguous", "send t3"),
        (9, "ambiguous", "send t3"),
        (10, "ambiguous", "ambiguous"),
    ] {
        let now = start() + Duration::from_secs(100_u64.saturating_add_signed(seconds));
        let wish = wish(Cause::Forced);
        assert_eq!(planned(&open, &holds(3), &wish, &setup, now), others, "{seconds}");
        assert_eq!(planned(&open, &ours, &wish, &setup, now), own, "{seconds}");
    }
    let twice = with_attempts(&record(3), 2, sent);
    let found = planned(&twice, &ours, &wish(Cause::Forced), &setup, sent);
    assert_eq!(found, "ambiguous");
}

#[test]
fn without_a_record_the_configured_refresh_token_has_its_turn() {
    let plan = |setup: &Setup| match plan(
        &first(setup),
        &Ledger::default(),
        &wish(Cause::Missing),
        setup,
        at(start()),
    ) {
        Plan::Ask(attempt) => *attempt,
        plan => panic!("{plan:?}"),
    };
    let attempt = plan(&setup());
    assert_eq!(attempt.refresh_token.unwrap().expose_secret(), "configured");
    assert_eq!(attempt.write.unwrap().sent.unwrap().attempts, 1);
    let attempt = plan(&Setup { rotates: false, ..setup() });
    assert!(attempt.write.is_none() && attempt.refresh_token.is_ok());
    let attempt = plan(&Setup { configured: None, ..setup() });
    assert!(attempt.write.is_none());
    assert_eq!(attempt.refresh_token.unwrap_err(), Missing::None);
}

#[test]
fn refused_and_superseded_refresh_tokens_are_not_sent() {
    let refused = record(3).refuse(&RefreshToken::new("refresh-t3"));
    let mut superseded = record(3);
    superseded.supersede(superseded.key.of(&RefreshToken::new("refresh-t3")));
    for (record, expected) in
        [(refused, "ask without: Refused"), (superseded, "ask without: Superseded")]
    {
        for rotates in [true, false] {
            let setup = Setup { rotates, ..setup() };
            let found = planned(&record, &holds(3), &wish(Cause::Forced), &setup, start() + HOUR);
            assert_eq!(found, expected);
        }
    }
    let ledger = Ledger::default();
    let logged_out = log_in(Some(&record(3)), None, start(), &setup());
    let found = planned(&logged_out, &ledger, &wish(Cause::Missing), &setup(), start());
    assert_eq!(found, "ask without: LoggedOut");
    // The configured one had its turn.
    let logged_in = log_in(Some(&record(3)), Some(set("other")), start(), &setup());
    let ended = planned(&logged_in, &ledger, &wish(Cause::Missing), &setup(), start() + HOUR);
    assert_eq!(ended, "send other");
}

// ===== sessions =====

/// A ledger in which this session is unsaved.
fn session(tokens: Option<TokenSet>, at: SystemTime, begun: Begun) -> Ledger {
    let record = log_in(None, tokens, at, &setup());
    Ledger { record: Some(record), unsaved: Some(Unsaved::Session(begun)), ..Ledger::default() }
}

fn due_of(record: &Record, ledger: &Ledger) -> Due {
    due(Some(record), ledger, &setup()).unwrap()
}

fn written(record: &Record, ledger: &Ledger) -> Record {
    match due_of(record, ledger) {
        Due::Save(next) | Due::Write(next) => next,
        due => panic!("{due:?}"),
    }
}

#[test]
fn login_is_stored_although_the_clock_went_back_and_a_late_one_if_it_is_the_later() {
    let noon = start() + HOUR;
    let record = written(&record(3), &session(Some(set("noon")), noon, Begun::Now));
    assert_eq!(record.position(), Position { epoch: 2, revision: 4 });
    for (begun, at, is_stored) in [
        (Begun::Now, start(), true),
        (Begun::Late, start(), false),
        (Begun::Configured, start(), false),
        (Begun::Late, noon + HOUR, true),
        // There was no log-out: it may be the result of an attempt of a process that was killed.
        (Begun::Configured, noon + HOUR, true),
    ] {
        let due = due_of(&record, &session(Some(set("other")), at, begun));
        assert_eq!(matches!(due, Due::Save(_)), is_stored, "{begun:?} {due:?}");
    }
}

#[test]
fn configured_token_that_was_sent_without_the_store_ends_no_logout_that_it_is_older_than() {
    let record = written(&record(3), &session(None, start(), Begun::Now));
    let ledger = session(Some(set("other")), start() + HOUR, Begun::Configured);
    assert!(matches!(due_of(&record, &ledger), Due::Overtaken));
    let later = Setup { configured: Some(RefreshToken::new("later")), ..setup() };
    assert!(matches!(due(Some(&record), &ledger, &later).unwrap(), Due::Save(_)));
}

#[test]
fn login_keeps_the_fate_of_the_token_that_it_brings_and_ends_what_is_in_flight() {
    let sent = with_attempts(&record(3), 1, start());
    let again = written(&sent, &session(Some(set("t3")), start(), Begun::Now));
    assert!(again.sent.is_some());
    let other = written(&sent, &session(Some(set("other")), start(), Begun::Now));
    assert!(other.sent.is_none());
    assert!(has_spent(&other, "t3"));

    let refused = record(3).refuse(&RefreshToken::new("refresh-t3"));
    for (name, is_known) in [("t3", true), ("other", false)] {
        let next = written(&refused, &session(Some(set(name)), start(), Begun::Now));
        assert_eq!(next.refused.is_some(), is_known, "{name}");
    }
}

#[test]
fn superseded_refresh_token_begins_no_session() {
    for name in ["t1", "t2"] {
        assert!(is_brought_back(Some(&record(3)), Some(&set(name))));
        let late = session(Some(set(name)), start() + HOUR, Begun::Now);
        assert!(matches!(due_of(&record(3), &late), Due::Overtaken));
    }
}

#[test]
fn login_by_a_fallback_source_begins_an_epoch_and_not_a_login_epoch() {
    let refused = record(3).refuse(&RefreshToken::new("refresh-t3"));
    let next = log_in_by_source(&refused, current("other"));
    assert_eq!(next.position(), Position { epoch: 2, revision: 4 });
    assert_eq!(next.login_epoch, 1);
    assert!(has_spent(&next, "t3"));
    assert!(next.has_seen(&RefreshToken::new("refresh-other")));
    assert!(next.is_latest_configured(&RefreshToken::new("configured")));
    let by_user = log_in(Some(&next), Some(set("user")), start(), &setup());
    assert_eq!((by_user.epoch, by_user.login_epoch), (3, 3));
}

#[test]
fn fallback_login_supersedes_the_denied_refresh_token() {
    let alone = || Current::new(TokenSet::bearer("alone").unwrap(), start());
    let sent = with_attempts(&record(3), 1, start());
    for record in [sent.clone(), record(3)] {
        assert!(has_spent(&log_in_by_source(&record, alone()), "t3"));
    }
    // Some servers issue a refresh token again.
    assert!(!has_spent(&log_in_by_source(&sent, current("t3")), "t3"));

    let configured = RefreshToken::new("configured");
    let mut first = first(&setup());
    let refused = first.refuse(&configured);
    first.send(&configured, start());
    for record in [first, refused] {
        let next = log_in_by_source(&record, alone());
        assert_eq!(next.fate(&configured), Fate::Superseded);
        assert_eq!(next.position(), Position { epoch: 1, revision: 1 });
    }
}

#[test]
fn different_configured_refresh_token_ends_the_stored_session_once() {
    let later = Setup { configured: Some(RefreshToken::new("later")), ..setup() };
    let Due::Write(next) = due(Some(&record(3)), &Ledger::default(), &later).unwrap() else {
        panic!("the new log-in is not noticed")
    };
    assert_eq!((next.epoch, next.current.is_none()), (2, true));
    assert!(next.is_latest_configured(&RefreshToken::new("later")));
    for setup in [later, setup()] {
        assert!(matches!(due(Some(&next), &Ledger::default(), &setup).unwrap(), Due::Nothing));
    }
    // In a process that has logged in or out, the configuration is out of date.
    let later = Setup { configured: Some(RefreshToken::new("later still")), ..self::setup() };
    let ledger = Ledger { has_logged: true, ..Ledger::default() };
    let Due::Write(noted) = due(Some(&next), &ledger, &later).unwrap() else {
        panic!("its turn is not noted")
    };
    assert_eq!(noted.position(), next.position());
    assert!(noted.is_latest_configured(&RefreshToken::new("later")));
}

// ===== successors =====

#[test]
fn refresh_token_that_the_server_issues_again_is_sent_again() {
    let again = record(2).succeed(current("t1"), 3);
    let wish = wish(Cause::Expired);
    assert_eq!(planned(&again, &holds(3), &wish, &setup(), start() + HOUR), "send t1");
}

#[test]
fn successor_ends_the_logout_and_the_attempt_and_supersedes_its_parent() {
    let record = with_attempts(&record(3), 1, start());
    for next in [record.succeed(current("t4"), 4), record.replace_refresh_token(current("t4"))] {
        assert!(next.sent.is_none());
        assert!(has_spent(&next, "t3"));
        assert!(!has_spent(&next, "t4"));
    }
    assert!(!has_spent(&record.succeed(current("t3"), 4), "t3"));

    let logged_out = written(&record, &session(None, start(), Begun::Now));
    assert!(logged_out.is_logged_out);
    assert!(!logged_out.succeed(current("t5"), 6).is_logged_out);
}

/// S15: of two successors of one parent, the one that was asked for later is kept.
#[test]
fn successor_that_was_asked_for_later_takes_the_place_of_its_sibling() {
    let parent = Position { epoch: 1, revision: 2 };
    let asked = |seconds| start() + Duration::from_secs(seconds);
    for (stored, parent, at, expected) in [
        (record(2), parent, asked(0), Ok(())),
        // A sibling that was asked for at the start.
        (record(3), parent, asked(1), Ok(())),
        (record(3), parent, asked(0), Err(Overtaken::Forked)),
        // A grandchild.
        (record(4), parent, asked(1), Err(Overtaken::Forked)),
    ] {
        assert_eq!(succession(&stored, parent, at), expected, "{stored:?}");
    }
    let logged_in = log_in(Some(&record(2)), Some(set("other")), start(), &setup());
    assert_eq!(succession(&logged_in, parent, asked(1)), Err(Overtaken::Ended));
}

#[test]
fn attempt_is_about_its_own_token_and_taken_back_by_its_own_writer() {
    let sent = with_attempts(&record(3), 1, start());
    let by = sent.sent.as_ref().unwrap().by;
    let before = Box::new(Sent { attempts: 7, ..*sent.sent.clone().unwrap() });
    let not_made =
        |by| Ledger { not_made: Some(Box::new((by, Some(before.clone())))), ..Ledger::default() };
    assert!(matches!(due_of(&sent, &not_made(WriteId::random())), Due::Nothing));
    assert_eq!(written(&sent, &not_made(by)).sent, Some(before.clone()));

    let mut other = record(3).next();
    let token = other.key.of(&RefreshToken::new("other"));
    other.sent = Some(Box::new(Sent { token, ..*before }));
    let found = planned(&other, &holds(3), &wish(Cause::Forced), &setup(), start());
    assert_eq!(found, "send t3");
}

#[test]
fn access_token_without_an_end_is_not_waited_for() {
    let endless = TokenSet::bearer("endless").unwrap().with_refresh_token("refresh");
    let record = record(3).succeed(Current::new(endless, start()), 4);
    let record = with_attempts(&record, 1, start());
    let found = planned(&record, &holds(4), &wish(Cause::Forced), &setup(), start());
    assert_eq!(found, "send endless");
}

#[test]
fn refusal_of_an_earlier_token_changes_no_newer_record() {
    let mut ledger = knows(3, None);
    ledger.refused(&record(2), &RefreshToken::new("refresh-t2"));
    assert!(ledger.record.is_some_and(|record| record.refused.is_none()));
    assert!(ledger.unsaved.is_none());
}

#[test]
fn attempt_of_an_earlier_refresh_changes_no_newer_record() {
    let mut ledger = knows(3, None);
    ledger.attempted(&with_attempts(&record(2), 1, start()));
    assert_eq!(ledger.position(), Position { epoch: 1, revision: 3 });
}

// ===== what is due =====

#[test]
fn binding_of_an_unused_record_leaves_a_log_in_unsaved() {
    let mut ledger = session(Some(set("login")), start(), Begun::Now);
    let (of, bound) = (ledger.write_id(), first(&setup()));
    assert!(!ledger.written(&bound, false, of));
    assert_eq!((ledger.write_id(), ledger.unsaved.is_some()), (of, true));
}

#[test]
fn restored_record_is_in_doubt_only_if_a_token_may_rotate() {
    for rotates in [true, false] {
        let setup = Setup { rotates, ..setup() };
        let due = due(Some(&record(2)), &knows(3, None), &setup).unwrap();
        let Due::Save(next) = due else { panic!("{due:?}") };
        assert_eq!(next.sent.is_some(), rotates);
    }
}

#[test]
fn doubt_is_written_once_and_only_if_a_token_may_rotate() {
    let doubted = |record: Record| Record { is_doubted: true, ..record };
    let in_doubt = written(&doubted(record(3)), &Ledger::default());
    assert_eq!(in_doubt.sent.as_ref().unwrap().attempts, 0);
    let sent = doubted(with_attempts(&record(3), 2, start()));
    assert!(matches!(due_of(&sent, &Ledger::default()), Due::Nothing));
    let setup = Setup { rotates: false, ..setup() };
    let due = due(Some(&doubted(record(3))), &Ledger::default(), &setup).unwrap();
    assert!(matches!(due, Due::Nothing));
}

#[test]
fn first_attempt_after_a_doubt_is_the_first() {
    let doubted = Record { is_doubted: true, ..record(3) };
    let in_doubt = written(&doubted, &Ledger::default());
    let now = start() + HOUR;
    let Plan::Ask(attempt) = plan(
        &in_doubt,
        &holds(3),
        &Wish { may_risk: true, ..wish(Cause::Expired) },
        &setup(),
        at(now),
    ) else {
        panic!("not sent")
    };
    let sent = attempt.write.unwrap().sent.unwrap();
    assert_eq!((sent.attempts, sent.first_ms), (1, milliseconds_at(now)));
    assert_eq!(attempt.before.unwrap().attempts, 0);
}

#[test]
fn doubt_does_not_replace_what_is_known() {
    let sent = Record { is_doubted: true, ..with_attempts(&record(3), 2, start()) };
    let setup = Setup { configured: Some(RefreshToken::new("of old")), ..setup() };
    let ledger = Ledger { has_logged: true, ..Ledger::default() };
    let Due::Write(next) = due(Some(&sent), &ledger, &setup).unwrap() else {
        panic!("its turn is not noted")
    };
    assert_eq!(next.sent.as_ref().unwrap().attempts, 2);
}

#[test]
fn unsaved_set_is_stored_unless_it_was_overtaken() {
    let after = |of| Some(Unsaved::Successor { of });
    for (stored, known, unsaved, expected) in [
        (3, 3, None, "nothing"),
        (4, 3, None, "nothing"),
        (2, 3, None, "save 3, in doubt"),
        (2, 3, after(2), "save 3"),
        (2, 4, after(2), "save 4"),
        (1, 3, after(2), "save 3, in doubt"),
        // Its save has counted although the store returned an error. Others may have gone on from there.
        (3, 3, after(2), "saved"),
        (4, 3, after(2), "saved"),
    ] {
        let due = match due_of(&record(stored), &knows(known, unsaved)) {
            Due::Nothing => "nothing".into(),
            Due::Saved => "saved".into(),
            Due::Overtaken => "overtaken".into(),
            Due::Save(next) => format!("save {}{}", next.revision, doubt(&next)),
            Due::Write(next) => format!("write {}{}", next.revision, doubt(&next)),
        };
        assert_eq!(due, expected, "{stored} {known} {unsaved:?}");
    }
    // Another successor of the same set.
    let other = record(2).succeed(current("other"), 3);
    let ledger = Ledger { record: Some(other), unsaved: after(2), ..Ledger::default() };
    for stored in [3, 4] {
        assert!(matches!(due_of(&record(stored), &ledger), Due::Overtaken));
    }
}

fn doubt(record: &Record) -> &'static str {
    if record.sent.is_some() { ", in doubt" } else { "" }
}

#[test]
fn set_of_another_session_is_no_successor_of_the_stored_one() {
    // The store has gone back to before a log-in.
    let mut ledger = knows(4, Some(Unsaved::Successor { of: 3 }));
    let known = ledger.record.as_mut().unwrap();
    (known.epoch, known.login_epoch) = (3, 3);
    let Due::Save(restored) = due_of(&record(3), &ledger) else { panic!("nothing is due") };
    assert_eq!(restored.position(), Position { epoch: 3, revision: 4 });
    assert!(restored.sent.is_some());
}

#[test]
fn record_of_other_credentials_is_not_used_and_not_changed() {
    let mut setup = setup();
    setup.binding = Binding { name: "billing".into(), ..Binding::default() }.shared();
    let error = due(Some(&record(3)), &Ledger::default(), &setup).unwrap_err();
    assert!(error.is_misconfigured());
    // Nothing was obtained with it.
    let unused = Record::new(Binding::default().shared());
    let Due::Write(next) = due(Some(&unused), &Ledger::default(), &setup).unwrap() else {
        panic!("it is not bound")
    };
    assert_eq!(next.binding, setup.binding);
}

// ===== the record =====

/// S10
#[test]
fn first_refresh_tokens_are_remembered_after_many_rotations_in_bounded_space() {
    for rotations in [70, 70_000] {
        let mut record = first(&setup());
        record = log_in(Some(&record), Some(set("login")), start(), &setup());
        for number in 1..=rotations {
            record = record.succeed(current(&format!("n{number}")), record.revision + 1);
        }
        assert!(record.firsts().len() + record.superseded().len() < 200);
        for first in ["configured", "refresh-login"] {
            assert!(record.has_seen(&RefreshToken::new(first)), "{first} {rotations}");
        }
        assert!(has_spent(&record, "login"), "{rotations}");
        assert!(has_spent(&record, &format!("n{}", rotations - 1)));
        // Neither a restart with it nor a log-in sends it.
        let configured = Setup { configured: Some(RefreshToken::new("refresh-login")), ..setup() };
        let due = due(Some(&record), &Ledger::default(), &configured).unwrap();
        assert!(matches!(due, Due::Nothing), "{due:?}");
        assert!(is_brought_back(Some(&record), Some(&set("login"))));
    }
}

/// S10
#[test]
fn configured_refresh_token_is_remembered_after_many_rotations() {
    for rotations in [1, 70, 70_000] {
        let mut record = first(&setup());
        for number in 1..=rotations {
            record = record.succeed(current(&format!("n{number}")), record.revision + 1);
        }
        assert!(record.firsts().len() + record.superseded().len() < 200);
        let configured = RefreshToken::new("configured");
        assert!(record.has_seen(&configured));
        assert_eq!(record.fate(&configured), Fate::Superseded, "{rotations}");
        let brought = TokenSet::bearer("a").unwrap().with_refresh_token("configured");
        assert!(is_brought_back(Some(&record), Some(&brought)));
    }
}

/// S10: sessions do not grow the record either.
#[test]
fn many_sessions_keep_the_record_bounded_and_the_latest_first_tokens() {
    let mut record = first(&setup());
    for number in 1..=1000 {
        let tokens = set(&format!("login-{number}"));
        record = log_in(Some(&record), Some(tokens), start(), &setup());
        record = record.succeed(current(&format!("next-{number}")), record.revision + 1);
    }
    assert!(record.firsts().len() + record.superseded().len() < 200);
    assert!(record.has_seen(&RefreshToken::new("configured")));
    for number in [999, 1000] {
        assert!(has_spent(&record, &format!("login-{number}")));
    }
}

#[test]
fn only_the_latest_refresh_tokens_are_remembered() {
    let mut record = first(&setup());
    for number in 0..=64 {
        record.supersede(record.key.of(&RefreshToken::new(format!("refresh-{number}"))));
    }
    assert_eq!(record.superseded().len(), 64);
    assert!(!has_spent(&record, "0") && has_spent(&record, "1") && has_spent(&record, "64"));
}

#[test]
fn fingerprint_identifies_a_token_within_one_record_only() {
    let (one, other) = (record(1), record(1));
    let token = RefreshToken::new("sesame");
    assert_eq!(one.key.of(&token), one.next().key.of(&token));
    assert_ne!(one.key.of(&token), one.key.of(&RefreshToken::new("sesam")));
    assert_ne!(one.key.of(&token), other.key.of(&token));
    assert!(!format!("{one:?}").contains("refresh-t1"));
}
