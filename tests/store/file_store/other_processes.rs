//! Tests that require a process of their own: locks across processes, kills, mounted file systems, strace.
//!
//! The other process is this program again, with its orders in the environment.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_refresh::store::{FileStore, StoreLock as _, TokenStore as _};
use tower_refresh::{Credentials, TokenSet, source_fn};

use super::support::{id, intent, record, record_of_length, skipped};
use crate::folder::{Folder, names};

const DO: &str = "TOWER_REFRESH_FILE_STORE_DO";
const FILE: &str = "TOWER_REFRESH_FILE_STORE_FILE";

const AT_ONCE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

/// The entry of the other processes.
#[tokio::test]
#[ignore = "is run by the other tests, in a process of its own"]
async fn other_process() {
    let (Ok(what), Ok(path)) = (std::env::var(DO), std::env::var(FILE)) else { return };
    let store = FileStore::new(&path);
    match what.as_str() {
        "hold the lock" => hold_the_lock(&store).await,
        "save" => save(&store).await,
        "save without end" => save_without_end(&store).await,
        "count" => count(&store).await,
        "fill the disk" => fill_the_disk(&store, Path::new(&path)).await,
        "refresh on a full disk" => refresh_on_a_full_disk(store, Path::new(&path)).await,
        "be read-only" => be_read_only(&store, Path::new(&path)).await,
        "be without fallocate" => be_without_fallocate(&store, Path::new(&path)).await,
        "be on a network" => be_on_a_network(store, Path::new(&path)).await,
        "be mounted" => be_mounted(&store, Path::new(&path)).await,
        "be another user" => be_another_user(&store).await,
        other => panic!("unknown order: {other}"),
    }
}

