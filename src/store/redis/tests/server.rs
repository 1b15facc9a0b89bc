//! A Redis of our own, a user of it, and what can happen to both.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Commands as _, Connection, RedisResult};

/// Set to anything, it makes an error of a `redis-server` that is not there.
const REQUIRED: &str = "TOWER_REFRESH_REQUIRE_REDIS";

/// A `redis-server` on a port of its own, with a folder of its own; it ends with its owner, however that ends.
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
    /// Starts one that writes down all it is told, or says that the tests that need it are left out.
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
        // Of a run that was killed, under the same process id: in containers it comes again.
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { port: 0, folder, arguments, running: None };
        // Between choosing a port and using it, somebody else may take it.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.run() {
                return Some(server);
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it where it was before, unless it runs.
    pub(super) fn start_again(&mut self) {
        assert!(self.run(), "redis-server does not start again");
    }

    /// Ends it as a power cut does.
    pub(super) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.end();
        }
    }

    /// Takes away what it has written down.
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

    /// Asks it something, behind the store's back.
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
                // It tells of itself before it knows its data.
                Ok(info) if info.contains("\r\nloading:1\r") => pause(),
                Ok(info) if info.contains(&format!("process_id:{}\r", running.pid)) => {
                    self.running = Some(running);
                    return true;
                }
                // Somebody else's.
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

/// Sends a signal to a process that is ours.
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
    static SAY: Once = Once::new();

    let version = Command::new(program()).arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os(REQUIRED).is_none(), "there is no redis-server");
    // Past the test harness, which keeps to itself what a passing test prints.
    SAY.call_once(|| {
        let line = "left out: the tests of `RedisStore` that need a server; `tests/third_party/redis/run` runs them\n";
        drop(std::io::stderr().write_all(line.as_bytes()));
    });
    false
}
