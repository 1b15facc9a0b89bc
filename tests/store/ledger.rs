//! The ledger of one grant decides which refresh token is sent, with a store and without one.
#![allow(clippy::disallowed_types, reason = "a lock between a test and its server")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot};
use tokio_test::{assert_pending, task};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::store::{MemoryStore, StoreError, StoredTokens, TokenStore, WriteId};
use tower_refresh::testing::{ManualClock, TokioClock};
use tower_refresh::{
    Credentials, Event, OnUnavailable, RefreshLayer, RefreshPolicy, Renewal, TokenError, TokenSet,
    TokenSource, source_fn,
};

use crate::scripted::{Answer, Scripted, issued, refused};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn build(source: impl TokenSource, policy: RefreshPolicy, has_store: bool) -> Credentials {
    let builder = Credentials::builder(source).policy(policy);
    match has_store {
        true => builder.store(MemoryStore::new()).build(),
        false => builder.build(),
    }
}

fn brought(refresh_token: &str) -> TokenSet {
    TokenSet::bearer("brought").unwrap().with_refresh_token(refresh_token)
}

/// An API that accepts every token and keeps it.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Vec<String>>>);

impl Api {
    async fn get(&self, credentials: &Credentials) -> Result<(), tower_refresh::BoxError> {
        let seen = Arc::clone(&self.0);
        let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let token = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
            seen.lock().unwrap().push(token.trim_start_matches("Bearer ").to_owned());
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let client = ServiceBuilder::new()
            .layer(RefreshLayer::new(credentials.clone()).origin("https://api.test")?)
            .service(api);
        client.oneshot(Request::get("https://api.test/").body(Full::default())?).await?;
        Ok(())
    }

