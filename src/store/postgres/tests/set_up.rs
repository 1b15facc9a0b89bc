//! Correct and wrong configurations.

use super::*;

/// The lines in the documentation of `PostgresStore`.
const GRANTS: [&str; 2] = [
    "GRANT USAGE ON SCHEMA public TO compass;",
    "GRANT SELECT, INSERT, UPDATE ON public.tower_refresh TO compass;",
];

#[test]
fn documentation_shows_the_statement_that_migrate_runs() {
    let documentation = include_str!("../store.rs").replace("/// ", "").replace("///\n", "\n");
    let sql = store_at("host=127.0.0.1").sql();
    assert!(documentation.contains(&sql), "{sql}");
    for grant in GRANTS {
        assert!(documentation.contains(grant), "{grant}");
    }
}

#[tokio::test]
async fn role_needs_the_documented_privileges_and_no_more() {
    let Some(database) = Database::new().await else { return };
    let role = format!("compass_{}", database.name);
    // By default, every role may use this schema.
    database.run("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    database.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let url = database.url.replace("user=postgres", &format!("user={role}"));
    let grants: String = GRANTS.map(|grant| grant.replace("compass", &role)).concat();
    database.run(&grants).await;
    let store = store_at(&url).listen_with(config(&url), NoTls);
    everything(&store).await.unwrap();
    let loaded = store.load().await.unwrap().unwrap();
    assert!(!loaded.is_doubted);
    assert!(database.column("run").await.is_some(), "the role can identify the run");

    for without in [
        "USAGE ON SCHEMA public",
        "SELECT ON public.tower_refresh",
        "INSERT ON public.tower_refresh",
        "UPDATE ON public.tower_refresh",
    ] {
        database.run(&grants).await;
        database.run(&format!("REVOKE {without} FROM {role}")).await;
        let error = everything(&store_at(&url)).await.expect_err(without);
        let said = error.to_string();
        assert!(
            error.is_misconfigured() && said.contains("GRANT SELECT, INSERT, UPDATE"),
            "{said}"
        );
        assert!(said.contains("public.tower_refresh"), "{said}");
    }
    // As the owner of the table would.
    let error = store_at(&url).table("public", "other").unwrap().migrate().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("CREATE ON SCHEMA"), "{error}");
}

/// Managed services may not offer the functions.
#[tokio::test]
async fn role_that_cannot_identify_the_run_doubts_no_record() {
    let Some(database) = Database::new().await else { return };
    let role = format!("compass_{}", database.name);
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE ON tower_refresh TO {role};
             REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
        ))
        .await;
    let url = database.url.replace("user=postgres", &format!("user={role}"));
    let store = store_at(&url);
    everything(&store).await.unwrap();
    assert!(!store.load().await.unwrap().unwrap().is_doubted);
    assert_eq!(database.column("run").await, None);
    // A process that can identify it does not know when the record was written.
    assert!(database.store().load().await.unwrap().unwrap().is_doubted);
}

#[tokio::test]
async fn missing_table_is_misconfigured_until_it_is_created() {
    let Some(server) = SERVER.as_ref() else { return };
    let database = Database::empty_on(server).await;
    let store = database.store();
    for error in [
        store.load().await.unwrap_err(),
        store.lock(SECOND).await.unwrap_err(),
        store.save(&record(None, "1"), None).await.unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(error.is_misconfigured() && said.contains("PostgresStore::migrate"), "{said}");
        assert!(said.contains("public.tower_refresh"), "{said}");
    }
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    everything(&store).await.unwrap();
}

#[tokio::test]
async fn schema_and_table_may_have_any_name() {
    let Some(database) = Database::new().await else { return };
    database.run(r#"CREATE SCHEMA "it's a ""{table}"" 店""#).await;
    let long = "t".repeat(63);
    for table in ["User", "a.b", "{run} \"; DROP TABLE tower_refresh; --", &long] {
        let store = database.store().table("it's a \"{table}\" 店", table).unwrap();
        store.migrate().await.unwrap();
        everything(&store).await.unwrap();
    }
    let error = database.store().table("nowhere", "t").unwrap().load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("nowhere.t"), "{error}");
    let error = database.store().table("nowhere", "t").unwrap().migrate().await.unwrap_err();
    assert!(
        error.is_misconfigured() && error.to_string().contains("the schema nowhere"),
        "{error}"
    );
}

#[tokio::test]
async fn table_with_other_columns_is_misconfigured_and_unchanged() {
    let Some(server) = SERVER.as_ref() else { return };
    for columns in [
        "id int PRIMARY KEY, secret text",
        "name text, record json, write_id text, run text, lease_owner text, lease_until timestamptz, lease interval, fence bigint, is_waited boolean",
        "name text PRIMARY KEY, record text, write_id text, run text, lease_owner text, lease_until timestamptz, lease interval, fence bigint, is_waited boolean, more int NOT NULL",
        "name int PRIMARY KEY, record json, write_id text, run text, lease_owner text, lease_until text, lease interval, fence bigint, is_waited boolean",
    ] {
        let database = Database::empty_on(server).await;
        database.run(&format!("CREATE TABLE tower_refresh ({columns})")).await;
        let store = database.store();
        store.migrate().await.unwrap();
        let error = everything(&store).await.expect_err(columns);
        let said = error.to_string();
        assert!(
            error.is_misconfigured() && said.contains("not one of this store"),
            "{columns}: {said}"
        );
    }
}

