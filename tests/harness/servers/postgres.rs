//! A private PostgreSQL.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use super::program::{Program, on_a_free_port, pause, skip};

/// If this variable is set, a missing server or pooler is an error.
const REQUIRED: &str = "TOWER_REFRESH_REQUIRE_POSTGRES";

/// A PostgreSQL server on a free port of loopback, in a folder of its own. It ends with its handle, and with the test.
pub struct PostgresServer {
    program: PathBuf,
    port: u16,
    folder: PathBuf,
    settings: Vec<String>,
    running: Option<Program>,
}

impl PostgresServer {
    /// Starts one, or reports that it is skipped. The folder is created, and removed at the end.
    pub fn start(folder: &Path, settings: &[&str]) -> Option<Self> {
        let programs = programs()?;
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder).unwrap();
        give_away(folder);
        let data = folder.join("data");
        let made = as_user(&programs.join("initdb"))
            .args(["--auth", "trust", "--username", "postgres", "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // One role has a password.
        let rules = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
        let rules = format!("host all locked 127.0.0.1/32 scram-sha-256\n{rules}");
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();

        let mut server = Self {
            program: programs.join("postgres"),
            port: 0,
            folder: folder.to_owned(),
            settings: settings.iter().map(ToString::to_string).collect(),
            running: None,
        };
        let running = on_a_free_port("postgres", |port| {
            server.port = port;
            server.run()
        });
        server.running = Some(running);
        Some(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder with its data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns the settings of a connection to this database.
    pub fn url(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port)
    }

    /// Ends it like a crash: without a checkpoint.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Restarts it on the same port and folder.
    pub fn start_again(&mut self) {
        self.running = self.run();
        assert!(self.running.is_some(), "postgres does not start again");
    }

    fn run(&self) -> Option<Program> {
        // Not synchronized to the disk: the tests end the server and not the machine.
        const SETTINGS: [&str; 6] = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=200",
            "timezone=UTC",
        ];
        let mut server = as_user(&self.program);
        server.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in SETTINGS.iter().copied().chain(self.settings.iter().map(String::as_str)) {
            server.args(["-c", setting]);
        }
        let running = Program::start(&server, "QUIT", &self.folder);
        let state = self.data().join("postmaster.pid");
        for _ in 0..3000 {
            let state = std::fs::read_to_string(&state).unwrap_or_default();
            let mut lines = state.lines();
            let is_this = lines.next() == Some(running.pid());
            if is_this && lines.next_back().is_some_and(|line| line.trim_end() == "ready") {
                return Some(running);
            }
            if !running.is_alive() {
                break;
            }
            pause();
        }
        None
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A PgBouncer in transaction mode in front of a server.
pub struct PgBouncer {
    port: u16,
    folder: PathBuf,
    _running: Program,
}

impl PgBouncer {
    /// Starts one with so many connections to the server, or reports that it is skipped.
    pub fn start(folder: &Path, server: &PostgresServer, connections: usize) -> Option<Self> {
        static REPORT: Once = Once::new();

        let program = Path::new("pgbouncer");
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            skip(&REPORT, REQUIRED, "PgBouncer, which needs `pgbouncer`");
            return None;
        }
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder).unwrap();
        Some(on_a_free_port("pgbouncer", |port| {
            let settings = folder.join("pgbouncer.ini");
            let text = format!(
                "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
                 max_client_conn = 500\nserver_login_retry = 1\nserver_round_robin = 1\n",
                server.port()
            );
            std::fs::write(&settings, text).unwrap();
            give_away(folder);
            let mut pooler = as_user(program);
            pooler.arg("-q").arg(&settings);
            let running = Program::start(&pooler, "KILL", folder);
            while running.is_alive() {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Some(Self { port, folder: folder.to_owned(), _running: running });
                }
                pause();
            }
            None
        }))
    }

    /// Returns the settings of a connection to this database.
    pub fn url(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Returns the folder with the programs of the newest version, or reports that they are missing.
fn programs() -> Option<PathBuf> {
    static REPORT: Once = Once::new();

    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = debian
        .map(|version| {
            let number: u32 = version.file_name().to_string_lossy().parse().unwrap_or(0);
            (number, version.path().join("bin"))
        })
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("POSTGRES_PROGRAMS").map(PathBuf::from);
    let installed = versions.into_iter().rev().map(|(_, programs)| programs);
    let found =
        named.into_iter().chain(installed).chain(std::env::split_paths(&path)).find(|programs| {
            programs.join("initdb").exists() && programs.join("postgres").exists()
        });
    if found.is_none() {
        skip(
            &REPORT,
            REQUIRED,
            "PostgreSQL, which needs its server; `tests/third_party/postgres/run` installs it",
        );
    }
    found
}

/// Returns a command that does not run as root, which PostgreSQL refuses.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
    command
}

/// Gives a folder to the user of [`as_user`].
fn give_away(folder: &Path) {
    if is_root() {
        let owner = format!("nobody:{NOBODY}");
        let given = Command::new("chown").args(["-R", &owner]).arg(folder).status();
        assert!(given.unwrap().success());
    }
}

/// The group has other names elsewhere.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}
