//! Connections that are cut in each statement, at each place.

use super::proxy::Proxy;
use super::*;

/// A statement over the connection that is cut.
#[derive(Clone, Copy, Debug)]
enum Statement {
    Lock,
    WaitForLock,
    IsHeld,
    Release,
    Load,
    Save,
}

#[tokio::test]
async fn connection_cut_at_any_byte_costs_one_reconnect() {
    everywhere(1).await;
}

#[tokio::test]
async fn connection_cut_each_time_is_unavailable_and_harmless() {
    everywhere(usize::MAX).await;
}

async fn everywhere(connections: usize) {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::to(SERVER.as_ref().unwrap().port()).await;
    let direct = database.store().lease(LONG);
    let cut = store_at(&through(&proxy, &database.url)).lease(LONG);
    assert!(cut.load().await.unwrap().is_none());
    let (mut failed, mut done) = (0, 0);
    for statement in [
        Statement::Lock,
        Statement::WaitForLock,
        Statement::IsHeld,
        Statement::Release,
        Statement::Load,
        Statement::Save,
    ] {
        // More bytes than pass in either direction, with the opening of the connection.
        let to_server = (0..3500).step_by(97).map(|limit| (limit, usize::MAX));
        let to_client = (0..1400).step_by(17).map(|limit| (usize::MAX, limit));
        for (number, (to_server, to_client)) in to_server.chain(to_client).enumerate() {
            let name = format!("{statement:?}-{number}");
            let (direct, cut) = (direct.for_name(&*name).unwrap(), cut.for_name(&*name).unwrap());
            let place =
                format!("{statement:?}, {to_server} to the server, {to_client} to the client");
            let is_done =
                once(statement, &direct, &cut, &proxy, (connections, to_server, to_client), &place)
                    .await;
            assert!(is_done || connections > 1, "{place}");
            if is_done { done += 1 } else { failed += 1 }
        }
    }
    println!("{done} succeeded, {failed} failed");
    assert!(failed > 0 || connections == 1);
}

/// Runs one statement over a connection that is cut, and another one. Returns whether the first succeeded.
async fn once(
    statement: Statement,
    direct: &PostgresStore,
    cut: &PostgresStore,
    proxy: &Proxy,
    (connections, to_server, to_client): (usize, usize, usize),
    place: &str,
) -> bool {
    let arm = || {
        // The next statement makes a new connection.
        cut.grant.database.forget();
        proxy.cut(connections, to_server, to_client);
    };
    let is_unavailable = |error: &StoreError| assert!(error.is_unavailable(), "{place}: {error}");
    match statement {
        Statement::Lock => {
            arm();
            let tried = cut.lock(LONG).await;
            proxy.mend();
            match tried {
                Ok(lock) => {
                    assert!(held(&lock).await, "{place}");
                    assert!(!is_free(direct).await, "{place}");
                    lock.release().await;
                    assert!(is_free(direct).await, "{place}");
                    true
                }
                Err(error) => {
                    is_unavailable(&error);
                    // A lock that was taken without an answer is released.
                    direct.lock(LONG).await.expect(place).release().await;
                    false
                }
            }
        }
        Statement::WaitForLock => {
            let lock = direct.lock(LONG).await.unwrap();
            arm();
            let tried = cut.lock(ms(1)).await.unwrap_err();
            proxy.mend();
            lock.release().await;
            assert!(tried.is_held() || tried.is_unavailable(), "{place}: {tried}");
            assert!(is_free(direct).await, "{place}");
            tried.is_held()
        }
        Statement::IsHeld => {
            let lock = cut.lock(LONG).await.unwrap();
            arm();
            let tried = lock.is_held().await;
            proxy.mend();
            assert!(held(&lock).await, "{place}");
            lock.release().await;
            assert!(is_free(direct).await, "{place}");
            match tried {
                Ok(is_held) => assert!(is_held, "{place}"),
                Err(error) => {
                    is_unavailable(&error);
                    return false;
                }
            }
            true
        }
        Statement::Release => {
            let lock = cut.lock(LONG).await.unwrap();
            arm();
            lock.release().await;
            proxy.mend();
            let is_done = is_free(direct).await;
            if !is_done {
                // The release is repeated in the background.
                direct.lock(LONG).await.expect(place).release().await;
            }
            is_done
        }
        Statement::Load => {
            let first = record(None, "1");
            save(direct, &first, None).await;
            arm();
            let tried = cut.load().await;
            proxy.mend();
            assert_eq!(loaded(cut).await, Some(first.write_id()), "{place}");
            match tried {
                Ok(found) => assert_eq!(found.unwrap().write_id(), first.write_id(), "{place}"),
                Err(error) => {
                    is_unavailable(&error);
                    return false;
                }
            }
            true
        }
        Statement::Save => {
            let (first, ids) = (record(None, "1"), |record: &StoredTokens| Some(record.write_id()));
            save(direct, &first, None).await;
            let second = record(Some(&first), "2");
            arm();
            let tried = cut.save(&second, ids(&first)).await;
            proxy.mend();
            let found = loaded(direct).await;
            match &tried {
                Ok(()) => assert_eq!(found, ids(&second), "{place}"),
                Err(error) => {
                    is_unavailable(error);
                    assert!(found == ids(&first) || found == ids(&second), "{place}");
                }
            }
            save(cut, &second, Some(&first)).await;
            assert_eq!(loaded(direct).await, ids(&second), "{place}");
            tried.is_ok()
        }
    }
}
