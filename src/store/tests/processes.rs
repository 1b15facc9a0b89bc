//! Several processes: this test program, started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::*;

/// Runs one command for each line of its input, and prints the results, if this process is a [`Worker`]. `open` returns the store
/// with a URL, and `other` runs the commands of one kind of store.
pub(crate) fn work<S: TokenStore>(
    open: impl FnOnce(&str) -> S,
    other: impl AsyncFn(&S, &str) -> String,
) {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&url);
        let mut lock = None;
        let mut found = None;
        for line in std::io::stdin().lines() {
            let said = match &*line.unwrap() {
                "lock" => {
                    lock = Some(store.lock(LONG).await.unwrap());
                    "locked".to_owned()
                }
                "is held" => held(lock.as_ref().unwrap()).await.to_string(),
                "release" => {
                    lock.take().unwrap().release().await;
                    "released".to_owned()
                }
                "load" => {
                    found = store.load().await.unwrap();
                    "loaded".to_owned()
                }
                "save" => {
                    let next = record(found.as_ref(), "next");
                    match store.save(&next, found.as_ref().map(StoredTokens::write_id)).await {
                        Ok(()) => next.write_id().to_string(),
                        Err(error) => error.to_string(),
                    }
                }
                "take turns" => take_turns(&store).await,
                command => other(&store, command).await,
            };
            println!("worker: {said}");
        }
    });
}

/// Replaces the record again and again, and meets no other save.
async fn take_turns(store: &impl TokenStore) -> String {
    for _ in 0..TURNS {
        let lock = store.lock(LONG).await.unwrap();
        let found = store.load().await.unwrap();
        let next = record(found.as_ref(), "next");
        // Without the lock, this would be a conflict now and then.
        store.save(&next, found.as_ref().map(StoredTokens::write_id)).await.unwrap();
        assert!(held(&lock).await);
        lock.release().await;
    }
    "took turns".into()
}

/// A process that runs the commands of [`work`].
pub(crate) struct Worker {
    process: Child,
    tell: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one for the store with this URL. It runs the test `worker` of the module, which calls [`work`].
    pub(crate) fn start(module: &str, url: &str) -> Self {
        let (_, module) = module.split_once("::").unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::worker"), "--nocapture", "--test-threads", "1"])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tell = process.stdin.take().unwrap();
        let hear = BufReader::new(process.stdout.take().unwrap());
        Self { process, tell, hear }
    }

    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.tell, "{what}").unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.hear.read_line(&mut line).unwrap(), 0, "the worker has ended");
            // The line may begin with output of the test harness.
            if let Some((_, said)) = line.trim_end().split_once("worker: ") {
                return said.to_owned();
            }
        }
    }

    fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear()
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) async fn lock_is_exclusive_among_processes(
    start: impl Fn() -> Worker,
    store: impl TokenStore,
) {
    const WORKERS: u64 = 4;

    let mut workers: Vec<_> = (0..WORKERS).map(|_| start()).collect();
    let started = Instant::now();
    for worker in &mut workers {
        worker.tell("take turns");
    }
    for worker in &mut workers {
        assert_eq!(worker.hear(), "took turns");
    }
    let turns = WORKERS * TURNS;
    println!("{turns} turns of {WORKERS} processes took {:?}", started.elapsed());
    let found = store.load().await.unwrap().unwrap();
    assert_eq!(found.revision(), turns);
}

pub(crate) async fn lock_of_a_killed_process_ends_with_its_lease(
    mut worker: Worker,
    store: impl TokenStore,
) {
    assert_eq!(worker.ask("lock"), "locked");
    drop(worker);
    let asked = Instant::now();
    store.lock(LONG).await.unwrap().release().await;
    println!("a lease of {LEASE:?} was over after {:?}", asked.elapsed());
}

pub(crate) async fn frozen_holder_loses_the_lock_and_may_save_a_successor(
    mut worker: Worker,
    here: impl TokenStore,
) {
    let first = record(None, "1");
    save(&here, &first, None).await;
    for conflicts in [false, true] {
        assert_eq!(worker.ask("lock"), "locked");
        assert_eq!(worker.ask("load"), "loaded");
        assert_eq!(worker.ask("is held"), "true");
        worker.signal("-STOP");
        let asked = Instant::now();
        let lock = here.lock(LONG).await.unwrap();
        println!("a lease of {LEASE:?} was over after {:?}", asked.elapsed());
        let found = here.load().await.unwrap().unwrap();
        if conflicts {
            save(&here, &record(Some(&found), "here"), Some(&found)).await;
        }
        worker.signal("-CONT");

        assert_eq!(worker.ask("is held"), "false");
        let said = worker.ask("save");
        if conflicts {
            assert!(said.contains("the store has changed"), "{said}");
        } else {
            // It is the successor of the stored record: its refresh token is the one that works.
            assert_eq!(loaded(&here).await.unwrap().to_string(), said);
        }
        assert_eq!(worker.ask("release"), "released");
        assert!(held(&lock).await, "the worker has not released the lock of another owner");
        lock.release().await;
    }
}

/// The URL of a worker's store.
const URL: &str = "TOWER_REFRESH_TEST_WORKER";

/// The lease of the stores of workers.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How often a worker replaces the record.
const TURNS: u64 = 40;
