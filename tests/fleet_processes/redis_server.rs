//! A private Redis.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

/// A `redis-server` on a free port of loopback, which persists every write. It ends with its handle, and with the test.
pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    /// The shell that started it, and ends it when its standard input is closed.
    shell: Option<Child>,
}

impl RedisServer {
    /// Starts one, or reports that it is skipped.
    pub fn start(folder: &Path) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        std::fs::create_dir_all(folder).unwrap();
        let mut server = Self { port: 0, folder: folder.to_owned(), shell: None };
        // Another program may take the port between its choice and its use.
        for _ in 0..10 {
            server.port = free_port();
            if server.run() {
                return Some(server);
            }
        }
        panic!("redis-server does not start");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Ends it like a power cut.
    pub fn kill(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Restarts it on the same port and folder.
    pub fn start_again(&mut self) {
        assert!(self.run(), "redis-server does not start again");
    }

    /// Deletes its data.
    pub fn lose_everything(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::create_dir_all(&self.folder).unwrap();
    }

    fn run(&mut self) -> bool {
        // Word by word, since the arguments belong to the shell.
        const SCRIPT: &str =
            r#""$@" >/dev/null 2>&1 </dev/null & echo $!; read _; kill -9 $!; wait"#;

        let port = self.port.to_string();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", "redis-server", "--bind", "127.0.0.1", "--port", &port])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        while !pid.ends_with('\n') {
            let mut byte = [0];
            shell.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            pid.push(byte[0].into());
        }
        self.shell = Some(shell);
        for _ in 0..1000 {
            match self.owner() {
                Some(owner) if owner == pid.trim() => return true,
                // The port belongs to another server.
                Some(owner) if !owner.is_empty() => break,
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        self.kill();
        false
    }

    /// Returns the process that answers on the port.
    fn owner(&self) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let (_, rest) = said.split_once("process_id:").unwrap_or_default();
        rest.lines().next().map(str::to_owned)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a port below those that a system gives to sockets without one, so that it is still free after a restart.
fn free_port() -> u16 {
    let random = || RandomState::new().hash_one(());
    let mut ports = std::iter::repeat_with(|| 10_000 + (random() % 20_000) as u16);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

fn is_installed() -> bool {
    static REPORT: Once = Once::new();

    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("TOWER_REFRESH_REQUIRE_REDIS").is_none(), "no redis-server");
    // Past the test harness, which hides the output of passing tests.
    REPORT.call_once(|| {
        let line = b"skipped: Redis, which needs a `redis-server`\n";
        drop(std::io::stderr().write_all(line));
    });
    false
}
