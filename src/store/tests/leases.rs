//! The lock.

use std::time::Instant;

use super::*;

pub(crate) async fn lock_is_exclusive_until_it_is_released<S: TokenStore>([one, two]: [S; 2]) {
    let lock = one.lock(LONG).await.unwrap();
    assert!(held(&lock).await);

    let asked = Instant::now();
    let error = two.lock(ms(200)).await.err().unwrap();
    assert!(error.is_held(), "{error}");
    assert!(asked.elapsed() >= ms(200));
    assert!(!is_free(&two).await);
    assert!(!is_free(&one).await, "the lock excludes the handle that holds it, too");

    lock.release().await;
    assert!(is_free(&two).await);
    assert!(two.load().await.unwrap().is_none(), "a lock is no record");
}

/// The lease of the first store is 300 ms. Returns after how long the second has the lock.
pub(crate) fn lease_of_a_runtime_that_is_not_polled_runs_out<S: TokenStore>(
    [first, second]: [S; 2],
) -> Duration {
    let (frozen, lively) = (runtime(), runtime());
    let old = frozen.block_on(first.lock(LONG)).unwrap();

    let asked = Instant::now();
    let new = lively.block_on(second.lock(LONG)).unwrap();
    let took = asked.elapsed();
    println!("a lease of 300 ms was over after {took:?}");

    frozen.block_on(async {
        assert!(!held(&old).await);
        assert!(!held(&old).await, "a lost lock stays lost");
        old.release().await;
    });
    assert!(
        lively.block_on(held(&new)),
        "a late release does not release the lock of another owner"
    );
    lively.block_on(new.release());
    took
}
