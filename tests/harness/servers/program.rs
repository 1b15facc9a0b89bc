//! Servers that are programs of their own.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

/// A program that ends with its handle.
pub struct Program {
    /// The shell that started it. It ends it, and removes the folder, when its standard input is closed.
    shell: Child,
    pid: String,
    folder: PathBuf,
}

impl Program {
    /// Starts it in the folder. The signal ends it.
    pub fn start(command: &Command, signal: &str, folder: &Path) -> Self {
        // Word by word, since the arguments belong to the shell.
        const SCRIPT: &str = r#"trap : INT TERM HUP; signal=$1 folder=$2; shift 2
            "$@" >/dev/null 2>&1 </dev/null & echo $!
            read last; kill -$signal $!; wait; [ "$last" = keep ] || rm -rf "$folder""#;

        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", signal])
            .arg(folder)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        while !pid.ends_with('\n') {
            let mut byte = [0];
            shell.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            pid.push(byte[0].into());
        }
        Self { shell, pid: pid.trim().to_owned(), folder: folder.to_owned() }
    }

    pub fn pid(&self) -> &str {
        &self.pid
    }

    pub fn is_alive(&self) -> bool {
        self.signal("-0")
    }

    /// Sends it a signal. Returns false if it has ended.
    pub fn signal(&self, signal: &str) -> bool {
        let sent = Command::new("kill").args([signal, &self.pid]).stderr(Stdio::null()).status();
        sent.unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        assert!(self.folder.is_absolute());
        if let Some(mut stdin) = self.shell.stdin.take() {
            drop(stdin.write_all(b"keep\n"));
        }
        drop(self.shell.wait());
    }
}

/// Starts a server on a free port. Another program may take the port between its choice and its use. Then `start` returns `None`,
/// and is called with another one.
pub fn on_a_free_port<T>(name: &str, start: impl FnMut(u16) -> Option<T>) -> T {
    let started = std::iter::repeat_with(free_port).take(10).find_map(start);
    started.unwrap_or_else(|| panic!("{name} does not start"))
}

/// Reports once that tests are skipped, because a program is missing. If the variable `required` is set, that is an error.
pub fn skip(report: &'static Once, required: &str, what: &str) {
    assert!(std::env::var_os(required).is_none(), "missing: {what}");
    // Past the test harness, which hides the output of passing tests.
    report.call_once(|| {
        drop(std::io::stderr().write_all(format!("skipped: {what}\n").as_bytes()));
    });
}

/// Returns a port below those that a system gives to sockets without one, so that it is still free after a restart.
fn free_port() -> u16 {
    let random = || RandomState::new().hash_one(());
    let mut ports = std::iter::repeat_with(|| 10_000 + (random() % 20_000) as u16);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "other processes do not follow a paused clock")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