#[test]
fn invalid_names_are_misconfigured_before_the_first_use() {
    let store = store_at("host=127.0.0.1");
    for (name, what) in [("", "needs a name"), ("a\0b", "null"), (&*"n".repeat(1001), "shorter")] {
        let error = store.for_name(name).unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains(what), "{error}");
    }
    for (name, what) in [("", "is empty"), ("a\0b", "null"), (&*"n".repeat(64), "63 bytes")] {
        for (error, place) in [
            (store.clone().table("public", name).unwrap_err(), "table"),
            (store.clone().table(name, "tower_refresh").unwrap_err(), "schema"),
        ] {
            let said = error.to_string();
            assert!(
                error.is_misconfigured() && said.contains(what) && said.contains(place),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn names_of_grants_may_contain_any_character() {
    let Some(database) = Database::new().await else { return };
    let long = "n".repeat(1000);
    for name in ["it's \"100%\" \\ {run}", "Zoë’s 店 🗝\n\u{1}", " ", &long] {
        everything(&listening(&database.url).for_name(name).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn wrong_login_or_database_is_an_error_without_the_password() {
    let Some(server) = SERVER.as_ref() else { return };
    let admin = connect(&server.url("postgres")).await;
    admin.batch_execute("CREATE ROLE locked LOGIN PASSWORD 'open sesame'").await.unwrap();
    let port = server.port();
    for (settings, what) in [
        ("user=locked dbname=postgres", "password"),
        ("user=locked password=sesame dbname=postgres", "the role or the password"),
        ("user=stranger dbname=postgres", "the role or the password"),
        ("user=postgres dbname=sesame", "no database of this name"),
    ] {
        let store = store_at(&format!("host=127.0.0.1 port={port} {settings}"));
        let error = store.load().await.unwrap_err();
        let said = format!("{error} {error:?} {store:?}");
        assert!(error.is_misconfigured() && said.contains(what), "{settings}: {said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[tokio::test]
async fn database_without_utf8_is_misconfigured_if_it_matters() {
    let Some(server) = SERVER.as_ref() else { return };
    let admin = connect(&server.url("postgres")).await;
    let create =
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    admin.batch_execute(create).await.unwrap();
    let store = store_at(&server.url("latin"));
    store.migrate().await.unwrap();
    everything(&store).await.unwrap();
    let error = store.for_name("店").unwrap().load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("UTF8"), "{error}");
}

#[tokio::test]
async fn read_only_or_impatient_database_is_unavailable() {
    let Some(database) = Database::new().await else { return };
    let name = &database.name;
    for (setting, what) in [
        ("default_transaction_read_only = on", "read-only"),
        ("statement_timeout = 1", "statement_timeout"),
    ] {
        database.run(&format!("ALTER DATABASE {name} SET {setting}")).await;
        let store = database.store();
        if what == "statement_timeout" {
            let other = connect(&database.url).await;
            other
                .batch_execute("SET statement_timeout = 0; BEGIN; LOCK TABLE tower_refresh")
                .await
                .unwrap();
            let error = store.lock(SECOND).await.unwrap_err();
            assert!(error.is_unavailable() && error.to_string().contains(what), "{error}");
            continue;
        }
        let error = store.lock(SECOND).await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains(what), "{error}");
        database
            .run(&format!("SET transaction_read_only = off; ALTER DATABASE {name} RESET ALL"))
            .await;
    }
}

#[tokio::test]
async fn pooler_without_its_server_is_unavailable() {
    let Some(mut server) = server(&[]) else { return };
    let database = Database::on(&server).await.unwrap();
    let Some(pooler) = PgBouncer::start(&folder("pgbouncer"), &server, 2) else { return };
    let store = store_at(&pooler.url(&database.name)).timeout(2 * SECOND).pool_timeout(2 * SECOND);
    // A crash may lose the last release.
    let store = store.lease(SECOND);
    everything(&store).await.unwrap();
    server.kill();
    let error = store.load().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    server.start_again();
    // The pooler waits before it connects again.
    for _ in 0..300 {
        if store.load().await.is_ok() {
            return everything(&store).await.unwrap();
        }
        tokio::time::sleep(ms(100)).await;
    }
    panic!("still unavailable");
}

#[test]
fn limits_are_clamped_so_that_no_sum_overflows() {
    let store = store_at("host=127.0.0.1");
    assert_eq!(store.clone().lease(Duration::ZERO).grant.lease, ms(100));
    let day = Duration::from_secs(86400);
    let store = store.lease(Duration::MAX).timeout(Duration::MAX).pool_timeout(Duration::MAX);
    assert_eq!(store.grant.lease, day);
    assert_eq!((store.grant.limits.answer, store.grant.limits.pool), (day, day));
}

#[test]
fn messages_name_the_row_and_the_table() {
    let store = store_at("host=127.0.0.1 password=sesame").table("auth", "grants").unwrap();
    assert_eq!(store.describe(), "the row `grant` of the table auth.grants");
    assert_eq!(store.place(), "grants:grant");
    let shown = format!("{store:?}");
    assert!(shown.contains("auth.grants") && !shown.contains("sesame"), "{shown}");
}
