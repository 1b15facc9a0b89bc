//! Answers that a server may give, from a server with fixed answers. Needs no Redis.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const GREETING: &str = "%1\r\n+proto\r\n:3\r\n";

/// Loads from a server that answers everything after the greeting like this.
async fn load(answer: &'static str) -> StoreError {
    load_from(GREETING, Some(answer)).await
}

/// Loads from a server that greets like this, and answers everything else like that or closes the connection.
async fn load_from(greeting: &'static str, answer: Option<&'static str>) -> StoreError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let serve = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut asked = [0; 8192];
                let mut reply = Some(greeting);
                while client.read(&mut asked).await.is_ok_and(|length| length > 0) {
                    let Some(said) = reply.filter(|said| !said.is_empty()) else { return };
                    client.write_all(said.as_bytes()).await.unwrap();
                    reply = answer;
                }
            });
        }
    });
    let error = store_at(&url).load().await.unwrap_err();
    serve.abort();
    error
}

#[tokio::test]
async fn error_that_may_pass_is_unavailable() {
    for (answer, what) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", "loading its data"),
        ("-OOM command not allowed when used memory > 'maxmemory'. sesame\r\n", "out of memory"),
        ("-MISCONF Errors writing to the AOF file: No space left on device\r\n", "its disk"),
        ("-READONLY You can't write against a read only replica.\r\n", "is a replica"),
        ("-BUSY Redis is busy running a script.\r\n", "is busy"),
        ("-NOREPLICAS Not enough good replicas to write.\r\n", "too few replicas"),
        ("-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN"),
        ("-ERR max number of clients reached\r\n", "too many clients"),
        ("-CLUSTERDOWN Hash slot not served\r\n", "Redis Cluster that is down"),
        ("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "Redis Cluster"),
        ("-ERR sesame\r\n", "the error ERR"),
        ("-sesame\r\n", "unexpected answer"),
        ("$6\r\nsesame\r\n", "unexpected answer"),
        ("*2\r\n$6\r\nsesame\r\n$6\r\nsesame\r\n", "unexpected answer"),
        // Redis 6.
        (
            "-ERR Error running script (call to f_1f): @user_script:9: -OOM command not allowed when used memory > 'maxmemory'.\r\n",
            "out of memory",
        ),
        (
            "-ERR Error running script (call to f_1f): @user_script:9: @user_script: 9: -READONLY You can't write against a read only replica.\r\n",
            "is a replica",
        ),
    ] {
        let error = load(answer).await;
        let said = error.to_string();
        assert!(error.is_unavailable() && said.contains(what), "{answer} {said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

/// R1, for commands that are forbidden in scripts, among others.
#[tokio::test]
async fn error_that_may_not_pass_is_misconfigured() {
    for (answer, what) in [
        ("-NOAUTH Authentication required.\r\n", "requires a password"),
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "refuses the user"),
        ("-NOPERM this user has no permissions to run the 'eval' command\r\n", "know `EVAL`"),
        ("-ERR The user executing the script can't run this command\r\n", "not permit"),
        (
            "-WRONGTYPE Operation against a key holding the wrong kind\r\n",
            "another kind of data under",
        ),
        ("-MOVED 3999 127.0.0.1:6381\r\n", "Redis Cluster"),
        ("-ERR unknown command 'EVAL', with args beginning with: 'sesame'\r\n", "know `EVAL`"),
        ("-ERR command 'eval' is not allowed sesame\r\n", "know `EVAL`"),
        ("-ERR unsupported command sesame\r\n", "know `EVAL`"),
        ("-invalid request sesame\r\n", "know `EVAL`"),
        ("-ERR unknown command 'EVAL' 'local script = sesame'\r\n", "know `EVAL`"),
        (
            "-ERR Error running script (call to f_1f): @user_script:4: Unknown Redis command called from Lua script\r\n",
            "a command that they call in scripts",
        ),
        (
            "-ERR Unknown Redis command called from script script: 1f, on @user_script:4.\r\n",
            "a command that they call in scripts",
        ),
        ("-NOPERM this user has no permissions to access one of the keys\r\n", "the key"),
        ("-DENIED Redis is running in protected mode because sesame\r\n", "protected mode"),
        ("-ERR operation not permitted\r\n", "requires a password"),
        ("-ERR invalid password\r\n", "refuses the user"),
        ("-EVICTION sesame!\r\n", "may evict"),
        (
            "-ERR Error running script (call to f_1f): @user_script:9: -WRONGTYPE Operation against a key\r\n",
            "another kind of data under",
        ),
    ] {
        let error = load(answer).await;
        let said = error.to_string();
        assert!(error.is_misconfigured() && said.contains(what), "{answer} {said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[tokio::test]
async fn answer_of_an_http_server_is_unavailable() {
    let error = load("HTTP/1.1 400 sesame\r\n\r\n").await;
    let said = error.to_string();
    assert!(error.is_unavailable() && !said.contains("sesame"), "{said}");
}

/// R2
#[tokio::test]
async fn server_without_resp3_is_misconfigured_and_eval_not_blamed() {
    for greeting in [
        "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
        "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n",
        "-ERR unknown command 'hello'\r\n",
        "-ERR unknown command\r\n",
        "-ERR unsupported command\r\n",
        "-ERR Command is not available: 'HELLO'\r\n",
        "-NOPROTO unsupported protocol version\r\n",
        "-NOPROTO sorry this protocol version is not supported\r\n",
        "-invalid request\r\n",
    ] {
        let error = load_from(greeting, Some("-ERR unknown command\r\n")).await;
        let message = error.to_string();
        assert!(error.is_misconfigured(), "{greeting} {message}");
        assert!(message.contains("does not speak RESP3"), "{greeting} {message}");
        for blamed in ["EVAL", "older"] {
            assert!(!message.contains(blamed), "{message}");
        }
    }
    for (greeting, words) in [
        ("-NOAUTH HELLO must be called with the client already authenticated\r\n", "a password"),
        ("-WRONGPASS invalid username-password pair\r\n", "refuses the user"),
        ("-DENIED Redis is running in protected mode\r\n", "protected mode"),
    ] {
        let error = load_from(greeting, None).await;
        assert!(error.is_misconfigured() && error.to_string().contains(words), "{error}");
    }
    let error = load_from("-LOADING Redis is loading\r\n", None).await;
    assert!(error.is_unavailable() && error.to_string().contains("loading its data"), "{error}");
}

/// R3
#[tokio::test]
async fn closed_connection_is_reported_as_such_and_nothing_is_blamed() {
    for greeting in ["", GREETING] {
        let error = load_from(greeting, None).await;
        let message = error.to_string();
        assert!(error.is_unavailable(), "{message}");
        assert!(message.contains("closed the connection without an answer"), "{message}");
        for blamed in ["EVAL", "RESP3", "older", "HELLO"] {
            assert!(!message.contains(blamed), "{message}");
        }
    }
}
