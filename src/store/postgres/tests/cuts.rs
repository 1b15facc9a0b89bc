//! Connections that are cut in each statement, at each place.

use super::*;
use crate::store::tests::cuts::{Cuts, everywhere};

#[tokio::test]
async fn connection_cut_at_any_byte_costs_one_reconnect() {
    cut(1).await;
}

#[tokio::test]
async fn connection_cut_each_time_is_unavailable_and_harmless() {
    cut(usize::MAX).await;
}

async fn cut(connections: usize) {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::to(SERVER.as_ref().unwrap().port()).await;
    let direct = database.store().lease(LONG);
    let cut = store_at(&through(&proxy, &database.url)).lease(LONG);
    assert!(cut.load().await.unwrap().is_none());
    // More bytes than pass in either direction, with the opening of the connection.
    let (to_server, to_client) = ((0..3500).step_by(97), (0..1400).step_by(17));
    let stores = |name: &str| [&direct, &cut].map(|store| store.for_name(name).unwrap());
    let forget = |store: &PostgresStore| store.grant.database.forget();
    everywhere(&proxy, Cuts { connections, to_server, to_client }, stores, forget).await;
}
