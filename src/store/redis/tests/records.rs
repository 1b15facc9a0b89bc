//! Saves and loads.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_store_keeps_the_laws() {
    let Some(server) = server() else { return };
    let open = async |name: &str| RedisStore::new(server.url(), name).unwrap().timeout(10 * SECOND);
    crate::testing::store_laws(open).await;
}

#[cfg(feature = "encrypted-store")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn encrypted_store_keeps_the_laws() {
    use crate::store::{EncryptedStore, EncryptionKey};

    let Some(server) = server() else { return };
    let open = async |name: &str| {
        let store = RedisStore::new(server.url(), name).unwrap().timeout(10 * SECOND);
        EncryptedStore::new(store, EncryptionKey::new("k", [7; 32]))
    };
    crate::testing::store_laws(open).await;
}

/// S9
#[cfg(feature = "encrypted-store")]
#[tokio::test]
async fn swapped_records_of_two_keys_are_refused() {
    use crate::store::{EncryptedStore, EncryptionKey};

    let Some(server) = server() else { return };
    let [alice, bob] = ["alice", "bob"].map(|user| {
        EncryptedStore::new(store(&server).for_key(user).unwrap(), EncryptionKey::new("k", [7; 32]))
    });
    for store in [&alice, &bob] {
        store.save(&record(None, "1"), None).await.unwrap();
    }
    let swap = || {
        for (from, to) in [("alice", "x"), ("bob", "alice"), ("x", "bob")] {
            let keys = [from, to].map(|user| format!("tower-refresh:{user}"));
            server.ask::<()>(&["RENAME", &keys[0], &keys[1]]);
        }
    };
    swap();
    for store in [&alice, &bob] {
        let error = store.load().await.unwrap_err();
        assert!(error.is_unreadable() && error.to_string().contains("the place"), "{error}");
    }
    swap();
    assert!(alice.load().await.unwrap().is_some());
}

#[tokio::test]
async fn save_succeeds_only_over_the_record_it_replaces() {
    let Some(server) = server() else { return };
    let stores = [store(&server), store(&server)];
    shared::records::save_succeeds_only_over_the_record_it_replaces(stores).await;
}

#[tokio::test]
async fn one_of_fifty_concurrent_saves_succeeds() {
    let Some(server) = server() else { return };
    let connected = store(&server);
    // Half of them over one connection.
    let open = |save| if save % 2 == 0 { connected.clone() } else { store(&server) };
    shared::records::one_of_fifty_concurrent_saves_succeeds(open).await;
}

#[tokio::test]
async fn lock_and_record_are_independent() {
    let Some(server) = server() else { return };
    let stores = [store(&server), store(&server)];
    shared::records::lock_and_record_are_independent(stores).await;
}

#[tokio::test]
async fn grants_have_separate_keys_and_share_a_connection() {
    let Some(server) = server() else { return };
    let one = store(&server);
    let two = one.for_key("other").unwrap();
    let three = one.clone().prefix("elsewhere:");
    shared::records::grants_are_separate([one, two, three]).await;
    let clients: String = server.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
    assert_eq!(clients.lines().count(), 2, "with the one that asks: {clients}");
}

#[tokio::test]
async fn many_grants_at_once_make_few_connections() {
    const GRANTS: usize = 200;

    let Some(mut server) = server() else { return };
    let store = store(&server);
    // When nothing is connected, and when what was is gone.
    for _ in 0..2 {
        let loads = (0..GRANTS).map(|n| {
            let store = store.for_key(n.to_string()).unwrap();
            tokio::spawn(async move { store.load().await })
        });
        for load in loads.collect::<Vec<_>>() {
            assert!(load.await.unwrap().unwrap().is_none());
        }
        let stats = server.ask::<String>(&["INFO", "stats"]);
        let (_, connected) = stats.split_once("total_connections_received:").unwrap();
        let connected: usize = connected.lines().next().unwrap().parse().unwrap();
        assert!(connected < 50, "{connected} connections for {GRANTS} grants");
        server.kill();
        server.start_again();
    }
}

