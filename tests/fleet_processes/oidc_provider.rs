//! Eight processes against node-oidc-provider, which destroys the whole session when a refresh token is used twice.
//!
//! `tests/third_party/oidc_provider/run` installs the server and runs this.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};
use tower_refresh::testing::AuthorizationServer;

use crate::process::{LONG, Process};
use crate::stage::{Kind, Stage, print_figures};
use crate::worker::{Counts, Orders};

const EXPIRIES: usize = 30;

mod file {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "tests/third_party/oidc_provider/run runs it"]
    async fn eight_processes_send_one_token_request_per_expiry() {
        super::eight_processes_send_one_token_request_per_expiry(crate::stage::Kind::File).await;
    }
}

mod redis {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "tests/third_party/oidc_provider/run runs it"]
    async fn eight_processes_send_one_token_request_per_expiry() {
        super::eight_processes_send_one_token_request_per_expiry(crate::stage::Kind::Redis).await;
    }
}

async fn eight_processes_send_one_token_request_per_expiry(kind: Kind) {
    // A run of all ignored tests has not installed the server.
    let Some(mut server) = OidcProvider::start().await else { return };
    let Some(stage) = Stage::new(kind, AuthorizationServer::new()).await else { return };
    let says = |name: &str| server.said[name].as_str().unwrap().to_owned();
    let orders = Orders {
        token_endpoint: says("token_endpoint"),
        client: Some((says("client_id"), says("client_secret"))),
        api: format!("{}/me", says("api")),
        pause_ms: 80,
        ..stage.orders(&says("refresh_token"))
    };

    let began = Instant::now();
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(&orders)).collect();
    let sent =
        |processes: &[Process]| processes.iter().map(|process| process.sent().len()).sum::<usize>();
    let all = async {
        while sent(&processes) <= EXPIRIES {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, all).await.expect("all expiries");
    let mut counts = Vec::new();
    for process in &mut processes {
        counts.push(process.end().await);
    }
    let took = began.elapsed();
    server.ask().await;

    let counted = |name: &str| server.said[name].as_u64().unwrap();
    let sum = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    let (requests, accepted) = (sum(|counts| counts.requests), sum(|counts| counts.accepted));
    print_figures(&format!(
        "eight processes over a store ({kind:?}) against oidc-provider: {} token requests in {took:.1?}, {} granted, {} refused, {} grants destroyed; {requests} requests, {} failed; {} renewed, {} of them adopted",
        counted("token_requests"),
        counted("granted"),
        counted("refused"),
        counted("grants_destroyed"),
        requests - accepted,
        sum(|counts| counts.renewed),
        sum(|counts| counts.adopted),
    ));
    assert_eq!((counted("refused"), counted("grants_destroyed")), (0, 0));
    assert_eq!(counted("granted"), counted("token_requests"));
    let failures: Vec<Value> =
        processes.iter().flat_map(Process::said).filter(|line| line["event"] == "failed").collect();
    assert_eq!(counted("token_requests"), sent(&processes) as u64, "{failures:?}");
    assert_eq!(requests, accepted);
    // Each process got each token: by its own request or by adoption, unless the process ended before.
    assert_eq!(
        sum(|counts| counts.renewed),
        sum(|counts| counts.adopted) + counted("token_requests")
    );
    // A token lives for at least a second.
    assert!(u128::from(counted("token_requests")) <= took.as_millis() / 1000 + 1);
    assert!(!stage.stored().await.unwrap().has_open_intent());
}

/// The server, which ends when its standard input does.
struct OidcProvider {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its last report.
    said: Value,
}

impl OidcProvider {
    async fn start() -> Option<Self> {
        let (node, server) =
            (std::env::var_os("OIDC_PROVIDER_NODE")?, std::env::var_os("OIDC_PROVIDER_SERVER")?);
        let mut child = Command::new(node)
            .arg(server)
            .env("ACCESS_TOKEN_SECONDS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Self { _child: child, stdin, lines, said: Value::Null };
        server.hear().await;
        Some(server)
    }

    async fn ask(&mut self) {
        self.stdin.write_all(b"\n").await.unwrap();
        self.hear().await;
    }

    /// Other output of the library is not JSON.
    async fn hear(&mut self) {
        loop {
            let line = timeout(LONG, self.lines.next_line()).await.expect("it speaks").unwrap();
            let line = line.expect("it runs");
            if line.starts_with('{') {
                self.said = serde_json::from_str(&line).unwrap();
                return;
            }
        }
    }
}
