//! Saves and loads.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_store_that_polls_keeps_the_laws() {
    let Some(database) = Database::new().await else { return };
    let open = async |name: &str| database.store().for_name(name).unwrap();
    crate::testing::store_laws(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_store_that_listens_keeps_the_laws() {
    let Some(database) = Database::new().await else { return };
    let open = async |name: &str| listening(&database.url).for_name(name).unwrap();
    crate::testing::store_laws(open).await;
}

#[cfg(feature = "encrypted-store")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn encrypted_store_over_postgres_keeps_the_laws() {
    use crate::store::{EncryptedStore, EncryptionKey};

    let Some(database) = Database::new().await else { return };
    let open = async |name: &str| {
        let store = database.store().for_name(name).unwrap();
        EncryptedStore::new(store, EncryptionKey::new("k", [7; 32]))
    };
    crate::testing::store_laws(open).await;
    let row = database.ask("SELECT count(*) FROM tower_refresh WHERE record::text LIKE '%access%'");
    assert_eq!(row.await.get::<_, i64>(0), 0, "a token in the clear");
}

#[cfg(feature = "encrypted-store")]
#[tokio::test]
async fn swapped_records_of_two_rows_are_refused() {
    use crate::store::{EncryptedStore, EncryptionKey};

    let Some(database) = Database::new().await else { return };
    let [alice, bob] = ["alice", "bob"].map(|user| {
        let store = database.store().for_name(user).unwrap();
        EncryptedStore::new(store, EncryptionKey::new("k", [7; 32]))
    });
    for store in [&alice, &bob] {
        store.save(&record(None, "1"), None).await.unwrap();
    }
    let swap = "UPDATE tower_refresh SET name = CASE name WHEN 'x' THEN 'bob' WHEN 'bob' THEN 'alice' ELSE 'x' END";
    for name in ["alice", "bob", "x"] {
        database.run(&format!("{swap} WHERE name = '{name}'")).await;
    }
    for store in [&alice, &bob] {
        let error = store.load().await.unwrap_err();
        assert!(error.is_unreadable() && error.to_string().contains("the place"), "{error}");
    }
}

#[tokio::test]
async fn save_succeeds_only_over_the_record_it_replaces() {
    let Some(database) = Database::new().await else { return };
    let stores = [database.store(), database.store()];
    shared::records::save_succeeds_only_over_the_record_it_replaces(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_fifty_saves_wins_at_each_isolation_level() {
    let Some(database) = Database::new().await else { return };
    for level in ["read committed", "repeatable read", "serializable"] {
        let name = &database.name;
        let statement =
            format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'");
        database.run(&statement).await;
        let store = database.store().for_name(level).unwrap();
        shared::records::one_of_fifty_concurrent_saves_succeeds(|_| store.clone()).await;
    }
}

#[tokio::test]
async fn lock_and_record_are_independent_of_each_other() {
    let Some(database) = Database::new().await else { return };
    let stores = [database.store(), database.store()];
    shared::records::lock_and_record_are_independent(stores).await;
}

#[tokio::test]
async fn grants_and_tables_are_separate_in_one_pool() {
    let Some(database) = Database::new().await else { return };
    let one = database.store();
    let two = one.for_name("other").unwrap();
    let three = one.clone().table("public", "elsewhere").unwrap();
    three.migrate().await.unwrap();
    shared::records::grants_are_separate([one, two, three]).await;
}

#[tokio::test]
async fn unreadable_record_is_left_unchanged_by_a_save() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    let first = record(None, "1");
    save(&store, &first, None).await;
    let json = String::from_utf8(first.to_json().unwrap().to_vec()).unwrap();
    let later = json.replacen("\"version\": 1", "\"version\": 99", 1);
    assert_ne!(later, json);
    let other = json.replace(&first.write_id().to_string(), &WriteId::random().to_string());
    for damaged in ["[]", "{}", "null", "\"sesame\"", r#"{"version":"sesame"}"#, &later, &other] {
        let update = format!("UPDATE tower_refresh SET record = '{damaged}'");
        database.run(&update).await;
        let error = store.load().await.unwrap_err();
        assert!(error.is_unreadable(), "{damaged}: {error}");
        let next = record(Some(&first), "2");
        for replaces in [Some(first.write_id()), None] {
            let error = store.save(&next, replaces).await.unwrap_err();
            assert!(error.is_unreadable(), "{damaged}: {error}");
            let said = format!("{error} {error:?}");
            assert!(!said.contains("sesame") && !said.contains("access-"), "{said}");
        }
        assert_eq!(database.column("record").await.as_deref(), Some(damaged));
    }
    database.run("UPDATE tower_refresh SET record = NULL").await;
    assert!(store.save(&first, None).await.unwrap_err().is_unreadable());
}

/// The functions of PostgreSQL for JSON refuse it in any string.
#[tokio::test]
async fn record_with_a_null_character_is_saved_and_replaced() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    let mut last = None;
    for name in ["a\0b", "\\\0", "\\u0000", "c"] {
        let tokens = TokenSet::bearer("access").unwrap().with_refresh_token(name);
        let next = StoredTokens::example(last.as_ref(), &tokens, false);
        save(&store, &next, last.as_ref()).await;
        let stored = store.load().await.unwrap().unwrap();
        assert_eq!(stored.to_json().unwrap(), next.to_json().unwrap());
        last = Some(next);
    }
}

#[tokio::test]
async fn record_is_stored_as_the_json_of_its_format() {
    let Some(database) = Database::new().await else { return };
    let first = record(None, "1");
    save(&database.store(), &first, None).await;
    let stored = database.column("record").await.unwrap();
    assert_eq!(stored.as_bytes(), &*first.to_json().unwrap().to_vec());
    assert_eq!(database.column("write_id").await.unwrap(), first.write_id().to_string());
}