    fn last(&self) -> String {
        self.0.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

/// While an outcome is unknown, requests go on with a token within its leeway, and a shared refresh token is not sent again.
#[tokio::test]
async fn after_a_lost_answer_requests_are_sent_within_the_leeway() {
    for has_store in [false, true] {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let policy = RefreshPolicy::default()
            .leeway(60 * SECOND)
            .refresh_ahead(100 * SECOND)
            .jitter(Duration::ZERO)
            .clock(clock.clone());
        let credentials = build(server.grant(&clock, "first"), policy, has_store);
        let api = Api::default();
        server.answers(issued(1, 600));
        api.get(&credentials).await.unwrap();

        clock.advance(500 * SECOND);
        server.loses_an_answer();
        api.get(&credentials).await.unwrap();
        credentials.flush().await.unwrap();
        assert_eq!(server.sent(), ["first", "refresh-1"]);
        assert!(credentials.status().error.is_some_and(|error| error.is_ambiguous()));

        if !has_store {
            // Within the leeway it may be sent once more behind the requests, since no store shares it.
            server.loses_an_answer();
        }
        for second in 501..600 {
            clock.advance(SECOND);
            api.get(&credentials).await.unwrap();
            credentials.flush().await.unwrap();
            assert_eq!(api.last(), "access-1", "{has_store} {second}");
            let is_again = second >= 540 && !has_store;
            assert_eq!(server.sent().len(), 2 + usize::from(is_again), "{has_store} {second}");
        }
        clock.advance(120 * SECOND);
        server.answers(issued(2, 600));
        api.get(&credentials).await.unwrap();
        assert_eq!(api.last(), "access-2");
        assert_eq!(server.sent().len(), if has_store { 3 } else { 4 });
        assert!(server.sent()[1..].iter().all(|sent| sent == "refresh-1"));
    }
}

/// After two unknown outcomes the refresh token may be sent again after a minute. Requests meanwhile do not delay that.
#[tokio::test]
async fn requests_in_the_pause_after_lost_answers_do_not_extend_it() {
    for has_store in [false, true] {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let policy = RefreshPolicy::default().clock(clock.clone());
        let credentials = build(server.grant(&clock, "first"), policy, has_store);
        let api = Api::default();
        server.answers(issued(1, 600));
        api.get(&credentials).await.unwrap();
        clock.advance(600 * SECOND);
        for _ in 0..2 {
            server.loses_an_answer();
            api.get(&credentials).await.unwrap_err();
            clock.advance(2 * SECOND);
        }
        assert_eq!(credentials.status().next_refresh, Some(58 * SECOND), "{has_store}");
        let sent = server.sent().len();
        for second in 3..60 {
            clock.advance(SECOND);
            api.get(&credentials).await.unwrap_err();
            let left = Duration::from_secs(60 - second);
            assert_eq!(credentials.status().next_refresh, Some(left), "{has_store}");
        }
        assert!(credentials.refresh_now().await.unwrap_err().is_ambiguous());
        assert_eq!(server.sent().len(), sent);
        server.answers(issued(2, 600));
        clock.advance(SECOND);
        api.get(&credentials).await.unwrap();
    }
}

#[tokio::test]
async fn log_in_elsewhere_ends_the_pause_after_lost_answers() {
    let server = Scripted::default();
    let clock = ManualClock::new();
    let store = MemoryStore::new();
    let start = || {
        let builder = Credentials::builder(server.grant(&clock, "first")).clock(clock.clone());
        builder.store(store.clone()).build()
    };
    let (credentials, elsewhere) = (start(), start());
    let api = Api::default();
    server.answers(issued(1, 600));
    api.get(&credentials).await.unwrap();
    clock.advance(600 * SECOND);
    for _ in 0..2 {
        server.loses_an_answer();
        api.get(&credentials).await.unwrap_err();
        clock.advance(2 * SECOND);
    }
    api.get(&credentials).await.unwrap_err();
    elsewhere.log_in(brought("login").with_expires_in(600 * SECOND)).await.unwrap();
    clock.advance(5 * SECOND);
    // This request belongs to the last session.
    let error = api.get(&credentials).await.unwrap_err();
    assert!(error.downcast_ref().is_some_and(TokenError::is_session_over), "{error}");
    api.get(&credentials).await.unwrap();
    assert_eq!((api.last().as_str(), server.sent().len()), ("brought", 3));
}

#[tokio::test]
async fn pause_after_lost_answers_is_not_one_of_credentials_that_ask_these() {
    let server = Scripted::default();
    let clock = ManualClock::new();
    let builder = Credentials::builder(server.grant(&clock, "first"));
    let asked = builder.clock(clock.clone()).build();
    let source = {
        let asked = asked.clone();
        source_fn(move |_| {
            let asked = asked.clone();
            async move { asked.tokens().await }
        })
    };
    let credentials = Credentials::builder(source).clock(clock.clone()).build();
    for _ in 0..2 {
        server.loses_an_answer();
        asked.tokens().await.unwrap_err();
        clock.advance(2 * SECOND);
    }
    assert!(credentials.tokens().await.unwrap_err().is_ambiguous());
    asked.log_in(brought("login").with_expires_in(600 * SECOND)).await.unwrap();
    clock.advance(5 * SECOND);
    credentials.tokens().await.unwrap();
}

/// S10
#[tokio::test]
async fn first_refresh_tokens_are_not_sent_again_after_many_rotations() {
    for has_store in [false, true] {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let store = MemoryStore::new();
        let start = |configured: &str| {
            let builder =
                Credentials::builder(server.grant(&clock, configured)).clock(clock.clone());
            match has_store {
                true => builder.store(store.clone()).build(),
                false => builder.build(),
            }
        };
        let credentials = start("configured");
        let rotate = async |numbers: std::ops::RangeInclusive<u32>| {
            for number in numbers {
                server.answers(issued(number, 3600));
                credentials.refresh().await.unwrap();
            }
        };
        rotate(1..=70).await;
        assert_eq!(credentials.log_in(brought("configured")).await.is_err(), has_store);
        credentials.log_in(brought("login")).await.unwrap();
        rotate(101..=170).await;
        for first in ["configured", "login"] {
            assert_eq!(credentials.log_in(brought(first)).await.is_err(), has_store);
            // With a store, the session that is stored goes on.
            server.answers(issued(180, 3600));
            assert_eq!(credentials.refresh().await.is_ok(), has_store);
            clock.advance(SECOND * 3600);
        }
        if has_store {
            for first in ["configured", "login"] {
                server.answers(issued(200, 1));
                let _ = start(first).tokens().await;
            }
            let size = store.load().await.unwrap().unwrap().to_json().unwrap().len();
            assert!(size < 10_000, "{size}");
        }
        for first in ["configured", "login"] {
            let times = server.sent().into_iter().filter(|sent| sent == first).count();
            assert_eq!(times, 1, "{has_store} {first}");
        }
    }
}

/// Starts two refreshes, of which the first is declared lost. Returns the ways to answer them.
async fn two_late(
    server: &Scripted,
    clock: &ManualClock,
    credentials: &Credentials,
) -> [oneshot::Sender<Answer>; 2] {
    let answers = [server.answers_later(), server.answers_later()];
    let mut waiting = [1, 2].map(|_| None);
    for (number, waiting) in waiting.iter_mut().enumerate() {
        let waiting = waiting.insert(task::spawn(credentials.tokens()));
        assert_pending!(waiting.poll());
        while server.sent().len() <= number {
            tokio::task::yield_now().await;
        }
        // Longer than ten timeouts.
        clock.advance(301 * SECOND);
    }
    assert_eq!(server.sent(), ["first", "first"]);
    answers
}

/// S14: a step of the wall clock does not end a refresh that is still sending.
#[tokio::test]
async fn wall_clock_step_does_not_resend_a_token_in_flight() {
    let steps: [fn(&ManualClock); 2] =
        [|clock| clock.rewind_wall(60 * SECOND), |clock| clock.advance_wall(600 * SECOND)];
    for step in steps {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let policy = RefreshPolicy::default().timeout(5 * SECOND).clock(clock.clone());
        let credentials = build(server.grant(&clock, "first"), policy, false);
        let _late = server.answers_later();
        server.answers(issued(1, 3600));
        let mut waiting = task::spawn(credentials.tokens());
        assert_pending!(waiting.poll());
        while server.sent().is_empty() {
            tokio::task::yield_now().await;
        }
        step(&clock);
        // Longer than ten timeouts.
        clock.advance(51 * SECOND);
        let _ = credentials.tokens().await;
        assert_eq!(server.sent(), ["first"]);
    }
}

async fn answer(late: oneshot::Sender<Answer>, answer: Answer) {
    late.send(answer).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// S15
#[tokio::test]
async fn of_two_late_answers_the_one_that_was_asked_for_later_is_used() {
    for (is_first_first, is_offline) in [(true, false), (false, false), (true, true), (false, true)]
    {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let builder = Credentials::builder(server.grant(&clock, "first")).clock(clock.clone());
        let credentials = if is_offline {
            let store = World::new().store();
            store.go_down();
            builder.store(store).on_unavailable(OnUnavailable::Continue).build()
        } else {
            builder.build()
        };
        let answers = two_late(&server, &clock, &credentials).await;
        let mut answers = answers.into_iter().zip([1, 2]).collect::<Vec<_>>();
        if !is_first_first {
            answers.reverse();
        }
        for (late, number) in answers {
            answer(late, issued(number, 36000)).await;
        }
        let tokens = credentials.tokens().await.unwrap();
        let case = (is_first_first, is_offline);
        assert_eq!(tokens.access_token().expose_secret(), "access-2", "{case:?}");
        server.answers(issued(3, 3600));
        credentials.refresh().await.unwrap();
        assert_eq!(server.sent(), ["first", "first", "refresh-2"], "{case:?}");
    }
}

#[tokio::test]
async fn refresh_token_of_a_late_useless_answer_is_kept() {
    let server = Scripted::default();
    let clock = ManualClock::new();
    let policy = RefreshPolicy::default().clock(clock.clone());
    let credentials = build(server.grant(&clock, "first"), policy, false);
    let mut events = credentials.subscribe();
    let [first, second] = two_late(&server, &clock, &credentials).await;
    answer(first, (200, r#"{"refresh_token":"refresh-1"}"#.to_owned())).await;
    server.answers(issued(3, 3600));
    answer(second, refused()).await;
    credentials.tokens().await.unwrap();
    assert_eq!(server.sent(), ["first", "first", "refresh-1"]);
    while let Some(Some(event)) = events.recv().now_or_never() {
        assert!(!matches!(event, Event::Unsaved { .. }), "there is no store");
    }
}

/// A store whose answer to one save is lost. Another process then writes the same token set again, for example with an intent.
#[derive(Clone)]
struct Busy(MemoryStore, &'static str);

impl TokenStore for Busy {
    type Lock = <MemoryStore as TokenStore>::Lock;

    async fn lock(&self, wait: Duration) -> Result<Self::Lock, StoreError> {
        self.0.lock(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.0.load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        self.0.save(record, replaces).await?;
        let mut json: serde_json::Value = serde_json::from_slice(&record.to_json()?).unwrap();
        if !json.to_string().contains(self.1) {
            return Ok(());
        }
        json["write_id"] = "00000000000000000000000000000001".into();
        let again = StoredTokens::from_json(json.to_string().as_bytes())?;
        self.0.save(&again, Some(record.write_id())).await?;
        Err(StoreError::unavailable("the answer was lost"))
    }
}

#[tokio::test]
async fn saved_tokens_of_a_fallback_are_used_without_a_lifetime() {
    let log_in = source_fn(|_| async {
        Ok(TokenSet::bearer("logged-in")?
            .with_expires_in(Duration::ZERO)
            .with_refresh_token("login"))
    });
    let (server, clock) = (Scripted::default(), ManualClock::new());
    let credentials = Credentials::builder(server.grant(&clock, "first").or_else(log_in))
        .store(Busy(MemoryStore::new(), "logged-in"))
        .clock(clock.clone())
        .build();
    server.answers(issued(1, 600));
    credentials.warm_up().await.unwrap();
    clock.advance(600 * SECOND);
    server.answers(refused());
    let tokens = credentials.tokens().await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "logged-in");
}

#[tokio::test]
async fn tokens_of_a_fallback_begin_a_session_and_are_stored() {
    let server = Scripted::default();
    let clock = ManualClock::new();
    let store = MemoryStore::new();
    let api = Api::default();
    let start = || {
        let log_in = source_fn(|_| async {
            Ok(TokenSet::bearer("logged-in")?
                .with_expires_in(600 * SECOND)
                .with_refresh_token("login"))
        });
        Credentials::builder(server.grant(&clock, "first").or_else(log_in))
            .store(store.clone())
            .clock(clock.clone())
            .build()
    };
    let credentials = start();
    server.answers(issued(1, 600));
    api.get(&credentials).await.unwrap();
    let epoch = async || store.load().await.unwrap().unwrap().epoch();
    assert_eq!(epoch().await, 1);

    clock.advance(600 * SECOND);
    server.answers(refused());
    // The requests that wait are served.
    let all = join_all((0..20).map(|_| api.get(&credentials))).await;
    assert!(all.into_iter().all(|served| served.is_ok()));
    assert_eq!(api.last(), "logged-in");
    assert_eq!(server.sent(), ["first", "refresh-1"]);
    assert_eq!(epoch().await, 2);

    // As after a restart.
    let restarted = start();
    let tokens = restarted.tokens().await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "logged-in");
    server.answers(issued(3, 600));
    restarted.refresh().await.unwrap();
    assert_eq!(server.sent(), ["first", "refresh-1", "login"]);
    assert_eq!(epoch().await, 2);
    // The refused one is not sent again, although its session has ended.
    assert!(restarted.log_in(brought("refresh-1")).await.unwrap_err().is_denied());
}

#[test]
fn log_in_is_not_lost_with_its_runtime() {
    for has_store in [false, true] {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let server = Scripted::default();
        let clock = ManualClock::new();
        let policy = RefreshPolicy::default().clock(clock.clone());
        let credentials = build(server.grant(&clock, "first"), policy, has_store);
        let first = runtime();
        let late = first.block_on(async {
            server.answers(issued(1, 600));
            credentials.tokens().await.unwrap();
            let late = server.answers_later();
            let mut renewing = task::spawn(credentials.refresh());
            assert_pending!(renewing.poll());
            while server.sent().len() < 2 {
                tokio::task::yield_now().await;
            }
            // Waits for the end of the refresh.
            let mut logging_in = task::spawn(credentials.log_in(brought("login")));
            assert_pending!(logging_in.poll());
            tokio::task::yield_now().await;
            late
        });
        drop((first, late));
        runtime().block_on(async {
            let tokens = credentials.tokens().await.unwrap();
            assert_eq!(tokens.access_token().expose_secret(), "brought");
            server.answers(issued(2, 600));
            credentials.refresh().await.unwrap();
            assert_eq!(server.sent(), ["first", "refresh-1", "login"], "{has_store}");
        });
    }
}

/// A log-in does not change what has become of a refresh token.
#[tokio::test]
async fn refused_refresh_token_is_not_sent_again_after_two_log_ins() {
    for has_store in [false, true] {
        let server = Scripted::default();
        let clock = ManualClock::new();
        let policy = RefreshPolicy::default().clock(clock.clone());
        let credentials = build(server.grant(&clock, "first"), policy, has_store);
        server.answers(refused());
        credentials.tokens().await.unwrap_err();
        credentials.log_in(brought("login")).await.unwrap();
        let again = credentials.log_in(brought("first")).await;
        assert_eq!(again.is_err(), has_store);
        // With a store, this finds the log-in before.
        assert_eq!(credentials.refresh().await.is_ok(), has_store);
        assert_eq!(server.sent(), ["first"]);
    }
}

/// A refresh that was declared lost ends after a log-in, and changes nothing.
#[tokio::test(start_paused = true)]
async fn log_in_is_refreshed_after_a_late_answer_of_another_session() {
    for has_store in [false, true] {
        let (ask, mut asked) = mpsc::unbounded_channel();
        let mut next =
            async || tokio::time::timeout(60 * SECOND, asked.recv()).await.unwrap().unwrap();
        let source = source_fn(move |renewal: Renewal| {
            let ask = ask.clone();
            async move {
                let (answer, answered) = oneshot::channel();
                let sent = renewal.refresh_token().ok().map(|it| it.expose_secret().to_owned());
                ask.send((sent, answer)).unwrap();
                Ok::<TokenSet, TokenError>(answered.await.unwrap())
            }
        });
        let policy = RefreshPolicy::default().clock(TokioClock::new());
        let credentials = build(source, policy, has_store);
        let renew = || {
            let credentials = credentials.clone();
            tokio::spawn(async move { credentials.refresh().await })
        };
        let first = renew();
        next().await.1.send(brought("first")).unwrap();
        first.await.unwrap().unwrap();

        drop(renew());
        let (_, late) = next().await;
        // It waits for as long as the answer may take.
        credentials.log_in(brought("login")).await.unwrap();
        let _ = late.send(brought("late"));
        tokio::time::sleep(SECOND).await;
        let last = renew();
        let (sent, answer) = next().await;
        assert_eq!(sent.as_deref(), Some("login"), "{has_store}");
        answer.send(brought("last")).unwrap();
        assert!(last.await.unwrap().is_ok());
    }
}
