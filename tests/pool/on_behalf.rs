//! Tokens on behalf of users, in pools by user and audience.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{advance, timeout};
use tower_refresh::oauth2::{SecurityToken, TokenEndpoint, TokenExchangeGrant};
use tower_refresh::testing::Fault;
use tower_refresh::{Credentials, CredentialsPool, Event, Renewal, TokenError, TokenSet};

use crate::harness::{MINUTE, SECOND, let_others_run, policy};
use crate::users::{Users, names};

type Pair = (String, &'static str);

fn endpoint(users: &Users) -> TokenEndpoint {
    TokenEndpoint::new(users.server.token_service(), "https://auth.test/token").unwrap()
}

/// The users, and the pairs of a user and an audience.
fn pools(users: &Users) -> (CredentialsPool<String>, CredentialsPool<Pair>) {
    let of = users.clone();
    let subjects = CredentialsPool::builder(move |user: &String| of.stored(user)).build();
    let (of, endpoint) = (subjects.clone(), endpoint(users));
    let pairs = CredentialsPool::builder(move |(user, audience): &Pair| {
        let exchange = TokenExchangeGrant::new(endpoint.clone(), of.get(user)?).audience(*audience);
        Ok(Credentials::builder(exchange).policy(policy()))
    });
    (subjects, pairs.build())
}

const AUDIENCES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn pairs(number: usize) -> Vec<Pair> {
    let pairs = |user: String| AUDIENCES.map(move |audience| (user.clone(), audience));
    names(number).into_iter().flat_map(pairs).collect()
}

#[tokio::test(start_paused = true)]
async fn thousand_pairs_at_once_ask_each_user_once() {
    let users = Users::new();
    let (_subjects, exchanged) = pools(&users);
    let all: Vec<_> = pairs(100).iter().map(|pair| exchanged.get(pair).unwrap()).collect();
    users.server.token_faults().always(Fault::normal().delay(Duration::from_millis(50)));
    for tokens in join_all(all.iter().map(Credentials::tokens)).await {
        tokens.unwrap();
    }
    let counters = users.server.counters();
    assert_eq!((counters.refresh_token_requests, counters.token_exchange_requests), (100, 1000));
    assert!(counters.max_concurrent_token_requests <= 64);

    // All tokens are revoked: each exchange is refused once at most, and each user is asked once more.
    users.server.revoke_all_access_tokens();
    for tokens in join_all(all.iter().map(Credentials::refresh)).await {
        let tokens = tokens.unwrap();
        assert!(users.server.is_live(tokens.access_token().expose_secret()));
    }
    let counters = users.server.counters();
    assert_eq!(counters.refresh_token_requests, 200);
    assert!(counters.token_exchange_requests <= 3000, "{counters:?}");
    users.assert_no_reuse();
}

/// A pool with both: the key `self` has the tokens of the user.
fn one_pool(users: &Users, refreshes: usize) -> CredentialsPool<Pair> {
    let (of, endpoint) = (users.clone(), endpoint(users));
    let itself: Arc<OnceLock<CredentialsPool<Pair>>> = Arc::default();
    let pool = Arc::clone(&itself);
    let made = CredentialsPool::builder(move |(user, audience): &Pair| {
        if *audience == "self" {
            return Ok(of.stored(user));
        }
        let subject = pool.get().unwrap().get(&(user.clone(), "self"))?;
        let exchange = TokenExchangeGrant::new(endpoint.clone(), subject).audience(*audience);
        Ok(Credentials::builder(exchange).policy(policy()))
    });
    let made = made.concurrent_refreshes(refreshes).build();
    itself.get_or_init(|| made).clone()
}

#[tokio::test(start_paused = true)]
async fn user_in_the_same_pool_needs_no_second_place() {
    let users = Users::new();
    let pool = one_pool(&users, 1);
    users.server.token_faults().always(Fault::normal().delay(Duration::from_millis(50)));
    let all: Vec<_> = pairs(5).iter().map(|pair| pool.get(pair).unwrap()).collect();
    let all = join_all(all.iter().map(Credentials::tokens));
    for tokens in timeout(10 * SECOND, all).await.unwrap() {
        tokens.unwrap();
    }
    assert_eq!(users.server.counters().max_concurrent_token_requests, 1);
}

/// The refresh of the user was started by a request of its own, and waits for the place that the exchange has.
#[tokio::test(start_paused = true)]
async fn user_that_queues_behind_its_exchange_goes_first() {
    let users = Users::new();
    let pool = one_pool(&users, 1);
    let exchanged = pool.get(&("alice".to_owned(), "a")).unwrap();
    let user = pool.get(&("alice".to_owned(), "self")).unwrap();
    let other = pool.get(&("bob".to_owned(), "self")).unwrap();
    let busy = tokio::spawn(async move { other.tokens().await });
    let_others_run().await;
    let all = async { tokio::join!(exchanged.tokens(), user.tokens()) };
    let (exchanged, user) = timeout(10 * SECOND, all).await.unwrap();
    exchanged.unwrap();
    user.unwrap();
    busy.await.unwrap().unwrap();
}

/// The probe of an outage may need the token of its user, from the same endpoint.
#[tokio::test(start_paused = true)]
async fn outage_ends_although_the_probe_asks_for_the_user_first() {
    let users = Users::new();
    let pool = one_pool(&users, 8);
    users.server.token_faults().always(Fault::unavailable());
    for pair in pairs(5) {
        assert!(pool.get(&pair).unwrap().tokens().await.is_err());
    }
    assert_eq!(pool.pool_status().outages.len(), 1);
    users.server.token_faults().clear();
    let exchanged = pool.get(&("late".to_owned(), "a")).unwrap();
    let mut waited = Duration::ZERO;
    while exchanged.tokens().await.is_err() {
        advance(SECOND).await;
        waited += SECOND;
        assert!(waited <= MINUTE, "{:?}", pool.pool_status());
    }
    assert!(pool.pool_status().outages.is_empty());
}

/// The exchange endpoint was not asked.
#[tokio::test(start_paused = true)]
async fn failures_of_the_users_are_no_outage_of_the_exchange() {
    let users = Users::new();
    let endpoint = endpoint(&users);
    for error in [
        TokenError::transient("503"),
        TokenError::transient("429").with_retry_after(MINUTE),
        TokenError::unsent("refused"),
    ] {
        let endpoint = endpoint.clone();
        let made = CredentialsPool::new(move |user: &String| {
            let error = error.clone();
            let subject = match user.as_str() {
                "good" => SecurityToken::new("unknown"),
                _ => Credentials::new(move |_: Renewal| {
                    std::future::ready(Err::<TokenSet, _>(error.clone()))
                })
                .into(),
            };
            Credentials::builder(TokenExchangeGrant::new(endpoint.clone(), subject))
                .policy(policy())
        });
        let mut events = made.subscribe();
        for user in names(8) {
            assert!(made.get(&user).unwrap().tokens().await.unwrap_err().is_transient());
        }
        assert!(made.pool_status().outages.is_empty(), "{:?}", made.pool_status());
        let good = made.get(&"good".to_owned()).unwrap().tokens().await.unwrap_err();
        assert!(good.is_denied(), "{good}");
        let began = std::iter::from_fn(|| futures_util::FutureExt::now_or_never(events.recv()))
            .any(|it| matches!(it.unwrap().event, Event::OutageStarted { .. }));
        assert!(!began);
    }
}
