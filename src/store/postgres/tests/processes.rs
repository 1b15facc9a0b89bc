//! Several processes.

use super::*;
use crate::store::tests::processes::{LEASE, Worker};

/// The entry of the other processes.
#[test]
fn worker() {
    let open = |url: &str| listening(url).lease(LEASE);
    shared::processes::work(open, async |store, command| {
        assert_eq!(command, "migrate");
        match store.migrate().await {
            Ok(()) => "migrated".to_owned(),
            Err(error) => error.to_string(),
        }
    });
}

fn start(database: &Database) -> Worker {
    Worker::start(module_path!(), &database.url)
}

#[tokio::test]
async fn several_processes_may_create_the_table_at_once() {
    let Some(server) = SERVER.as_ref() else { return };
    let database = Database::empty_on(server).await;
    let mut workers: Vec<_> = (0..6).map(|_| start(&database)).collect();
    for _ in 0..10 {
        for worker in &mut workers {
            worker.tell("migrate");
        }
        for worker in &mut workers {
            assert_eq!(worker.hear(), "migrated");
        }
        database.run("DROP TABLE tower_refresh").await;
    }
}

#[tokio::test]
async fn lock_is_exclusive_among_processes() {
    let Some(database) = Database::new().await else { return };
    let start = || start(&database);
    shared::processes::lock_is_exclusive_among_processes(start, database.store()).await;
}

#[tokio::test]
async fn lock_of_a_killed_process_ends_with_its_lease() {
    let Some(database) = Database::new().await else { return };
    let worker = start(&database);
    shared::processes::lock_of_a_killed_process_ends_with_its_lease(worker, database.store()).await;
}

#[tokio::test]
async fn frozen_holder_loses_the_lock_and_may_save_a_successor() {
    let Some(database) = Database::new().await else { return };
    let worker = start(&database);
    shared::processes::frozen_holder_loses_the_lock_and_may_save_a_successor(
        worker,
        database.store(),
    )
    .await;
}
