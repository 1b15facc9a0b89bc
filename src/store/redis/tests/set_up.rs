//! Correct and wrong configurations.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The line in the documentation of `RedisStore`.
const PERMITTED: [&str; 16] = [
    "~tower-refresh:*",
    "&tower-refresh:*",
    "-@all",
    "+eval",
    "+info",
    "+time",
    "+hget",
    "+hmget",
    "+hset",
    "+hincrby",
    "+hdel",
    "+persist",
    "+publish",
    "+subscribe",
    "+unsubscribe",
    "+select",
];

/// The permissions that [`everything`] does not need.
const FOR_SOME: [&str; 4] = ["+select", "+subscribe", "+unsubscribe", "+publish"];

#[tokio::test]
async fn user_needs_the_documented_permissions_and_no_more() {
    let documentation = include_str!("../store.rs");
    assert!(documentation.contains(&PERMITTED.join(" ")), "{}", PERMITTED.join(" "));

    let Some(server) = server() else { return };
    let permit = |user: &str, permitted: &[&str]| {
        let mut command = vec!["ACL", "SETUSER", user, "on", ">sesame"];
        command.extend(permitted);
        server.ask::<()>(&command);
        let url = format!("redis://{user}:sesame@127.0.0.1:{}/", server.port());
        store_at(&url)
    };
    everything(&permit("fleet", &PERMITTED)).await.unwrap();
    let elsewhere = permit("fleet", &PERMITTED).prefix("elsewhere:");
    assert!(everything(&elsewhere).await.unwrap_err().is_misconfigured());

    for (number, without) in PERMITTED.iter().enumerate() {
        if without.starts_with(['-', '&']) {
            continue;
        }
        let permitted: Vec<_> =
            PERMITTED.iter().copied().filter(|permitted| permitted != without).collect();
        let store = permit(&format!("fleet{number}"), &permitted);
        let outcome = everything(&store).await;
        if FOR_SOME.contains(without) {
            outcome.expect(without);
        } else {
            let error = outcome.expect_err(without);
            assert!(error.is_misconfigured(), "without {without}: {error}");
            let named = match without.strip_prefix('+') {
                Some(command) => vec![command.to_uppercase()],
                None => vec![],
            };
            assert_eq!(blamed(&error), named, "without {without}: {error}");
            // The lock is released, or it is not taken at all.
            server.ask::<()>(&["DEL", KEY]);
        }
    }
}

/// Returns the commands that a message blames.
fn blamed(error: &StoreError) -> Vec<String> {
    let message = error.to_string();
    // The key is in the same quotes.
    let quoted = message.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase()))
        .map(str::to_owned)
        .collect()
}

/// R1
#[tokio::test]
async fn renamed_command_is_misconfigured_and_alone_blamed() {
    for renamed in [
        &["INFO"][..],
        &["TIME"],
        &["PERSIST"],
        &["HSET"],
        &["HDEL"],
        &["HMGET"],
        &["INFO", "TIME", "HINCRBY"],
        &["EVAL"],
    ] {
        let mut arguments = vec![];
        // The test needs `INFO` to identify the server.
        let rename = |command: &str| if command == "INFO" { "TELL" } else { "" };
        for command in renamed {
            arguments.extend(["--rename-command", command, rename(command)]);
        }
        let Some(server) = server_with(&arguments) else { return };
        let error = everything(&store(&server)).await.unwrap_err();
        assert!(error.is_misconfigured(), "{renamed:?}: {error}");
        let mut expected = renamed.to_vec();
        expected.sort_unstable();
        assert_eq!(blamed(&error), expected, "{error}");
    }
}

/// R1
#[tokio::test]
async fn channels_may_be_renamed_or_forbidden() {
    for renamed in [&["PUBLISH"][..], &["SUBSCRIBE"], &["UNSUBSCRIBE"], &["PUBLISH", "SUBSCRIBE"]] {
        let mut arguments = vec![];
        for command in renamed {
            arguments.extend(["--rename-command", command, ""]);
        }
        let Some(server) = server_with(&arguments) else { return };
        everything(&store(&server)).await.unwrap();
    }
}

/// R2
#[tokio::test]
async fn server_whose_hello_is_renamed_does_not_speak_resp3() {
    let Some(server) = server_with(&["--rename-command", "HELLO", ""]) else { return };
    let error = store(&server).load().await.unwrap_err();
    let message = error.to_string();
    assert!(error.is_misconfigured() && message.contains("does not speak RESP3"), "{message}");
    assert!(!message.contains("EVAL") && !message.contains("older"), "{message}");
}