#[tokio::test]
async fn record_is_doubted_after_a_restart_until_the_next_save() {
    let Some(mut server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    server.kill();
    let error = store.load().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");

    server.start_again();
    let found = store.load().await.unwrap().unwrap();
    assert_eq!(found.write_id(), first.write_id());
    assert!(found.is_doubted);
    // The same save again does not prove that no save was lost.
    save(&store, &first, None).await;
    assert!(store.load().await.unwrap().unwrap().is_doubted);

    save(&store, &record(Some(&found), "2"), Some(&first)).await;
    assert!(!store.load().await.unwrap().unwrap().is_doubted);
}

#[tokio::test]
async fn restart_without_data_leaves_no_record_and_no_lock() {
    let Some(mut server) = server() else { return };
    let store = store(&server);
    let lock = store.lock(LONG).await.unwrap();
    save(&store, &record(None, "1"), None).await;
    server.kill();
    server.lose_everything();
    server.start_again();
    assert!(store.load().await.unwrap().is_none());
    assert!(!held(&lock).await);
}

#[tokio::test]
async fn lock_survives_a_restart_with_the_data() {
    let Some(mut server) = server() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    server.kill();
    server.start_again();
    assert!(held(&lock).await);
    assert!(!is_free(&store(&server)).await);
    lock.release().await;
}

#[tokio::test]
async fn replica_is_refused_and_doubted_after_a_failover() {
    let (Some(primary), Some(replica)) = (server(), server()) else { return };
    let there = store(&primary);
    let first = record(None, "1");
    save(&there, &first, None).await;
    let port = primary.port().to_string();
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    while replica.field(KEY, "record").is_none() {
        tokio::time::sleep(ms(10)).await;
    }

    let here = store(&replica);
    let next = record(Some(&first), "2");
    for error in [
        here.load().await.unwrap_err(),
        here.lock(SECOND).await.unwrap_err(),
        here.save(&next, Some(first.write_id())).await.unwrap_err(),
    ] {
        assert!(error.is_unavailable() && error.to_string().contains("is a replica"), "{error}");
    }

    // A promoted replica may have missed a save.
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert!(here.load().await.unwrap().unwrap().is_doubted);
    save(&here, &next, Some(&first)).await;
    assert!(!here.load().await.unwrap().unwrap().is_doubted);

    // So may a primary that was demoted for a while, although its process is the same.
    let port = replica.port().to_string();
    save(&there, &record(Some(&first), "lost"), Some(&first)).await;
    primary.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    while primary.field(KEY, "write_id") != Some(next.write_id().to_string()) {
        tokio::time::sleep(ms(10)).await;
    }
    primary.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert!(there.load().await.unwrap().unwrap().is_doubted);
}

#[tokio::test]
async fn server_that_was_a_replica_meanwhile_is_doubted() {
    let (Some(primary), Some(replica)) = (server(), server()) else { return };
    let there = store(&primary);
    let first = record(None, "1");
    save(&there, &first, None).await;
    assert!(!there.load().await.unwrap().unwrap().is_doubted);
    // The other has what was first saved, and this one takes it from there again.
    let (one, two) = (primary.port().to_string(), replica.port().to_string());
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &one]);
    while replica.field(KEY, "record").is_none() {
        tokio::time::sleep(ms(10)).await;
    }
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let spent = record(Some(&first), "2");
    save(&there, &spent, Some(&first)).await;
    primary.ask::<()>(&["REPLICAOF", "127.0.0.1", &two]);
    while primary.field(KEY, "write_id") != Some(first.write_id().to_string()) {
        tokio::time::sleep(ms(10)).await;
    }
    primary.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let found = there.load().await.unwrap().unwrap();
    assert_eq!(found.write_id(), first.write_id());
    assert!(found.is_doubted);
}

#[tokio::test]
async fn unreadable_record_is_left_unchanged() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let json = String::from_utf8(first.to_json().unwrap().to_vec()).unwrap();
    let next = record(Some(&first), "2");
    for garbage in [
        "",
        "sesame",
        "[]",
        "null",
        "{}",
        &json[..json.len() / 2],
        &json.replace("\"version\": 1", "\"version\": 2"),
        &json.replace("\"version\": 1", "\"version\": \"1\""),
        str::from_utf8(&next.to_json().unwrap()).unwrap(),
        &"[".repeat(5000),
    ] {
        assert_ne!(garbage, json);
        server.ask::<()>(&["HSET", KEY, "record", garbage]);
        let error = store.load().await.unwrap_err();
        assert!(error.is_unreadable(), "{error}");
        let said = error.to_string();
        assert!(said.contains(KEY) && !said.contains("access-") && !said.contains("sesame"));
        for replaces in [None, Some(first.write_id()), Some(next.write_id())] {
            for record in [&first, &next] {
                let error = store.save(record, replaces).await.unwrap_err();
                assert!(error.is_unreadable(), "{garbage}: {error}");
            }
        }
        assert_eq!(server.field(KEY, "record").as_deref(), Some(garbage));
        // The lock works, so that a program can look again.
        assert!(is_free(&store).await);
    }
    server.ask::<()>(&["HSET", KEY, "record", &json]);
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    server.ask::<()>(&["HDEL", KEY, "write_id"]);
    assert!(store.load().await.unwrap_err().is_unreadable());
    assert!(store.save(&next, None).await.unwrap_err().is_unreadable());
}

#[tokio::test]
async fn key_does_not_expire() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let expires = || server.ask::<i64>(&["TTL", KEY]) != -1;
    server.ask::<()>(&["EXPIRE", KEY, "1000"]);
    assert!(expires());
    let lock = store.lock(LONG).await.unwrap();
    assert!(!expires());
    server.ask::<()>(&["EXPIRE", KEY, "1000"]);
    assert!(held(&lock).await);
    assert!(!expires());
    server.ask::<()>(&["EXPIRE", KEY, "1000"]);
    save(&store, &intent(&first), Some(&first)).await;
    assert!(!expires());
}

#[tokio::test]
async fn flushed_script_cache_is_harmless() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let lock = store.lock(LONG).await.unwrap();
    server.ask::<()>(&["SCRIPT", "FLUSH"]);
    assert!(held(&lock).await);
    server.ask::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    server.ask::<()>(&["SCRIPT", "FLUSH"]);
    lock.release().await;
    assert!(is_free(&store).await);
}

#[tokio::test]
async fn full_memory_fails_an_intent_and_not_its_successor() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let lock = store.lock(LONG).await.unwrap();
    let open = intent(&first);
    let fill = || server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);

    fill();
    let error = store.save(&open, Some(first.write_id())).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("out of memory"), "{error}");
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    save(&store, &open, Some(&first)).await;

    fill();
    assert!(held(&lock).await, "the lease is still renewed");
    let spent = record(Some(&open), &"long".repeat(1000));
    save(&store, &spent, Some(&open)).await;
    assert_eq!(loaded(&store).await, Some(spent.write_id()));
    lock.release().await;
    assert!(is_free(&store).await, "taking the lock needs almost no memory");
}

#[tokio::test]
async fn server_that_may_evict_the_key_is_misconfigured() {
    let Some(server) = server() else { return };
    let store = store(&server);
    server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(is_free(&store).await, "without a limit, nothing is evicted");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1gb"]);
    let error = store.lock(SECOND).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("allkeys-lru"), "{error}");
    for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
        server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]);
        assert!(is_free(&store).await, "{policy}");
    }
}
