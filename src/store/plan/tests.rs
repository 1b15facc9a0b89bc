//! The decisions, in tables.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn set(name: &str) -> TokenSet {
    TokenSet::bearer(name)
        .unwrap()
        .with_expires_in(HOUR)
        .with_refresh_token(format!("refresh-{name}"))
}

fn setup() -> Setup {
    Setup {
        binding: Binding::default(),
        configured: Some(RefreshToken::new("configured")),
        rotates: true,
        reuse_grace: None,
        store: "the store".into(),
    }
}

/// A record after so many renewals.
fn record(revision: u64) -> StoredTokens {
    (1..=revision).fold(first(&setup()).unwrap(), |record, revision| {
        succeed(&record, &set(&format!("t{revision}")), start(), revision).unwrap()
    })
}

fn with_intent(record: &StoredTokens, attempt: u32, sent: SystemTime) -> StoredTokens {
    let mut next = record.next();
    let by = next.write_id();
    let content = next.content_mut().unwrap();
    let token = content.tokens.as_ref().and_then(StoredSet::refresh_token).unwrap();
    let token = content.fingerprint(&token);
    let sent = milliseconds_at(sent);
    content.intent = Some(Intent { token, by, attempt, first_sent_ms: sent, last_sent_ms: sent });
    next
}

fn held(revision: u64, saved: Saved) -> Memory {
    let stored_as = StoredAs { epoch: 1, revision };
    let tokens = set(&format!("t{revision}"));
    let held = Held { stored_as, tokens, asked: start(), saved };
    Memory { held: Some(held), ..Memory::default() }
}

fn wish(cause: Cause, has: u64) -> Wish {
    let has = Some(StoredAs { epoch: 1, revision: has }).filter(|_| cause != Cause::Missing);
    Wish { cause, has, is_hurried: false }
}

/// What is to be done, in a word; and with which access token.
fn planned(record: &StoredTokens, wish: &Wish, setup: &Setup, now: SystemTime) -> String {
    let access = |tokens: &TokenSet| tokens.access_token().expose_secret().to_owned();
    match plan(Some(record), &Memory::default(), wish, setup, now).unwrap() {
        Plan::Adopt(tokens) => format!("adopt {}", access(&tokens)),
        Plan::Spend(spending) => format!("spend {}", access(&spending.previous.unwrap())),
        Plan::Ask { .. } => "ask".into(),
        Plan::AskWithout => "ask without".into(),
        Plan::Refuse(error) if error.is_ambiguous() => "ambiguous".into(),
        Plan::Refuse(error) => panic!("{error}"),
    }
}

const CAUSES: [Cause; 5] =
    [Cause::Missing, Cause::Expiring, Cause::Expired, Cause::Rejected, Cause::Forced];

#[test]
fn only_what_is_newer_and_works_is_adopted() {
    let record = record(3);
    for cause in CAUSES {
        let planned = |has, now| planned(&record, &wish(cause, has), &setup(), now);
        assert_eq!(planned(2, start()), "adopt t3", "{cause:?}");
        assert_eq!(planned(2, start() + HOUR), "spend t3", "{cause:?}");
        let same = if cause == Cause::Missing { "adopt t3" } else { "spend t3" };
        assert_eq!(planned(3, start()), same, "{cause:?}");
        assert_eq!(planned(4, start()), same, "{cause:?}");
    }
}

#[test]
fn a_refresh_token_of_unknown_fate_waits_for_the_end_of_the_access_token() {
    let record = with_intent(&record(3), 1, start());
    for cause in CAUSES {
        let expected = match cause {
            Cause::Missing => "adopt t3",
            Cause::Rejected => "spend t3",
            _ => "ambiguous",
        };
        assert_eq!(planned(&record, &wish(cause, 3), &setup(), start()), expected, "{cause:?}");
        let ended = planned(&record, &wish(cause, 3), &setup(), start() + HOUR);
        assert_eq!(ended, "spend t3", "{cause:?}");
    }
}

#[test]
fn attempts_are_further_and_further_apart() {
    for (attempt, pause) in [(0, 0), (1, 0), (2, 60), (3, 120), (5, 480), (6, 900), (99, 900)] {
        let sent = start() + HOUR;
        let record = with_intent(&record(3), attempt, sent);
        let after = |seconds| {
            let now = sent + Duration::from_secs(seconds);
            planned(&record, &wish(Cause::Expired, 3), &setup(), now)
        };
        assert_eq!(after(pause), "spend t3", "{attempt}");
        if pause > 0 {
            assert_eq!(after(pause - 1), "ambiguous", "{attempt}");
        }
    }
}

