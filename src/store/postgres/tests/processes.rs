//! Several processes: this test program, started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::*;

const URL: &str = "TOWER_REFRESH_TEST_POSTGRES_WORKER";

/// Runs one command for each line of its input, and prints the results. The other tests start it.
#[test]
fn worker() {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = listening(&url).lease(LEASE);
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
                "migrate" => match store.migrate().await {
                    Ok(()) => "migrated".to_owned(),
                    Err(error) => error.to_string(),
                },
                "save" => {
                    let next = record(found.as_ref(), "next");
                    match store.save(&next, found.as_ref().map(StoredTokens::write_id)).await {
                        Ok(()) => next.write_id().to_string(),
                        Err(error) => error.to_string(),
                    }
                }
                "take turns" => take_turns(&store).await,
                other => panic!("{other}?"),
            };
            println!("worker: {said}");
        }
    });
}

const LEASE: Duration = Duration::from_secs(3);

const TURNS: u64 = 40;

/// Replaces the record again and again, and meets no other save.
async fn take_turns(store: &PostgresStore) -> String {
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

struct Worker {
    process: Child,
    tell: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Worker {
    fn start(database: &Database) -> Self {
        let module = module_path!().split_once("::").unwrap().1;
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::worker"), "--nocapture", "--test-threads", "1"])
            .env(URL, &database.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tell = process.stdin.take().unwrap();
        let hear = BufReader::new(process.stdout.take().unwrap());
        Self { process, tell, hear }
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.tell, "{what}").unwrap();
    }

    fn hear(&mut self) -> String {
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

#[tokio::test]
async fn lock_is_exclusive_among_processes() {
    const WORKERS: u64 = 4;

    let Some(database) = Database::new().await else { return };
    let mut workers: Vec<_> = (0..WORKERS).map(|_| Worker::start(&database)).collect();
    let started = Instant::now();
    for worker in &mut workers {
        worker.tell("take turns");
    }
    for worker in &mut workers {
        assert_eq!(worker.hear(), "took turns");
    }
    let turns = WORKERS * TURNS;
    println!("{turns} turns of {WORKERS} processes took {:?}", started.elapsed());
    let found = database.store().load().await.unwrap().unwrap();
    assert_eq!(found.revision(), turns);
}

#[tokio::test]
async fn several_processes_may_create_the_table_at_once() {
    let Some(server) = SERVER.as_ref() else { return };
    let database = Database::empty_on(server).await;
    let mut workers: Vec<_> = (0..6).map(|_| Worker::start(&database)).collect();
    for _ in 0..10 {
        for worker in &mut workers {
            worker.tell("migrate");
        }
        for worker in &mut workers {
            assert_eq!(worker.hear(), "migrated");
        }
        database.run("DROP TABLE tower_refresh").await;
    }
}

#[tokio::test]
async fn lock_of_a_killed_process_ends_with_its_lease() {
    let Some(database) = Database::new().await else { return };
    let mut worker = Worker::start(&database);
    assert_eq!(worker.ask("lock"), "locked");
    drop(worker);
    let asked = Instant::now();
    database.store().lock(LONG).await.unwrap().release().await;
    println!("a lease of {LEASE:?} was over after {:?}", asked.elapsed());
}

#[tokio::test]
async fn frozen_holder_loses_the_lock_and_may_save_a_successor() {
    let Some(database) = Database::new().await else { return };
    let here = database.store();
    let mut worker = Worker::start(&database);
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
