//! A pool whose sources exchange the tokens of the users of another pool.

use tower_refresh::oauth2::{TokenEndpoint, TokenExchangeGrant};
use tower_refresh::{Credentials, CredentialsPool, TokenError};

use crate::users::{Users, names};

type Pair = (String, &'static str);

/// Returns a pool of users, and one of pairs of a user and an audience over it.
fn pools(users: &Users, at_once: usize) -> (CredentialsPool<String>, CredentialsPool<Pair>) {
    let make = users.clone();
    let of_users = CredentialsPool::builder(move |user: &String| make.stored(user))
        .concurrent_refreshes(at_once)
        .build();
    let (make, subjects) = (users.clone(), of_users.clone());
    let on_behalf = CredentialsPool::builder(move |(user, audience): &Pair| {
        let endpoint = TokenEndpoint::new(make.server.token_service(), "https://auth.test/token")?;
        let exchange = TokenExchangeGrant::new(endpoint, subjects.get(user)?).audience(*audience);
        Ok::<_, TokenError>(Credentials::builder(exchange).policy(make.policy.clone()))
    });
    (of_users, on_behalf.concurrent_refreshes(at_once).build())
}

#[tokio::test(start_paused = true)]
async fn each_pair_of_user_and_audience_has_its_own_token() {
    let users = Users::new();
    let (of_users, on_behalf) = pools(&users, 2);
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

#[tokio::test(start_paused = true)]
async fn exchanges_at_the_limit_wait_for_no_turn_of_their_users() {
    let users = Users::new();
    // Each of the two exchanges in flight needs a token of a user whose refresh counts in the other pool.
    let (_, on_behalf) = pools(&users, 2);
    let pairs: Vec<_> = names(20).into_iter().map(|user| (user, "billing")).collect();
    let all = pairs.iter().map(|pair| async { on_behalf.get(pair)?.warm_up().await });
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    let counters = users.server.counters();
    assert_eq!((counters.refresh_token_requests, counters.token_exchange_requests), (20, 20));
}