#[test]
fn a_clock_that_was_far_ahead_locks_nobody_out() {
    let day = Duration::from_secs(86400);
    let now = start() + day;
    for sent in [now + day, now + day * 365, time_of_day(u64::MAX)] {
        let record = with_intent(&record(3), 4, sent);
        let found = planned(&record, &wish(Cause::Expired, 3), &setup(), now);
        assert_eq!(found, "spend t3", "{sent:?}");
    }
}

#[test]
fn a_rejected_token_whose_refresh_token_was_replaced_is_not_waited_for() {
    let replaced =
        replace_refresh_token(&record(3), &RefreshToken::new("successor"), start()).unwrap();
    let record = with_intent(&replaced, 1, start());
    assert_eq!(record.revision(), 4);
    let found = planned(&record, &wish(Cause::Rejected, 3), &setup(), start());
    assert_eq!(found, "spend t3");
}

#[test]
fn a_grace_window_is_used_where_it_is_open_by_either_clock() {
    let setup = Setup { reuse_grace: Some(Duration::from_secs(10)), ..setup() };
    let sent = start() + Duration::from_secs(100);
    let record = with_intent(&record(3), 1, sent);
    // By a clock that shows so many seconds after what was written down.
    for (seconds, expected) in [
        (-60, "ambiguous"),
        (-6, "ambiguous"),
        (-5, "spend t3"),
        (0, "spend t3"),
        (4, "spend t3"),
        (5, "ambiguous"),
        (10, "ambiguous"),
    ] {
        let now = start() + Duration::from_secs(100_u64.saturating_add_signed(seconds));
        let found = planned(&record, &wish(Cause::Forced, 3), &setup, now);
        assert_eq!(found, expected, "{seconds}");
    }
    let record = with_intent(&record, 2, sent);
    assert_eq!(planned(&record, &wish(Cause::Forced, 3), &setup, sent), "ambiguous");
}

fn log_in(tokens: Option<TokenSet>, at: SystemTime, begun: Begun) -> Memory {
    let session = Session { number: 1, tokens, at, begun };
    Memory { session: Some(session), ..Memory::default() }
}

fn written(record: &StoredTokens, memory: &Memory) -> StoredTokens {
    match due(Some(record), memory, &setup()).unwrap() {
        Due::Write(next) => next,
        due => panic!("{due:?}"),
    }
}

#[test]
fn a_log_in_is_stored_although_the_clock_went_back_and_a_late_one_only_if_it_is_the_later() {
    let noon = start() + HOUR;
    let record = written(&record(3), &log_in(Some(set("noon")), noon, Begun::Now));
    assert_eq!(record.stored_as(), StoredAs { epoch: 2, revision: 4 });
    for (begun, at, is_stored) in [
        (Begun::Now, start(), true),
        (Begun::Late, start(), false),
        (Begun::WithoutStore, start(), false),
        (Begun::Late, noon + HOUR, true),
        // Nobody logged out: it may have come of an attempt that was killed.
        (Begun::WithoutStore, noon + HOUR, true),
    ] {
        let memory = log_in(Some(set("other")), at, begun);
        let due = due(Some(&record), &memory, &setup()).unwrap();
        assert_eq!(matches!(due, Due::Write(_)), is_stored, "{begun:?}");
    }
}

#[test]
fn what_was_redeemed_without_the_store_ends_no_log_out_unless_it_was_configured_after_it() {
    let record = written(&record(3), &log_in(None, start(), Begun::Now));
    let memory = log_in(Some(set("other")), start() + HOUR, Begun::WithoutStore);
    assert!(matches!(due(Some(&record), &memory, &setup()).unwrap(), Due::Drop));
    let later = Setup { configured: Some(RefreshToken::new("later")), ..setup() };
    assert!(matches!(due(Some(&record), &memory, &later).unwrap(), Due::Write(_)));
}

