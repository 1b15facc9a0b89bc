//! What a human set up, well or not.

use super::*;
use crate::store::StoreError;

/// The line in the documentation of `RedisStore`.
const PERMITTED: [&str; 15] = [
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
    "+select",
];

/// Of which these are not needed by everything that [`everything`] asks.
const FOR_SOME: [&str; 3] = ["+select", "+subscribe", "+publish"];

async fn everything(store: &RedisStore) -> Result<(), StoreError> {
    let lock = store.lock(SECOND).await?;
    let found = store.load().await?;
    let next = record(found.as_ref(), "next");
    let open = intent(&next);
    store.save(&next, found.as_ref().map(StoredTokens::write_id)).await?;
    store.save(&open, Some(next.write_id())).await?;
    assert!(lock.is_held().await?);
    let error = store.lock(ms(100)).await.unwrap_err();
    if !error.is_held() {
        return Err(error);
    }
    lock.release().await;
    if is_free(store).await { Ok(()) } else { Err(StoreError::misconfigured("not let go of")) }
}

#[tokio::test]
async fn a_user_needs_what_the_documentation_says_and_no_more() {
    let documentation = include_str!("../mod.rs");
    assert!(documentation.contains(&PERMITTED.join(" ")), "{}", PERMITTED.join(" "));

    let Some(server) = Server::start() else { return };
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
            // What could be taken is let go of, or not taken at all.
            server.ask::<()>(&["DEL", KEY]);
        }
    }
}

/// The commands that a message blames.
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
        // The test asks the server who it is.
        let rename = |command: &str| if command == "INFO" { "TELL" } else { "" };
        for command in renamed {
            arguments.extend(["--rename-command", command, rename(command)]);
        }
        let Some(server) = Server::start_with(&arguments) else { return };
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
    for renamed in [&["PUBLISH"][..], &["SUBSCRIBE"], &["PUBLISH", "SUBSCRIBE"]] {
        let mut arguments = vec![];
        for command in renamed {
            arguments.extend(["--rename-command", command, ""]);
        }
        let Some(server) = Server::start_with(&arguments) else { return };
        everything(&store(&server)).await.unwrap();
    }
}

/// R2
#[tokio::test]
async fn server_whose_hello_is_renamed_does_not_speak_resp3() {
    let Some(server) = Server::start_with(&["--rename-command", "HELLO", ""]) else { return };
    let error = store(&server).load().await.unwrap_err();
    let message = error.to_string();
    assert!(error.is_misconfigured() && message.contains("does not speak RESP3"), "{message}");
    assert!(!message.contains("EVAL") && !message.contains("older"), "{message}");
}

#[tokio::test]
async fn the_password_is_asked_for_and_never_shown() {
    let Some(server) = Server::start() else { return };
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
        ("", "wants a password"),
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
async fn a_database_has_its_own_keys() {
    let Some(server) = Server::start() else { return };
    let first = record(None, "1");
    save(&store(&server), &first, None).await;
    let other = store_at(&format!("{}3", server.url()));
    everything(&other).await.unwrap();
    let none = store_at(&format!("{}99", server.url()));
    let error = none.load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("no database"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_something_else_is_left_alone() {
    let Some(server) = Server::start() else { return };
    let store = store(&server);
    server.ask::<()>(&["SET", KEY, "sesame"]);
    for error in [
        store.load().await.unwrap_err(),
        store.lock(SECOND).await.unwrap_err(),
        store.save(&record(None, "1"), None).await.unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(
            error.is_misconfigured() && said.contains("something else under the key"),
            "{said}"
        );
    }
    assert_eq!(server.ask::<String>(&["GET", KEY]), "sesame");
}

#[test]
fn a_url_that_cannot_be_used_is_told_and_not_shown() {
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
fn tls_that_is_not_built_in_is_told() {
    // Whether it is depends on who else uses the client.
    let Err(error) = RedisStore::new("rediss://:sesame@127.0.0.1/", "grant") else { return };
    let said = error.to_string();
    assert!(error.is_misconfigured() && said.contains("tokio-rustls-comp"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn settings_are_kept_within_reason() {
    let store = RedisStore::new("redis://[::1]:1/", "grant").unwrap();
    assert_eq!(store.describe(), "the key `tower-refresh:grant` of the Redis at [::1]:1");
    assert_eq!(store.clone().lease(Duration::ZERO).lease, ms(100));
    assert_eq!(store.clone().lease(Duration::MAX).lease, Duration::from_secs(86400));
    assert_eq!(store.timeout(Duration::MAX).timeout, Duration::from_secs(86400));
}
