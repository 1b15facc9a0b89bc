//! Processes that are killed: at each step of a refresh, and at any moment.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Fault};

use crate::process::Process;
use crate::stage::{
    Kind, Stage, assert_every_reuse_was_reported, is_full, over_all_stores, print_figures,
    replace_by,
};
use crate::steps::{Halt, How, STEPS};
use crate::worker::Orders;

const LIFETIME: Duration = Duration::from_millis(250);

over_all_stores!(
    kill_at_any_step_loses_no_token_and_reports_every_reuse,
    random_kills_lose_no_token_and_report_every_reuse,
);

// ===== at each step =====

/// The step at which a kill loses the successor of a spent token.
const LOSE_AN_ANSWER: [&str; 3] = [UNDER_WAY, "after the answer", "before the save"];

/// The one step at which no process can halt: the server has spent the token, and its response is in transit.
const UNDER_WAY: &str = "under way";

async fn kill_at_any_step_loses_no_token_and_reports_every_reuse(kind: Kind) {
    // In the second refresh, and in the first.
    let skips = if is_full() { [1, 0].as_slice() } else { &[1] };
    for step in STEPS.into_iter().chain([UNDER_WAY]) {
        for &skip in skips {
            let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
            let Some(stage) = Stage::new(kind, server).await else { return };
            kill_at(&stage, step, skip).await;
        }
    }
}

async fn kill_at(stage: &Stage, step: &str, skip: usize) {
    let first = stage.server.issue_refresh_token();
    let orders = stage.orders(first.expose_secret());
    let context = format!("{:?}, {step}, {skip}", stage.place);

    // ===== the kill =====
    let killed = if step == UNDER_WAY {
        let delay = Fault::normal().delay(Duration::from_secs(60)).after_processing();
        let struck = 1 + skip as u64;
        stage.server.token_faults().when(move |number| (number == struck).then(|| delay.clone()));
        let mut process = Process::start(&orders);
        stage.until("it is under way", |counters| counters.token_requests == struck).await;
        process.kill().await;
        process
    } else {
        let halt = Some(Halt { at: step.to_owned(), skip, how: How::Kill });
        let mut process = Process::start(&Orders { halt, ..orders.clone() });
        process.says(1, json!({ "at": step })).await;
        process.dies().await;
        process
    };
    let at_kill = stage.counters();
    let stored = stage.stored().await;
    let was_open = stored.as_ref().is_some_and(|stored| stored.has_open_intent());
    stage.assert_nothing_is_lost(first.expose_secret()).await;
    let token = stored.as_ref().and_then(|stored| stored.refresh_token());
    let token = token.unwrap_or_else(|| first.expose_secret().to_owned());
    let loses = !stage.server.is_unspent(&token);
    assert_eq!(loses, LOSE_AN_ANSWER.contains(&step), "{context}");
    assert!(was_open || !loses, "{context}");

    // ===== the next start =====
    let mut next = Process::start(&orders);
    if loses {
        next.says(1, json!({ "failure": "denied" })).await;
        let counters = stage.counters();
        assert_eq!((counters.refresh_token_reuses, counters.families_revoked), (1, 1), "{context}");
        assert_eq!(counters.token_requests, at_kill.token_requests + 1, "{context}");
        // A new log-in restores the service.
        let said = next.ask(&replace_by(&stage.server.issue(), LIFETIME)).await;
        assert!(said["error"].is_null(), "{context}: {said}");
    }
    let so_far = stage.counters();
    stage
        .until("it goes on", |counters| {
            counters.token_requests_granted >= so_far.token_requests_granted + 2
                && counters.resource_requests_ok > so_far.resource_requests_ok
        })
        .await;
    next.end().await;

    let counters = stage.counters();
    assert_eq!(counters.refresh_token_reuses, u64::from(loses), "{context}: {counters:?}");
    assert_eq!(next.count(&json!({ "event": "unanswered" })) > 0, was_open, "{context}");
    assert_every_reuse_was_reported(&counters, [&killed, &next]);
    stage.assert_nothing_is_lost(first.expose_secret()).await;
}