#[test]
fn a_log_in_keeps_what_is_known_of_the_token_that_it_brings_and_spends_what_is_in_flight() {
    let sent = with_intent(&record(3), 1, start());
    let again = written(&sent, &log_in(Some(set("t3")), start(), Begun::Now));
    assert!(again.has_open_intent());
    let other = written(&sent, &log_in(Some(set("other")), start(), Begun::Now));
    assert!(!other.has_open_intent());
    assert!(is_spent(&other, Some(&set("t3"))).unwrap());

    let denied = RefreshToken::new("refresh-t3");
    let refused = deny(&record(3), &denied, &setup()).unwrap().unwrap();
    for (name, is_known) in [("t3", true), ("other", false)] {
        let next = written(&refused, &log_in(Some(set(name)), start(), Begun::Now));
        assert_eq!(next.content().unwrap().denied.is_some(), is_known, "{name}");
    }
}

#[test]
fn a_refresh_token_that_the_server_issues_again_is_sent_again() {
    let again = succeed(&record(2), &set("t1"), start(), 3).unwrap();
    let expired = start() + HOUR;
    let plan = planned(&again, &wish(Cause::Expired, 3), &setup(), expired);
    assert_eq!(plan, "spend t1");
}

#[test]
fn a_successor_ends_the_log_out_and_the_intent_and_spends_its_parent() {
    let record = with_intent(&record(3), 1, start());
    for next in [
        succeed(&record, &set("t4"), start(), 4).unwrap(),
        replace_refresh_token(&record, &RefreshToken::new("refresh-t4"), start()).unwrap(),
    ] {
        assert!(!next.has_open_intent());
        assert!(is_spent(&next, Some(&set("t3"))).unwrap());
        assert!(!is_spent(&next, Some(&set("t4"))).unwrap());
    }
    let same = succeed(&record, &set("t3"), start(), 4).unwrap();
    assert!(!is_spent(&same, Some(&set("t3"))).unwrap());

    let logged_out = written(&record, &log_in(None, start(), Begun::Now));
    assert!(logged_out.content().unwrap().is_forgotten);
    let another_way = succeed(&logged_out, &set("t5"), start(), 6).unwrap();
    assert!(!another_way.content().unwrap().is_forgotten);
}

#[test]
fn an_intent_is_about_its_own_token_and_taken_back_by_its_own_writer() {
    let sent = with_intent(&record(3), 1, start());
    let intent = sent.content().unwrap().intent.clone().unwrap();
    assert!(take_back(&sent, WriteId::random(), None).unwrap().is_none());
    let before = Intent { attempt: 7, ..intent.clone() };
    let back = take_back(&sent, intent.by, Some(&before)).unwrap().unwrap();
    assert_eq!(back.content().unwrap().intent, Some(before));

    let mut other = record(3).next();
    let other_token = other.content().unwrap().fingerprint(&RefreshToken::new("other"));
    other.content_mut().unwrap().intent = Some(Intent { token: other_token, ..intent });
    assert_eq!(planned(&other, &wish(Cause::Forced, 3), &setup(), start()), "spend t3");
}

#[test]
fn what_was_unsaved_is_handed_out_again_only_to_whoever_has_it_renewed_early() {
    for cause in CAUSES {
        let wish = Wish { is_hurried: true, ..wish(cause, 3) };
        let expected = match cause {
            Cause::Missing | Cause::Expiring => "adopt t3",
            _ => "spend t3",
        };
        assert_eq!(planned(&record(3), &wish, &setup(), start()), expected, "{cause:?}");
    }
}

#[test]
fn nobody_waits_for_the_end_of_an_access_token_that_has_none() {
    let endless = TokenSet::bearer("endless").unwrap().with_refresh_token("refresh");
    let record = succeed(&record(3), &endless, start(), 4).unwrap();
    let record = with_intent(&record, 1, start());
    let found = planned(&record, &wish(Cause::Forced, 4), &setup(), start());
    assert_eq!(found, "spend endless");
}

#[test]
fn what_is_brought_back_is_in_doubt_only_where_a_token_may_rotate() {
    for rotates in [true, false] {
        let setup = Setup { rotates, ..setup() };
        let due = due(Some(&record(2)), &held(3, Saved::Yes), &setup).unwrap();
        let Due::Write(next) = due else { panic!("{due:?}") };
        assert_eq!(next.has_open_intent(), rotates);
    }
}

