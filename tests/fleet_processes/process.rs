//! The handle of another process, which ends with it.

use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::worker::{Counts, Orders};

/// Longer than any step takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Said>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Said {
    #[expect(clippy::disallowed_types, reason = "held for a moment, and never across an await")]
    lines: std::sync::Mutex<Vec<Value>>,
    more: Notify,
}

impl Process {
    pub fn start(orders: &Orders) -> Self {
        let (name, value) = orders.to_environment();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--ignored", "--nocapture"])
            .env(name, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = Arc::new(Said::default());
        let heard = Arc::clone(&said);
        let listening = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // Other lines are those of the test harness. The last line of a killed process may be incomplete.
                if line.starts_with('{')
                    && let Ok(line) = serde_json::from_str(&line)
                {
                    heard.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    heard.more.notify_waiters();
                }
            }
        });
        Self { child, stdin, said, listening }
    }

    // ===== reports =====

    /// Returns all reports so far.
    pub fn said(&self) -> Vec<Value> {
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of reports that have all fields of `pattern`.
    pub fn count(&self, pattern: &Value) -> usize {
        self.said().iter().filter(|line| matches(line, pattern)).count()
    }

    /// Waits for a number of reports that match a pattern, and returns the last of them.
    pub async fn says(&self, times: usize, pattern: Value) -> Value {
        let heard = async {
            loop {
                let more = self.said.more.notified();
                let mut more = std::pin::pin!(more);
                more.as_mut().enable();
                let mut said = self.said().into_iter().filter(|line| matches(line, &pattern));
                if let Some(line) = said.nth(times.saturating_sub(1)) {
                    return line;
                }
                more.await;
            }
        };
        match timeout(LONG, heard).await {
            Ok(line) => line,
            Err(_) => panic!("no report {pattern} among: {}", self.transcript()),
        }
    }

    pub fn transcript(&self) -> String {
        self.said().iter().map(|line| format!("\n    {line}")).collect()
    }

    /// Returns the refresh tokens that it announced, and whether it had reported before that their fate was unknown.
    pub fn sent(&self) -> Vec<(u64, bool)> {
        let said = self.said();
        let sent = said.iter().filter_map(|line| {
            Some((line.get("sending")?.as_u64()?, line.get("told")?.as_bool()?))
        });
        sent.collect()
    }

    // ===== orders =====

    pub async fn tell(&mut self, what: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    /// Gives an order, and returns the report of its outcome.
    pub async fn ask(&mut self, what: &str) -> Value {
        let word = what.split(' ').next().unwrap();
        let pattern = serde_json::json!({ "did": word });
        let times = self.count(&pattern);
        self.tell(what).await;
        self.says(times + 1, pattern).await
    }

    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it, like `kill -9`.
    pub async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.dies().await;
    }

    /// Waits until it has killed itself.
    pub async fn dies(&mut self) {
        let ended = timeout(LONG, self.child.wait()).await;
        assert!(!ended.expect("it ends").unwrap().success());
        self.hear_out().await;
    }

    /// Ends it in order, and returns its counters.
    pub async fn end(&mut self) -> Counts {
        drop(self.stdin.take());
        let counts = self.says(1, serde_json::json!({ "settled": true })).await;
        let ended = timeout(LONG, self.child.wait()).await;
        assert!(ended.expect("it ends").unwrap().success());
        self.hear_out().await;
        serde_json::from_value(counts["counts"].clone()).unwrap()
    }

    async fn hear_out(&mut self) {
        timeout(LONG, &mut self.listening).await.expect("its output ends with it").unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap()));
        kill_process(pid.expect("it runs"), signal).unwrap();
    }
}

fn matches(line: &Value, pattern: &Value) -> bool {
    let pattern = pattern.as_object().unwrap();
    pattern.iter().all(|(name, value)| line.get(name) == Some(value))
}
