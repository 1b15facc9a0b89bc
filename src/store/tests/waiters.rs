//! Many credentials that wait for one lock.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::{Credentials, Renewal, TokenError};

/// Lets the first of many refreshes end with this result once the others wait for it, and waits until all have ended.
pub(crate) async fn refresh<S: TokenStore>(
    stores: impl Iterator<Item = S>,
    all_others_wait: impl Future<Output = ()>,
    result: Result<&'static str, &'static str>,
) {
    let go = Arc::new(Notify::new());
    let mut refreshes = JoinSet::new();
    for store in stores {
        let go = Arc::clone(&go);
        let source = move |_: Renewal| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                go.notify_one();
                match result {
                    Ok(token) => TokenSet::bearer(token),
                    Err(error) => Err(TokenError::transient(error)),
                }
            }
        };
        let credentials = Credentials::builder(source).store(store).build();
        refreshes.spawn(async move { credentials.tokens().await.is_ok() });
    }
    all_others_wait.await;
    go.notify_one();
    while let Some(refreshed) = refreshes.join_next().await {
        assert_eq!(refreshed.unwrap(), result.is_ok());
    }
}
