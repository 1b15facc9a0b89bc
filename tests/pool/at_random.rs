//! Under random uses, evictions, log-outs and drops, a key has one `Credentials`, and never the token of another.
#![allow(clippy::disallowed_types, reason = "a panic fails the test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tower_refresh::store::MemoryStore;
use tower_refresh::testing::ManualClock;
use tower_refresh::{Credentials, CredentialsPool, Renewal, TokenError, TokenSet, TokenSource};

use crate::harness::HOUR;

const KEYS: u8 = 12;

/// Issues tokens with the name of its key. Counts how many of its kind are alive.
struct Named {
    key: u8,
    alive: Arc<AtomicUsize>,
}

impl TokenSource for Named {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        Ok(TokenSet::bearer(format!("of-{}", self.key))?.with_expires_in(HOUR))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u8),
    Release(u8),
    Ask(u8),
    LogIn(u8),
    LogOut(u8),
    Wait(u16),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS;
    let step = prop_oneof![
        key.clone().prop_map(Step::Hold),
        key.clone().prop_map(Step::Release),
        key.clone().prop_map(Step::Ask),
        key.clone().prop_map(Step::Ask),
        key.clone().prop_map(Step::LogIn),
        key.prop_map(Step::LogOut),
        (0_u16..2000).prop_map(Step::Wait),
        Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn key_has_one_credentials_and_never_the_token_of_another(
        steps in steps(),
        capacity in 1_usize..8,
        is_stored in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps, capacity, is_stored));
    }
}

async fn play(steps: Vec<Step>, capacity: usize, is_stored: bool) {
    let alive: Arc<Vec<Arc<AtomicUsize>>> = Arc::new((0..KEYS).map(|_| Arc::default()).collect());
    let stores: Arc<Mutex<HashMap<u8, MemoryStore>>> = Arc::default();
    let clock = ManualClock::new();
    let counted = Arc::clone(&alive);
    let pool = CredentialsPool::builder(move |key: &u8| {
        let alive = Arc::clone(&counted[usize::from(*key)]);
        assert_eq!(alive.fetch_add(1, Ordering::SeqCst), 0, "a second one for {key}");
        let builder = Credentials::builder(Named { key: *key, alive });
        match is_stored {
            true => builder.store(stores.lock().unwrap().entry(*key).or_default().clone()),
            false => builder,
        }
    });
    let idle = Duration::from_secs(1000);
    let pool = pool.capacity(capacity).idle(idle).clock(clock.clone()).build();
    let mut held: Vec<Option<Credentials>> = vec![None; usize::from(KEYS)];
    for step in steps {
        match step {
            Step::Hold(key) => held[usize::from(key)] = Some(pool.get(&key).unwrap()),
            Step::Release(key) => held[usize::from(key)] = None,
            Step::Ask(key) => {
                let tokens = pool.get(&key).unwrap().tokens().await.unwrap();
                let token = tokens.access_token().expose_secret();
                assert_eq!(token.rsplit('-').next().unwrap(), key.to_string());
            }
            Step::LogIn(key) => {
                let tokens = TokenSet::bearer(format!("of-user-{key}")).unwrap();
                pool.log_in(&key, tokens).await.unwrap();
            }
            Step::LogOut(key) => pool.log_out(&key).await.unwrap(),
            Step::Wait(seconds) => clock.advance(Duration::from_secs(seconds.into())),
            Step::Flush => pool.flush().await.unwrap(),
        }
        tokio::task::yield_now().await;
        for (key, held) in held.iter().enumerate() {
            // Held credentials stay in the pool.
            let key = u8::try_from(key).unwrap();
            assert!(held.is_none() || pool.status(&key).is_some(), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_ask_at_once_share_one_credentials() {
    let alive: Arc<Vec<Arc<AtomicUsize>>> = Arc::new((0..KEYS).map(|_| Arc::default()).collect());
    let made: Arc<Vec<AtomicUsize>> = Arc::new((0..KEYS).map(|_| AtomicUsize::new(0)).collect());
    let (counted, counter) = (Arc::clone(&alive), Arc::clone(&made));
    let pool = CredentialsPool::builder(move |key: &u8| {
        let alive = Arc::clone(&counted[usize::from(*key)]);
        alive.fetch_add(1, Ordering::SeqCst);
        counter[usize::from(*key)].fetch_add(1, Ordering::SeqCst);
        Credentials::builder(Named { key: *key, alive })
    });
    let pool = pool.capacity(3).build();
    let held: Arc<Vec<Mutex<Option<Credentials>>>> =
        Arc::new((0..KEYS).map(|_| Mutex::default()).collect());
    let tasks: Vec<_> = (0..4_u64)
        .map(|seed| {
            let (pool, made, held) = (pool.clone(), Arc::clone(&made), Arc::clone(&held));
            tokio::task::spawn_blocking(move || {
                let mut dice = seed * 0x9E37_79B9 + 1;
                for _ in 0..20_000 {
                    dice = dice
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let key = ((dice >> 33) % u64::from(KEYS)) as u8;
                    let credentials = pool.get(&key).unwrap();
                    // While one is held, no other is made. An evicted one may still be being dropped.
                    let number = made[usize::from(key)].load(Ordering::SeqCst);
                    let again = pool.get(&key).unwrap();
                    assert_eq!(made[usize::from(key)].load(Ordering::SeqCst), number);
                    drop(again);
                    let mut held = held[usize::from(key)].lock().unwrap();
                    *held = held.is_none().then_some(credentials);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop((pool, held));
    assert!(alive.iter().all(|alive| alive.load(Ordering::SeqCst) == 0));
}
