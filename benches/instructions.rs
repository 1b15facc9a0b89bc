//! The instructions that the layer adds to a request with a fresh token, counted by valgrind's callgrind.
//!
//! `cargo bench --all-features --bench instructions` compares them with `instructions.json`, and fails if one has grown by more
//! than 3 %. Figures of another compiler, lock file, C library or processor are printed and not compared. With `-- --renew` the
//! file is written. Each figure is the difference of two runs, so that the start of the program does not count.
#![allow(clippy::expect_used, clippy::panic, reason = "a bench fails by panicking")]

// Without the allocator that counts, whose instructions would count as well.
#[allow(dead_code, clippy::disallowed_methods, reason = "shared with other benches")]
mod support {
    pub(crate) mod by_hand;
    pub(crate) mod requests;
    pub(crate) mod services;
    pub(crate) mod stacks;
    pub(crate) mod table;
}

use std::collections::BTreeMap;
use std::env;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::process::{Command, ExitCode};

use serde::{Deserialize, Serialize};
use support::requests::{Requests, Values};
use support::services::Api;
use support::stacks::{self, ARMED, BARE, NAMES, PLAIN, STATIC};
use support::table;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");
const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");

const HEADERS: [usize; 3] = [0, 8, 20];
const REQUESTS: i64 = 500;
/// Makes `memcpy` and its like the same on all processors: those of the oldest one.
const BASELINE: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3,-SSE4_1,-SSE4_2,-Fast_Unaligned_Copy";

/// The growth that is accepted, in per cent.
const TOLERANCE: f64 = 3.0;

/// The figures of one compiler and one machine.
#[derive(Serialize, Deserialize)]
struct Figures {
    /// All that the figures depend on beside the source.
    key: BTreeMap<String, String>,
    /// Instructions per request in addition to the bare service, by path.
    added: BTreeMap<String, i64>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(run) = arguments.iter().position(|argument| argument == "--run") {
        let [stack, headers, requests] = [1, 2, 3].map(|place| arguments[run + place].parse());
        send(stack.expect("a stack"), headers.expect("headers"), requests.expect("requests"));
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        return ExitCode::SUCCESS;
    }
    if !has("--bench") {
        // Under `cargo test`.
        send(ARMED, 8, 10);
        return ExitCode::SUCCESS;
    }
    match Command::new("valgrind").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: valgrind is not installed");
            return ExitCode::SUCCESS;
        }
        found => drop(found.expect("valgrind")),
    }
    let figures = Figures { key: key(), added: count() };
    if has("--renew") {
        let json = serde_json::to_string_pretty(&figures).expect("figures as JSON");
        std::fs::write(FIGURES, json + "\n").expect("the file is written");
    }
    compare(&figures)
}

fn send(stack: usize, headers: usize, requests: usize) {
    let mut run = stacks::one_over(stack, Api, Requests::new(headers, Values::Static));
    run(requests as u32);
}

/// Returns all that the figures depend on beside the source.
fn key() -> BTreeMap<String, String> {
    let output = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut hasher = DefaultHasher::new();
    std::fs::read(LOCK).expect("Cargo.lock").hash(&mut hasher);
    BTreeMap::from([
        ("compiler".to_owned(), output("rustc", "-V").expect("rustc")),
        ("lock file".to_owned(), format!("{:016x}", hasher.finish())),
        ("C library".to_owned(), output("getconf", "GNU_LIBC_VERSION").unwrap_or_default()),
        ("processor".to_owned(), env::consts::ARCH.to_owned()),
    ])
}

fn count() -> BTreeMap<String, i64> {
    let mut added = BTreeMap::new();
    for headers in HEADERS {
        let bare = per_request(BARE, headers);
        for stack in [STATIC, PLAIN, ARMED] {
            added.insert(path(stack, headers), per_request(stack, headers) - bare);
        }
    }
    added
}

fn path(stack: usize, headers: usize) -> String {
    format!("{}, {headers} headers", NAMES[stack])
}

fn per_request(stack: usize, headers: usize) -> i64 {
    let once = instructions(stack, headers, REQUESTS);
    let thrice = instructions(stack, headers, 3 * REQUESTS);
    (thrice - once + REQUESTS) / (2 * REQUESTS)
}

/// Returns the instructions of a program that sends this many requests.
fn instructions(stack: usize, headers: usize, requests: i64) -> i64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("this program"))
        .args(["--run".to_owned(), stack.to_string(), headers.to_string(), requests.to_string()])
        .env("GLIBC_TUNABLES", BASELINE)
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind counts no instructions:\n{text}"))
}

/// Prints the figures beside those of the file, and returns whether they may stay.
fn compare(figures: &Figures) -> ExitCode {
    let json = std::fs::read_to_string(FIGURES).expect("instructions.json");
    let before: Figures = serde_json::from_str(&json).expect("instructions.json has figures");
    let comparable = before.key == figures.key;
    let mut worse = false;
    let mut rows = Vec::new();
    for stack in [STATIC, PLAIN, ARMED] {
        let mut row = vec![NAMES[stack].to_owned()];
        for headers in HEADERS {
            let path = path(stack, headers);
            let now = figures.added[&path];
            let change = match before.added.get(&path) {
                Some(before) if comparable => (now as f64 / *before as f64 - 1.0) * 100.0,
                _ => 0.0,
            };
            // The static header is not ours: its counts show how much of a change is the compiler's.
            worse |= stack != STATIC && change > TOLERANCE;
            row.push(format!("{now} {change:+.1} %"));
        }
        rows.push(row);
    }
    let title =
        "Instructions in addition to the bare service, and the change since `instructions.json`";
    table::print(title, &["Stack", "0 headers", "8 headers", "20 headers"], &rows);
    if !comparable {
        println!("\nnot compared: {:?} is not {:?}", figures.key, before.key);
    }
    if worse {
        println!(
            "\nmore than {TOLERANCE} % above `instructions.json`: CONTRIBUTING.md explains when to renew it"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