// ===== at random =====

async fn random_kills_lose_no_token_and_report_every_reuse(kind: Kind) {
    let kills = if is_full() { 500 } else { 50 };
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    // Half of a refresh precedes the use of the token, and half of it follows.
    let delay = Fault::normal().delay(Duration::from_millis(40));
    stage.server.token_faults().when(move |number| {
        Some(if number % 2 == 0 { delay.clone() } else { delay.clone().after_processing() })
    });
    let mut dice = Dice::new();

    let mut configured = stage.server.issue_refresh_token();
    let mut processes: Vec<_> =
        (0..4).map(|_| Process::start(&stage.orders(configured.expose_secret()))).collect();
    let mut dead = Vec::new();
    let (mut log_ins, mut open) = (0_u32, 0_u32);
    let mut last_granted = (0, Instant::now());
    let began = Instant::now();
    while dead.len() < kills {
        sleep(Duration::from_millis(dice.roll(50..100))).await;
        let which = dice.roll(0..4) as usize;
        processes[which].kill().await;
        open += u32::from(stage.stored().await.is_some_and(|stored| stored.has_open_intent()));
        stage.assert_nothing_is_lost(configured.expose_secret()).await;
        let new = Process::start(&stage.orders(configured.expose_secret()));
        dead.push(std::mem::replace(&mut processes[which], new));

        // An ended session, or one with an unknown outcome, requires a log-in. An early log-in is harmless.
        let granted = stage.counters().token_requests_granted;
        if granted != last_granted.0 {
            last_granted = (granted, Instant::now());
        } else if last_granted.1.elapsed() > Duration::from_millis(2500) {
            log_ins += 1;
            last_granted.1 = Instant::now();
            if log_ins % 2 == 0 {
                let tokens = stage.server.issue();
                processes[which].tell(&replace_by(&tokens, LIFETIME)).await;
            } else {
                configured = stage.server.issue_refresh_token();
            }
        }
    }
    let took = began.elapsed();

    // ===== after the kills =====
    let tokens = stage.server.issue();
    let said = processes[0].ask(&replace_by(&tokens, LIFETIME)).await;
    assert!(said["error"].is_null(), "{said}");
    let so_far = stage.counters().token_requests_granted;
    stage.until("it goes on", |counters| counters.token_requests_granted >= so_far + 4).await;
    join_all(processes.iter_mut().map(Process::end)).await;
    stage.assert_nothing_is_lost(configured.expose_secret()).await;

    let counters = stage.counters();
    let all: Vec<_> = dead.iter().chain(&processes).collect();
    let count = |pattern| all.iter().map(|process| process.count(&pattern)).sum::<usize>();
    let in_flight = dead.iter().filter(|process| is_in_flight(process)).count();
    print_figures(&format!(
        "{kind:?}: {kills} kills in {took:.1?}, {in_flight} of them in a flight, {open} with an open intent, reported {} times; {} token requests, {} reuses, {} families revoked, {log_ins} log-ins; {} requests answered, {} failed",
        count(json!({ "event": "unanswered" })),
        counters.token_requests,
        counters.refresh_token_reuses,
        counters.families_revoked,
        counters.resource_requests_ok,
        ["denied", "ambiguous", "transient", "misconfigured", "transport", "401 Unauthorized"]
            .map(|failure| count(json!({ "failure": failure })))
            .iter()
            .sum::<usize>(),
    ));
    assert_eq!(count(json!({ "failure": "misconfigured" })), 0, "a store was not readable");
    assert_every_reuse_was_reported(&counters, all.iter().copied());
}

/// Returns whether the last line of a process announces a token request.
fn is_in_flight(process: &Process) -> bool {
    let said = process.said();
    let last = said.iter().rfind(|line| line.get("sending").is_some() || line["event"].is_string());
    last.is_some_and(|line| line.get("sending").is_some())
}

/// Random numbers whose seed is printed.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};

        let seed = RandomState::new().hash_one(0) | 1;
        println!("seed {seed}");
        Self(seed)
    }

    pub fn roll(&mut self, range: std::ops::Range<u64>) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }
}
