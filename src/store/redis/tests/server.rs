//! A Redis server for one test.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Commands as _, Connection, RedisResult};

/// If this variable is set, a missing `redis-server` is an error.
const REQUIRED: &str = "TOWER_REFRESH_REQUIRE_REDIS";

/// A `redis-server` with its own port and folder. It ends with this process, even if that is killed.
pub(super) struct Server {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    running: Option<Running>,
}

struct Running {
    /// The shell that started it, and ends it when its standard input is closed.
    shell: Child,
    pid: u32,
}

impl Server {
    /// Starts a server that persists every write. Without a `redis-server`, prints that the test is skipped.
    pub(super) fn start() -> Option<Self> {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(super) fn start_with(arguments: &[&str]) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        if !is_installed() {
            return None;
        }
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-refresh-redis-{}-{next}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // A killed run with the same process id may have left it behind, as in a container.
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { port: 0, folder, arguments, running: None };
        // Another process may take the port before the server does.
        for _ in 0..10 {
            server.port = free_port();
            if server.run() {
                return Some(server);
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it again with the same port and folder.
    pub(super) fn start_again(&mut self) {
        assert!(self.run(), "redis-server does not start again");
    }

    /// Kills it.
    pub(super) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.end();
        }
    }

    /// Deletes its data.
    pub(super) fn forget_everything(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::create_dir_all(&self.folder).unwrap();
    }

    pub(super) fn freeze(&self) {
        signal("-STOP", self.running.as_ref().unwrap().pid);
    }

    pub(super) fn thaw(&self) {
        signal("-CONT", self.running.as_ref().unwrap().pid);
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends a command without the store.
    pub(super) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap()
    }

    fn try_ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> RedisResult<T> {
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query(&mut self.connect()?)
    }

    pub(super) fn field(&self, key: &str, field: &str) -> Option<String> {
        self.connect().unwrap().hget(key, field).unwrap()
    }

    fn connect(&self) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))
    }

    /// Returns whether it is up.
    fn run(&mut self) -> bool {
        // Word by word, since the arguments are the shell's own.
        const SCRIPT: &str =
            r#""$@" >/dev/null 2>&1 </dev/null & echo $!; read _; kill -9 $!; wait"#;

        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(program())
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"])
            .arg(&self.folder)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        let said = shell.stdout.as_mut().unwrap();
        while !pid.ends_with('\n') {
            let mut byte = [0];
            said.read_exact(&mut byte).unwrap();
            pid.push(byte[0].into());
        }
        let running = Running { shell, pid: pid.trim().parse().unwrap() };
        for _ in 0..1000 {
            let is_renamed = self.arguments.iter().any(|argument| argument == "TELL");
            let info = self.try_ask::<String>(&[if is_renamed { "TELL" } else { "INFO" }]);
            match info {
                // It answers before it has loaded its data.
                Ok(info) if info.contains("\r\nloading:1\r") => pause(),
                Ok(info) if info.contains(&format!("process_id:{}\r", running.pid)) => {
                    self.running = Some(running);
                    return true;
                }
                // Another server.
                Ok(_) => break,
                // With a password, it is up as well.
                Err(error) if error.code() == Some("NOAUTH") => {
                    self.running = Some(running);
                    return true;
                }
                Err(_) => pause(),
            }
        }
        running.end();
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Running {
    fn end(mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

/// Returns a port below those that a system gives to sockets without one, so that it is still free after a restart.
fn free_port() -> u16 {
    let random = || RandomState::new().hash_one(());
    let mut ports = std::iter::repeat_with(|| 10_000 + (random() % 20_000) as u16);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// Sends a signal to a process of this test.
pub(super) fn signal(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[expect(clippy::disallowed_methods, reason = "other processes do not follow a paused clock")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn is_installed() -> bool {
    static REPORT: Once = Once::new();

    let version = Command::new(program()).arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os(REQUIRED).is_none(), "there is no redis-server");
    // Past the test harness, which hides the output of passing tests.
    REPORT.call_once(|| {
        let line = "skipped: the tests of `RedisStore` that need a server; `tests/third_party/redis/run` runs them\n";
        drop(std::io::stderr().write_all(line.as_bytes()));
    });
    false
}
