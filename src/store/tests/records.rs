//! Saves and loads.

use tokio::task::JoinSet;

use super::*;

pub(crate) async fn save_succeeds_only_over_the_record_it_replaces<S: TokenStore>(
    [one, two]: [S; 2],
) {
    assert!(one.load().await.unwrap().is_none());

    let first = record(None, "1");
    let second = record(Some(&first), "2");
    let error = one.save(&second, Some(first.write_id())).await.unwrap_err();
    assert!(error.is_conflict(), "nothing is stored: {error}");

    save(&one, &first, None).await;
    // A save without an answer is repeated.
    save(&one, &first, None).await;
    save(&two, &first, Some(&second)).await;
    let error = two.save(&record(None, "other"), None).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");

    save(&two, &second, Some(&first)).await;
    let error = one.save(&first, None).await.unwrap_err();
    assert!(error.is_conflict(), "it has counted, and was replaced: {error}");
    let late = record(Some(&first), "late");
    let error = one.save(&late, Some(first.write_id())).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");

    let stored = one.load().await.unwrap().unwrap();
    assert_eq!(stored.to_json().unwrap(), second.to_json().unwrap());
    assert!(!stored.is_doubted);
}

/// `store` returns the store of each save.
pub(crate) async fn one_of_fifty_concurrent_saves_succeeds<S: TokenStore>(
    store: impl Fn(usize) -> S,
) {
    let first = record(None, "first");
    save(&store(0), &first, None).await;
    let mut saves = JoinSet::new();
    for number in 0..50 {
        let store = store(number);
        let record = record(Some(&first), &number.to_string());
        let replaces = first.write_id();
        saves.spawn(async move { (record.write_id(), store.save(&record, Some(replaces)).await) });
    }
    let mut saved = Vec::new();
    while let Some(outcome) = saves.join_next().await {
        match outcome.unwrap() {
            (write_id, Ok(())) => saved.push(write_id),
            (_, Err(error)) => assert!(error.is_conflict(), "{error}"),
        }
    }
    assert_eq!(saved.len(), 1);
    assert_eq!(loaded(&store(0)).await, saved.pop());
}

pub(crate) async fn lock_and_record_are_independent<S: TokenStore>([one, two]: [S; 2]) {
    let first = record(None, "1");
    let lock = one.lock(LONG).await.unwrap();
    assert!(one.load().await.unwrap().is_none(), "a lock is no record");
    save(&one, &first, None).await;
    assert!(held(&lock).await);
    let second = record(Some(&first), "2");
    save(&two, &second, Some(&first)).await;
    lock.release().await;
    assert_eq!(loaded(&one).await, Some(second.write_id()));
}

pub(crate) async fn grants_are_separate<S: TokenStore>([one, two, three]: [S; 3]) {
    save(&one, &record(None, "1"), None).await;
    assert!(two.load().await.unwrap().is_none());
    assert!(three.load().await.unwrap().is_none());
    let lock = one.lock(LONG).await.unwrap();
    assert!(is_free(&two).await && is_free(&three).await && !is_free(&one).await);
    lock.release().await;
}
