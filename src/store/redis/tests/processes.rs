//! Several processes.

use super::*;
use crate::store::tests::processes::{LEASE, Worker};

/// The entry of the other processes.
#[test]
fn worker() {
    let open = |url: &str| store_at(url).lease(LEASE);
    shared::processes::work(open, async |_, command| panic!("{command}?"));
}

fn start(server: &RedisServer) -> Worker {
    Worker::start(module_path!(), &server.url())
}

#[tokio::test]
async fn lock_is_exclusive_among_processes() {
    let Some(server) = server() else { return };
    let start = || start(&server);
    shared::processes::lock_is_exclusive_among_processes(start, store(&server)).await;
}

#[tokio::test]
async fn lock_of_a_killed_process_ends_with_its_lease() {
    let Some(server) = server() else { return };
    let worker = start(&server);
    shared::processes::lock_of_a_killed_process_ends_with_its_lease(worker, store(&server)).await;
}

#[tokio::test]
async fn frozen_holder_loses_the_lock_and_may_save_a_successor() {
    let Some(server) = server() else { return };
    let worker = start(&server);
    shared::processes::frozen_holder_loses_the_lock_and_may_save_a_successor(
        worker,
        store(&server),
    )
    .await;
}