#[test]
fn a_doubt_is_written_down_once_and_only_where_a_token_may_rotate() {
    let doubted = record(3).doubted();
    let in_doubt = written(&doubted, &Memory::default());
    assert!(in_doubt.has_open_intent());
    let sent = with_intent(&record(3), 2, start()).doubted();
    assert!(matches!(due(Some(&sent), &Memory::default(), &setup()).unwrap(), Due::Nothing));
    let setup = Setup { rotates: false, ..setup() };
    assert!(matches!(due(Some(&doubted), &Memory::default(), &setup).unwrap(), Due::Nothing));
}

#[test]
fn what_is_held_is_stored_unless_it_was_overtaken() {
    for (stored, held_as, saved, expected) in [
        (3, 3, Saved::Yes, "nothing"),
        (4, 3, Saved::Yes, "nothing"),
        (2, 3, Saved::Yes, "write 3, in doubt"),
        (2, 3, Saved::After(2), "write 3"),
        (2, 4, Saved::After(2), "write 4"),
        (1, 3, Saved::After(2), "write 3, in doubt"),
        // Its save counted, and its answer was lost. Others may have gone on from there.
        (3, 3, Saved::After(2), "found"),
        (4, 3, Saved::After(2), "found"),
    ] {
        let due = due(Some(&record(stored)), &held(held_as, saved), &setup()).unwrap();
        let due = match due {
            Due::Nothing => "nothing".into(),
            Due::Found => "found".into(),
            Due::Drop => "drop".into(),
            Due::Write(next) => {
                let doubt = if next.has_open_intent() { ", in doubt" } else { "" };
                format!("write {}{doubt}", next.revision())
            }
        };
        assert_eq!(due, expected, "{stored} {held_as} {saved:?}");
    }
    // Another successor of the same set.
    let mut memory = held(3, Saved::After(2));
    memory.held.as_mut().unwrap().tokens = set("other");
    for stored in [3, 4] {
        assert!(matches!(due(Some(&record(stored)), &memory, &setup()).unwrap(), Due::Drop));
    }
}

#[test]
fn a_set_of_another_session_is_no_successor_of_what_is_stored() {
    // The store has gone back to before a log-in.
    let mut memory = held(4, Saved::After(3));
    memory.held.as_mut().unwrap().stored_as.epoch = 2;
    let Due::Write(restored) = due(Some(&record(3)), &memory, &setup()).unwrap() else {
        panic!("nothing is due")
    };
    assert_eq!(restored.stored_as(), StoredAs { epoch: 2, revision: 4 });
    assert!(restored.has_open_intent());
}

#[test]
fn the_first_sending_after_a_doubt_is_the_first() {
    let Due::Write(doubted) =
        due(Some(&record(3).doubted()), &Memory::default(), &setup()).unwrap()
    else {
        panic!("the doubt is not written down")
    };
    let now = start() + HOUR;
    let wish = wish(Cause::Expired, 3);
    let Plan::Spend(spending) =
        plan(Some(&doubted), &Memory::default(), &wish, &setup(), now).unwrap()
    else {
        panic!("not sent")
    };
    let content = spending.intent.content().unwrap();
    let intent = content.intent.as_ref().unwrap();
    assert_eq!((intent.attempt, intent.first_sent_ms), (1, milliseconds_at(now)));
}

#[test]
fn a_doubt_does_not_take_the_place_of_what_is_known() {
    let sent = with_intent(&record(3), 2, start());
    let mut setup = setup();
    setup.configured = Some(RefreshToken::new("of old"));
    let memory = Memory { had_turn: true, ..Memory::default() };
    let Due::Write(next) = due(Some(&sent.doubted()), &memory, &setup).unwrap() else {
        panic!("the token of old is not passed over")
    };
    assert_eq!(next.content().unwrap().intent.as_ref().unwrap().attempt, 2);
}

/// N9
#[test]
fn refusal_after_an_unknown_outcome_names_the_time_of_the_next_attempt() {
    let sent = start() + 2 * HOUR;
    for (attempts, pause) in [(2, 60), (3, 120), (20, 900)] {
        let record = with_intent(&record(1), attempts, sent);
        let wish = wish(Cause::Expired, 1);
        let now = sent + Duration::from_secs(10);
        let plan = plan(Some(&record), &Memory::default(), &wish, &setup(), now).unwrap();
        let Plan::Refuse(error) = plan else { panic!("{plan:?}") };
        let next = httpdate::fmt_http_date(sent + Duration::from_secs(pause));
        assert!(error.to_string().ends_with(&next), "{error}");
    }
}