/// Returns the command for an order in a process of its own, run by the program and its arguments, if any.
fn other(by: &[&str], what: &str, path: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match by {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command
        .args([
            "--exact",
            "file_store::other_processes::other_process",
            "--include-ignored",
            "--nocapture",
        ])
        .env(DO, what)
        .env(FILE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process that has reported that it is ready. It is killed when it is dropped.
struct Running {
    child: Child,
    stdin: ChildStdin,
    _stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(what: &str, path: &Path) -> Self {
        let mut child = other(&[], what, path).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.ends_with("ready\n") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "{what} ended early");
        }
        Self { child, stdin, _stdout: stdout }
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
}

/// Runs a command, which must succeed.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Returns whether the command works on this machine, and reports the skipped test if it does not.
fn can(command: &[&str]) -> bool {
    let can = works(command);
    if !can {
        skipped(&format!("`{}` does not work here", command.join(" ")));
    }
    can
}

fn works(command: &[&str]) -> bool {
    Command::new(command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

// ===== locks and kills =====

async fn hold_the_lock(store: &FileStore) {
    let lock = store.lock(LONG).await.unwrap();
    ready();
    // Until the test writes a line, or ends.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    lock.release().await;
    ready();
    line.clear();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[tokio::test]
async fn one_process_at_a_time_holds_the_lock() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let mut other = Running::start("hold the lock", &path);
    assert!(store.lock(Duration::from_millis(100)).await.unwrap_err().is_held());
    other.stdin.write_all(b"\n").unwrap();
    let lock = store.lock(LONG).await.unwrap();
    assert!(lock.is_held().await.unwrap());
}

#[tokio::test]
async fn the_lock_ends_with_a_process_that_is_killed() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let mut other = Running::start("hold the lock", &path);
    assert!(store.lock(AT_ONCE).await.unwrap_err().is_held());
    other.kill();
    assert!(store.lock(AT_ONCE).await.unwrap().is_held().await.unwrap());
}

async fn save_without_end(store: &FileStore) {
    ready();
    loop {
        let current = store.load().await.unwrap();
        let last = current.as_ref().map_or(0, |record| record.revision());
        let next = if last % 2 == 0 { intent(last + 1) } else { record_of_length(last + 1, 9000) };
        store.save(&next, current.map(|record| record.write_id())).await.unwrap();
    }
}

#[tokio::test]
async fn process_killed_during_a_save_leaves_a_whole_record() {
    const KILLS: u64 = 60;

    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let (mut last, mut leftovers) = (0, 0);
    for n in 0..KILLS {
        let mut other = Running::start("save without end", &path);
        tokio::time::sleep(Duration::from_micros(500 + 331 * n)).await;
        other.kill();
        leftovers += usize::from(folder.path("tokens.json.new").exists());

        let found = store.load().await.unwrap();
        let revision = found.as_ref().map_or(0, |record| record.revision());
        assert!(revision >= last, "{revision} is older than {last}");
        last = revision + 1;
        // Neither locks nor leftover files block the next save.
        store.save(&record(last), found.map(|record| record.write_id())).await.unwrap();
        assert!(!folder.path("tokens.json.new").exists());
        assert!(!folder.path("tokens.json.reserved").exists());
    }
    println!("{last} saves, {leftovers} times something was left behind");
    assert!(last > KILLS);
}

async fn count(store: &FileStore) {
    let mut counted = 0;
    while counted < 100 {
        let lock = store.lock(LONG).await.unwrap();
        let current = store.load().await.unwrap();
        let last = current.as_ref().map_or(0, |record| record.revision());
        assert!(lock.is_held().await.unwrap());
        // The lock excludes every other process.
        store.save(&record(last + 1), current.map(|record| record.write_id())).await.unwrap();
        lock.release().await;
        counted += 1;
    }
}

#[tokio::test]
async fn processes_that_hold_the_lock_never_overtake_each_other() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let others: Vec<_> = (0..4).map(|_| other(&[], "count", &path).spawn().unwrap()).collect();
    for other in others {
        let output = other.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let stored = FileStore::new(&path).load().await.unwrap().unwrap();
    assert_eq!(stored.revision(), 400);
}

// ===== modes and the order of system calls =====

/// A first record, an intent, and its successor twice.
async fn save(store: &FileStore) {
    store.save(&record(1), None).await.unwrap();
    store.save(&intent(2), Some(id(1))).await.unwrap();
    if std::env::var_os("STOP_AT_THE_INTENT").is_some() {
        drop(store.lock(AT_ONCE).await.unwrap());
        return;
    }
    store.save(&record(3), Some(id(2))).await.unwrap();
    // It has counted, but it may not have been synced.
    store.save(&record(3), Some(id(2))).await.unwrap();
}

#[test]
fn all_files_are_private_under_any_umask() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let mut command = other(&["sh", "-c", r#"umask 000; exec "$0" "$@""#], "save", &path);
    run({
        command.env("STOP_AT_THE_INTENT", "1");
        command
    });
    assert_eq!(
        folder.names(),
        ["tokens.json", "tokens.json.lock", "tokens.json.reserved", "tokens.json.save-lock"]
    );
    for name in folder.names() {
        assert_eq!(fs::metadata(folder.path(&name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn file_is_synced_before_its_rename_and_the_folder_after_it() {
    if !can(&["strace", "-f", "-o", "/dev/null", "true"]) {
        return;
    }
    let folder = Folder::new();
    let [path, trace] = ["tokens.json", "trace"].map(|name| folder.path(name));
    let calls =
        "trace=openat,write,ftruncate,fsync,fdatasync,rename,renameat,renameat2,fallocate,flock";
    let by = ["sh", "-c", r#"umask 000; exec "$0" "$@""#, "strace", "-f", "-y", "-e", calls, "-o"];
    run(other(&[&by[..], &[trace.to_str().unwrap()]].concat(), "save", &path));

    let place = folder.path("");
    let calls = calls_in(&fs::read_to_string(trace).unwrap(), place.to_str().unwrap());
    // Files that are opened only for reading are omitted.
    let shown: Vec<_> = calls.iter().map(String::as_str).collect();
    let lock = ["create 600 .save-lock", "lock .save-lock"];
    let unlock = ["unlock .save-lock"];
    let new = ["create 600 .new", "lock .new", "write .new", "truncate .new", "sync .new"];
    let rename = |from| [from, "sync folder"];
    let reserved =
        ["create 600 .reserved", "lock .reserved", "allocate .reserved", "sync .reserved"];
    let again = ["lock .reserved", "write .reserved", "truncate .reserved", "sync .reserved"];
    let expected = [
        &lock[..],
        &new,
        &rename("rename .new"),
        &["unlock "],
        &unlock,
        &lock,
        &new,
        &reserved,
        &["unlock .reserved"],
        &rename("rename .new"),
        &["unlock "],
        &unlock,
        &lock,
        &again,
        &rename("rename .reserved"),
        &["unlock "],
        &unlock,
        &lock,
        &["sync ", "sync folder"],
        &unlock,
    ];
    assert_eq!(shown, expected.concat());
}

/// Returns the calls of a trace that change a folder, in order and abbreviated.
#[cfg(target_os = "linux")]
fn calls_in(trace: &str, folder: &str) -> Vec<String> {
    let folder = folder.trim_end_matches('/');
    let mut calls = Vec::new();
    // `1234  fsync(9</folder/tokens.json.new>) = 0`. If another thread comes between, in two parts:
    // `1234  fsync(9</folder/tokens.json.new> <unfinished ...>` and `1234  <... fsync resumed>) = 0`.
    let mut begun = HashMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let mut call = call.trim_start().to_owned();
        if let Some(first) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, first.to_owned());
            continue;
        }
        if call.starts_with("<...")
            && let Some((_, rest)) = call.split_once("resumed>")
        {
            call = begun.remove(thread).unwrap_or_default() + rest;
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if !arguments.contains(folder) || !call.contains(" = ") {
            continue;
        }
        assert!(
            call.contains("= 0") || name == "openat" || name == "write" || call.contains("ENOENT"),
            "{call}"
        );
        let suffix = arguments
            .split(['"', '<', '>'])
            .find_map(|part| part.strip_prefix(&*format!("{folder}/tokens.json")));
        let mode = arguments.split(", ").last().and_then(|last| last.split(')').next());
        calls.push(match (name, suffix) {
            ("openat", Some(suffix)) if arguments.contains("O_CREAT") => {
                assert!(
                    arguments.contains("O_NOFOLLOW") && arguments.contains("O_CLOEXEC"),
                    "{call}"
                );
                format!("create {} {suffix}", mode.unwrap().trim().trim_start_matches('0'))
            }
            ("openat", _) => continue,
            ("write", Some(suffix)) => format!("write {suffix}"),
            ("ftruncate", Some(suffix)) => format!("truncate {suffix}"),
            ("fallocate", Some(suffix)) => format!("allocate {suffix}"),
            ("flock", Some(suffix)) if arguments.contains("LOCK_UN") => format!("unlock {suffix}"),
            ("flock", Some(suffix)) => format!("lock {suffix}"),
            ("fsync", Some(suffix)) => format!("sync {suffix}"),
            ("fsync", None) => "sync folder".into(),
            ("rename" | "renameat" | "renameat2", Some(suffix)) => format!("rename {suffix}"),
            _ => panic!("{call}"),
        });
    }
    calls
}

// ===== file systems =====

/// Runs the other process with a private file system of its own, if this machine can mount one.
fn on(mount: &str, what: &str) {
    let folder = Folder::new();
    let probe = format!(r#"{mount} "$0" && umount "$0""#);
    let probe = ["sh", "-c", &probe, folder.path("").to_str().unwrap()].map(str::to_owned);
    let Some(unshare) = [&["unshare", "-m"][..], &["unshare", "-r", "-m"]]
        .into_iter()
        .find(|unshare| works(&[unshare, &probe.each_ref().map(String::as_str)[..]].concat()))
    else {
        return skipped(&format!("`{mount}` does not work here"));
    };
    // The server of a FUSE file system ends when that is unmounted, and not with the process.
    let script = format!(
        r#"cd / && folder=$(dirname "${FILE}") && {mount} "$folder" && "$0" "$@"; code=$?; umount "$folder"; exit $code"#
    );
    run(other(&[unshare, &["sh", "-c", &script]].concat(), what, &folder.path("tokens.json")));
    assert!(folder.names().is_empty());
}

const TMPFS: &str = "mount -t tmpfs -o size=2m,mode=700 tmpfs";

#[test]
fn a_disk_that_is_full_fails_the_intent_and_not_what_follows_it() {
    on(TMPFS, "fill the disk");
}

async fn fill_the_disk(store: &FileStore, path: &Path) {
    let folder = path.parent().unwrap();
    let filler = folder.join("filler");
    // Leaves this much room.
    let fill = |left: usize| {
        let _ = fs::remove_file(&filler);
        let mut file = fs::File::create(&filler).unwrap();
        let piece = [1; 4096];
        let mut written = 0;
        while file.write_all(&piece).is_ok() {
            written += piece.len();
        }
        file.set_len(written.saturating_sub(left) as u64).unwrap();
    };
    let before = [".lock", ".save-lock", ""].map(|suffix| format!("tokens.json{suffix}"));
    store.save(&record(1), None).await.unwrap();
    drop(store.lock(AT_ONCE).await.unwrap());
    let first = fs::read(path).unwrap();

    // Too little for the successor of the intent, and then for any record.
    for left in [200 * 1024, 0] {
        fill(left);
        let error = store.save(&intent(2), Some(id(1))).await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("make room"), "{error}");
        assert_eq!(fs::read(path).unwrap(), first);
        assert_eq!(names(folder).len(), before.len() + 1, "{:?}", names(folder));
    }
    let error = store.save(&record(2), Some(id(1))).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("make room"), "{error}");
    assert_eq!(fs::read(path).unwrap(), first);

    // There is room, and another program takes the rest of it while the refresh token is spent.
    fs::remove_file(&filler).unwrap();
    store.save(&intent(2), Some(id(1))).await.unwrap();
    fill(0);
    let successor = record_of_length(3, 300_000);
    store.save(&successor, Some(id(2))).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), *successor.to_json().unwrap());

    // A killed process left its reserved room behind, which the next one uses.
    fs::remove_file(&filler).unwrap();
    store.save(&intent(4), Some(id(3))).await.unwrap();
    fill(8 * 1024);
    store.save(&intent(5), Some(id(4))).await.unwrap();
    fill(0);
    store.save(&record_of_length(6, 300_000), Some(id(5))).await.unwrap();
    assert_eq!(store.load().await.unwrap().unwrap().revision(), 6);
}

#[test]
fn full_disk_sends_no_refresh_token_and_uses_the_access_token() {
    on(TMPFS, "refresh on a full disk");
}

async fn refresh_on_a_full_disk(store: FileStore, path: &Path) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let source = source_fn(move |_| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let tokens = TokenSet::bearer(format!("access-{number}"));
        async move { Ok(tokens?.with_refresh_token(format!("refresh-{number}"))) }
    });
    let credentials = Credentials::builder(source).store(store).build();
    credentials.tokens().await.unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 1);

    let filler = path.with_file_name("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let error = credentials.refresh().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("make room"), "{error}");
    let tokens = credentials.tokens().await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "access-0");
    assert_eq!(sent.load(Ordering::Relaxed), 1);

    fs::remove_file(&filler).unwrap();
    drop(file);
    let renewed = async {
        // During the backoff.
        while credentials.refresh().await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, renewed).await.unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 2);
    credentials.flush().await.unwrap();
}

#[test]
fn read_only_file_system_can_be_read_and_fails_each_save() {
    on(TMPFS, "be read-only");
}

async fn be_read_only(store: &FileStore, path: &Path) {
    store.save(&record(1), None).await.unwrap();
    let folder = path.parent().unwrap();
    run({
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,ro"]).arg(folder);
        remount
    });
    assert_eq!(store.load().await.unwrap().unwrap().revision(), 1);
    for error in [
        store.save(&record(2), Some(id(1))).await.unwrap_err(),
        store.lock(AT_ONCE).await.map(drop).unwrap_err(),
    ] {
        assert!(error.is_misconfigured() && error.to_string().contains("read-only"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn file_that_is_a_mount_point_is_an_error() {
    on(TMPFS, "be mounted");
}

async fn be_mounted(store: &FileStore, path: &Path) {
    store.save(&record(1), None).await.unwrap();
    run({
        let mut mount = Command::new("mount");
        mount.arg("--bind").args([path, path]);
        mount
    });
    let error = store.save(&record(2), Some(id(1))).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("mount its folder"), "{error}");
    assert_eq!(store.load().await.unwrap().unwrap().revision(), 1);
    assert!(!path.with_extension("json.new").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn room_is_reserved_where_the_file_system_has_no_call_for_it() {
    on("mount -t ramfs -o mode=700 ramfs", "be without fallocate");
}

async fn be_without_fallocate(store: &FileStore, path: &Path) {
    store.save(&intent(1), None).await.unwrap();
    let room = fs::metadata(path.with_extension("json.reserved")).unwrap();
    assert_eq!(room.len(), 384 * 1024);
    store.save(&record(2), Some(id(1))).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), *record(2).to_json().unwrap());
}

/// FUSE counts as a network file system, and is the only one that a test can mount.
#[cfg(target_os = "linux")]
#[test]
fn a_network_file_system_is_refused_unless_it_is_allowed() {
    on("bindfs /dev/shm", "be on a network");
}

async fn be_on_a_network(store: FileStore, path: &Path) {
    // The mounted folder no longer belongs to the test.
    let inner = path.with_file_name(format!("tower-refresh-{}", std::process::id()));
    for error in [
        store.load().await.map(drop).unwrap_err(),
        store.lock(AT_ONCE).await.map(drop).unwrap_err(),
        store.save(&record(1), None).await.unwrap_err(),
    ] {
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("allow_network_file_system"), "{error}");
    }
    assert!(!path.with_extension("json.lock").exists());

    fs::create_dir(&inner).unwrap();
    // A store that has been used before, too.
    let store = FileStore::new(inner.join("tokens.json"));
    assert!(store.load().await.is_err());
    let store = store.allow_network_file_system();
    store.save(&intent(1), None).await.unwrap();
    store.save(&record(2), Some(id(1))).await.unwrap();
    let lock = store.lock(AT_ONCE).await.unwrap();
    assert!(store.lock(AT_ONCE).await.unwrap_err().is_held());
    lock.release().await;
    assert_eq!(store.load().await.unwrap().unwrap().revision(), 2);
    fs::remove_dir_all(&inner).unwrap();
}

#[tokio::test]
async fn file_of_another_user_is_an_error() {
    let folder = Folder::new();
    let path = folder.path("inner/tokens.json");
    let inner = path.parent().unwrap();
    fs::create_dir(inner).unwrap();
    FileStore::new(&path).save(&record(1), None).await.unwrap();
    fs::set_permissions(inner, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = other(&[], "be another user", &path);
    // Root may write everywhere, but can run a program as another user.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        let copy = folder.path("program");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let somebody = Command::new(&copy).arg("--list").uid(65534).gid(65534).output();
        if !somebody.is_ok_and(|output| output.status.success()) {
            skipped("no other user can run a program here");
            return;
        }
        let mut again = Command::new(&copy);
        again.args(command.get_args()).uid(65534).gid(65534);
        for (name, value) in command.get_envs() {
            again.env(name, value.unwrap());
        }
        command = again;
    } else {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(inner.join("tokens.json.save-lock"), fs::Permissions::from_mode(0o000))
            .unwrap();
    }
    run(command);
    fs::set_permissions(inner, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn be_another_user(store: &FileStore) {
    for error in [
        store.load().await.map(drop).unwrap_err(),
        store.save(&record(2), Some(id(1))).await.unwrap_err(),
        store.lock(AT_ONCE).await.map(drop).unwrap_err(),
    ] {
        assert!(error.is_misconfigured() && error.to_string().contains("owner or mode"), "{error}");
    }
}