#[tokio::test]
async fn password_is_required_and_never_shown() {
    let Some(server) = server() else { return };
    let port = server.port();
    server.ask::<()>(&["ACL", "SETUSER", "fleet", "on", ">open sesame", "~*", "&*", "+@all"]);
    server.ask::<()>(&["CONFIG", "SET", "requirepass", "open/sesame"]);
    for right in ["fleet:open%20sesame", ":open%2Fsesame", "default:open%2Fsesame"] {
        let store = store_at(&format!("redis://{right}@127.0.0.1:{port}/0"));
        everything(&store).await.unwrap();
        let shown = format!("{store:?} {} {:?}", store.describe(), store.lock(SECOND).await);
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(shown.contains(&format!("the key `{KEY}` of the Redis at 127.0.0.1:{port}")));
    }
    for (wrong, what) in [
        ("", "requires a password"),
        (":sesame@", "refuses the user or the password"),
        ("nobody:open%20sesame@", "refuses the user or the password"),
    ] {
        let store = store_at(&format!("redis://{wrong}127.0.0.1:{port}/"));
        let error = store.load().await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_misconfigured() && said.contains(what), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[tokio::test]
async fn each_database_has_its_own_keys() {
    let Some(server) = server() else { return };
    let first = record(None, "1");
    save(&store(&server), &first, None).await;
    let other = store_at(&format!("{}3", server.url()));
    everything(&other).await.unwrap();
    let none = store_at(&format!("{}99", server.url()));
    let error = none.load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("no database"), "{error}");
}

#[tokio::test]
async fn key_with_another_kind_of_data_is_left_unchanged() {
    let Some(server) = server() else { return };
    let store = store(&server);
    server.ask::<()>(&["SET", KEY, "sesame"]);
    for error in [
        store.load().await.unwrap_err(),
        store.lock(SECOND).await.unwrap_err(),
        store.save(&record(None, "1"), None).await.unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(
            error.is_misconfigured() && said.contains("another kind of data under the key"),
            "{said}"
        );
    }
    assert_eq!(server.ask::<String>(&["GET", KEY]), "sesame");
}

#[test]
fn invalid_url_is_an_error_that_does_not_show_it() {
    for url in [
        "",
        "sesame",
        "http://:sesame@127.0.0.1/",
        "redis://:sesame@/",
        "redis://:sesame@127.0.0.1:port/",
        "redis://:sesame@127.0.0.1/database",
        "redis://127.0.0.1/?protocol=sesame",
        "redis://user:se#same@127.0.0.1/",
    ] {
        let error = RedisStore::new(url, "grant").unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_misconfigured() && said.contains("the URL cannot be used"), "{said}");
        assert!(!said.contains("same"), "{said}");
    }
    let error = RedisStore::new("redis://127.0.0.1/", "").unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("needs a key"), "{error}");
}

#[test]
fn missing_tls_library_is_misconfigured() {
    // Other packages of the build may have enabled it.
    let Err(error) = RedisStore::new("rediss://:sesame@127.0.0.1/", "grant") else { return };
    let said = error.to_string();
    assert!(error.is_misconfigured() && said.contains("tokio-rustls-comp"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn lease_and_timeout_are_clamped() {
    let store = RedisStore::new("redis://[::1]:1/", "grant").unwrap();
    assert_eq!(store.describe(), "the key `tower-refresh:grant` of the Redis at [::1]:1");
    assert_eq!(store.clone().lease(Duration::ZERO).lease, ms(100));
    assert_eq!(store.clone().lease(Duration::MAX).lease, Duration::from_secs(86400));
    assert_eq!(store.timeout(Duration::MAX).timeout, Duration::from_secs(86400));
}

#[tokio::test]
async fn connect_with_opens_every_connection() {
    let Some(server) = server() else { return };
    let port = server.port();
    server.ask::<()>(&["ACL", "SETUSER", "fleet", "on", ">sesame", "~*", "&*", "+@all"]);
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    // Nothing listens on port 1.
    let store = store_at("redis://fleet:sesame@127.0.0.1:1/3").connect_with(move || {
        count.fetch_add(1, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", port))
    });
    everything(&store).await.unwrap();
    store.connector.forget();
    everything(&store).await.unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connection_without_an_answer_is_closed_with_the_store() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = RedisStore::new("redis://127.0.0.1:1/", "grant")
        .unwrap()
        .timeout(ms(200))
        .connect_with(move || TcpStream::connect(address));
    let serve = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut asked = [0; 8192];
        assert!(client.read(&mut asked).await.unwrap() > 0);
        client.write_all(b"%1\r\n+proto\r\n:3\r\n").await.unwrap();
        while client.read(&mut asked).await.is_ok_and(|length| length > 0) {}
    });
    let error = store.load().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    drop(store);
    tokio::time::timeout(LONG, serve).await.expect("the connection is open").unwrap();
}

#[tokio::test]
async fn error_of_connect_with_is_reported() {
    for (kind, is_misconfigured) in [
        (io::ErrorKind::InvalidData, true),
        (io::ErrorKind::PermissionDenied, true),
        (io::ErrorKind::ConnectionRefused, false),
    ] {
        let store = store_at("redis://127.0.0.1:1/").connect_with(move || async move {
            Err::<TcpStream, _>(io::Error::new(kind, "unknown issuer"))
        });
        let error = store.load().await.unwrap_err();
        assert_eq!(error.is_misconfigured(), is_misconfigured, "{error}");
        assert_eq!(error.is_unavailable(), !is_misconfigured, "{error}");
        assert!(error.to_string().contains("unknown issuer"), "{error}");
    }
}
