//! Tokens on behalf of users, in pools by user and audience.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{advance, timeout};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{SecurityToken, TokenEndpoint, TokenExchangeGrant};
use tower_refresh::testing::{Fault, TokioClock};
use tower_refresh::{
    BoxError, Credentials, CredentialsPool, Event, Keyed, RefreshLayer, Renewal, RequestHead,
    TokenError, TokenSet,
};

use crate::harness::{MINUTE, SECOND, get, let_others_run, policy};
use crate::users::{Users, names};

type Pair = (String, &'static str);

fn endpoint(users: &Users) -> TokenEndpoint {
    TokenEndpoint::new(users.server.token_service(), "https://auth.test/token").unwrap()
}

/// The users, and the pairs of a user and an audience.
fn pools(users: &Users) -> (CredentialsPool<String>, CredentialsPool<Pair>) {
    let of = users.clone();
    let subjects = CredentialsPool::builder(move |user: &String| of.stored(user))
        .clock(TokioClock::new())
        .build();
    let (of, endpoint) = (subjects.clone(), endpoint(users));
    let pairs = CredentialsPool::builder(move |(user, audience): &Pair| {
        let exchange = TokenExchangeGrant::new(endpoint.clone(), of.get(user)?).audience(*audience);
        Ok(Credentials::builder(exchange).policy(policy()))
    });
    (subjects, pairs.clock(TokioClock::new()).build())
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
    let made = made.concurrent_refreshes(refreshes).clock(TokioClock::new()).build();
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

// ===== a gateway =====

/// The verified user, an extension of each request.
#[derive(Clone)]
struct Caller(String);

fn api(
    pairs: CredentialsPool<Pair>,
    audience: &'static str,
) -> RefreshLayer<Keyed<Pair, impl Fn(RequestHead<'_>) -> Option<Pair>>> {
    RefreshLayer::keyed(pairs, move |request| {
        let Caller(user) = request.extensions().get()?;
        Some((user.clone(), audience))
    })
    .origin("https://api.test")
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn gateway_calls_two_apis_on_behalf_of_each_caller() {
    let users = Users::new();
    let (subjects, pairs) = pools(&users);
    let call = async |audience, user: &str| {
        let client = ServiceBuilder::new()
            .layer(api(pairs.clone(), audience))
            .service(users.server.resource_service());
        let mut request = get("/");
        request.extensions_mut().insert(Caller(user.to_owned()));
        let response = client.oneshot(request).await?;
        let echo = |name| response.headers()[name].to_str().unwrap().to_owned();
        Ok::<_, BoxError>((response.status(), echo("echo-log-in"), echo("echo-audience")))
    };
    for _ in 0..2 {
        for (number, user) in ["alice", "bob"].into_iter().enumerate() {
            for audience in ["billing", "reports"] {
                let expected = ((number + 1).to_string(), audience.to_owned());
                let (status, log_in, audience) = call(audience, user).await.unwrap();
                assert_eq!((status.as_u16(), (log_in, audience)), (200, expected));
            }
        }
        users.server.revoke_all_access_tokens();
    }
    assert_eq!(users.server.counters().refresh_token_requests, 4);

    // A log-out of the user, and then of each pair.
    let alice = "alice".to_owned();
    subjects.log_out(&alice).await.unwrap();
    for audience in ["billing", "reports"] {
        pairs.log_out(&(alice.clone(), audience)).await.unwrap();
        let error = call(audience, "alice").await.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert!(error.is_denied() && error.to_string().contains("no subject token"), "{error}");
        assert_eq!(call(audience, "bob").await.unwrap().0, 200);
    }
    let anonymous = ServiceBuilder::new()
        .layer(api(pairs.clone(), "billing"))
        .service(users.server.resource_service())
        .oneshot(get("/"));
    let error = anonymous.await.unwrap_err();
    assert!(error.downcast_ref::<TokenError>().unwrap().is_misconfigured());
}

/// The log-out of the user comes first, so that the exchange that is in flight is the last one.
#[tokio::test(start_paused = true)]
async fn exchange_in_flight_gives_no_token_after_its_pair_logs_out() {
    let users = Users::new();
    let (subjects, pairs) = pools(&users);
    let (alice, pair) = ("alice".to_owned(), ("alice".to_owned(), "billing"));
    subjects.get(&alice).unwrap().warm_up().await.unwrap();
    users.server.token_faults().once(Fault::normal().delay(SECOND));
    let exchanged = pairs.get(&pair).unwrap();
    let waiting = tokio::spawn({
        let exchanged = exchanged.clone();
        async move { exchanged.tokens().await }
    });
    let_others_run().await;
    subjects.log_out(&alice).await.unwrap();
    pairs.log_out(&pair).await.unwrap();
    assert!(waiting.await.unwrap().unwrap_err().is_denied());
    assert!(exchanged.tokens().await.unwrap_err().is_denied());
    assert!(exchanged.current().is_none());
}

/// Without a limit, pairs that were used once would stay for good.
#[tokio::test(start_paused = true)]
async fn pairs_are_evicted_after_a_log_out_or_with_a_refresh_token() {
    for (body, log_out) in [
        (r#"{"access_token":"t"}"#, false),
        (r#"{"access_token":"t"}"#, true),
        (r#"{"access_token":"t","refresh_token":"not-sent"}"#, false),
    ] {
        let users = Users::new();
        users.server.token_faults().always(Fault::status(StatusCode::OK).body(body));
        let endpoint = endpoint(&users);
        let pairs = CredentialsPool::builder(move |_: &String| {
            Credentials::builder(TokenExchangeGrant::new(endpoint.clone(), "user")).policy(policy())
        });
        let pairs = pairs.capacity(10).build();
        for user in names(200) {
            pairs.get(&user).unwrap().tokens().await.unwrap();
            if log_out {
                pairs.log_out(&user).await.unwrap();
            }
        }
        let_others_run().await;
        assert!(pairs.len() <= 20, "{} {body} {log_out}", pairs.len());

        // The tokens of a log-in are nowhere else.
        for user in names(50) {
            pairs.log_in(&user, TokenSet::bearer("logged-in").unwrap()).await.unwrap();
        }
        assert!(pairs.len() >= 50);
    }
}
/// The server refuses some audiences with the code for an expired subject token.
#[tokio::test(start_paused = true)]
async fn refused_audiences_do_not_refresh_the_user_each_time() {
    let (users, elsewhere) = (Users::new(), Users::new());
    elsewhere.server.token_faults().always(Fault::oauth_error("invalid_request"));
    let user = users.stored("alice").build();
    let exchange = |at: &Users, audience| {
        let exchange = TokenExchangeGrant::new(endpoint(at), user.clone()).audience(audience);
        Credentials::builder(exchange).policy(policy()).build()
    };
    let good = exchange(&users, "good");
    good.tokens().await.unwrap();
    let refused = AUDIENCES.map(|audience| exchange(&elsewhere, audience));
    for _ in 0..10 {
        for refused in &refused {
            let error = refused.tokens().await.unwrap_err();
            assert!(error.is_misconfigured(), "{error}");
        }
        advance(MINUTE).await;
    }
    let refreshes = users.server.counters().refresh_token_requests;
    assert!(refreshes <= 10, "{refreshes}");

    // Another audience still gets a newer token of the user, if that is at fault.
    users.server.revoke_all_access_tokens();
    good.refresh().await.unwrap();
    assert_eq!(users.server.counters().refresh_token_requests, refreshes + 1);
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn each_pair_of_user_and_audience_has_its_own_token() {
    let users = Users::new();
    let (of_users, on_behalf) = pools(&users);
    for _ in 0..2 {
        let mut log_ins = Vec::new();
        for user in names(20) {
            let subject = of_users.get(&user).unwrap().tokens().await.unwrap();
            let log_in = users.server.log_in_of(subject.access_token().expose_secret());
            log_ins.push(log_in.unwrap());
            for audience in ["billing", "reports"] {
                let pair = (user.clone(), audience);
                let tokens = on_behalf.get(&pair).unwrap().tokens().await.unwrap();
                let token = tokens.access_token().expose_secret();
                assert_eq!(users.server.log_in_of(token), log_in);
                assert_eq!(users.server.audience_of(token).as_deref(), Some(audience));
            }
        }
        log_ins.sort_unstable();
        log_ins.dedup();
        assert_eq!(log_ins.len(), 20);
    }
    assert_eq!(users.server.counters().token_exchange_requests, 40);
    users.assert_no_reuse();
}
