//! Connections that are cut in each request, at each place.

use std::iter::StepBy;
use std::ops::Range;

use super::proxy::Proxy;
use super::*;

/// The connections to cut: how many, and after how many bytes.
pub(crate) struct Cuts {
    pub(crate) connections: usize,
    pub(crate) to_server: StepBy<Range<usize>>,
    pub(crate) to_client: StepBy<Range<usize>>,
}

/// A request over the connection that is cut.
#[derive(Clone, Copy, Debug)]
enum Request {
    Lock,
    WaitForLock,
    IsHeld,
    Release,
    Load,
    Save,
}

/// Makes each request over connections that are cut at each place. `stores` returns two stores of the grant with a name: one that
/// connects to the server, and one that connects to the proxy. `forget` makes the next request open a connection.
pub(crate) async fn everywhere<S: TokenStore>(
    proxy: &Proxy,
    cuts: Cuts,
    stores: impl Fn(&str) -> [S; 2],
    forget: impl Fn(&S),
) {
    let Cuts { connections, to_server, to_client } = cuts;
    let (mut failed, mut done) = (0, 0);
    for request in [
        Request::Lock,
        Request::WaitForLock,
        Request::IsHeld,
        Request::Release,
        Request::Load,
        Request::Save,
    ] {
        let to_server = to_server.clone().map(|limit| (limit, usize::MAX));
        let to_client = to_client.clone().map(|limit| (usize::MAX, limit));
        for (number, (to_server, to_client)) in to_server.chain(to_client).enumerate() {
            let stores = stores(&format!("{request:?}-{number}"));
            let arm = || {
                forget(&stores[1]);
                proxy.cut(connections, to_server, to_client);
            };
            let place =
                format!("{request:?}, {to_server} to the server, {to_client} to the client");
            let is_done = once(request, &stores, arm, proxy, &place).await;
            assert!(is_done || connections > 1, "{place}");
            if is_done { done += 1 } else { failed += 1 }
        }
    }
    println!("{done} succeeded, {failed} failed");
    assert!(failed > 0 || connections == 1);
}

/// Makes one request over a connection that is cut, and another one. Returns whether the first succeeded.
async fn once<S: TokenStore>(
    request: Request,
    [direct, cut]: &[S; 2],
    arm: impl Fn(),
    proxy: &Proxy,
    place: &str,
) -> bool {
    let is_unavailable = |error: &StoreError| assert!(error.is_unavailable(), "{place}: {error}");
    match request {
        Request::Lock => {
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
        Request::WaitForLock => {
            let lock = direct.lock(LONG).await.unwrap();
            arm();
            let tried = cut.lock(ms(1)).await.err().unwrap();
            proxy.mend();
            lock.release().await;
            assert!(tried.is_held() || tried.is_unavailable(), "{place}: {tried}");
            assert!(is_free(direct).await, "{place}");
            tried.is_held()
        }
        Request::IsHeld => {
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
        Request::Release => {
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
        Request::Load => {
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
        Request::Save => {
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
