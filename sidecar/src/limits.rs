//! The limits of connections: how many, and for how long.

use std::fs;
use std::time::Duration;

use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The greatest number of connections of callers, and of requests to the API, at a time. Further ones wait.
    pub connections: usize,
    /// Time for a new connection to begin a request that passes the guard. The connection is closed afterwards.
    pub first_request: Duration,
    /// Time between two requests of a connection. The connection is closed afterwards.
    pub idle: Duration,
    /// Instead of `first_request` while callers wait for a connection.
    pub crowded_first_request: Duration,
    /// Instead of `idle` while callers wait for a connection.
    pub crowded_idle: Duration,
}

impl Limits {
    pub fn new(connections: usize) -> Self {
        Self {
            connections,
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            crowded_first_request: Duration::from_millis(250),
            crowded_idle: Duration::from_secs(2),
        }
    }

    /// Returns the limits that the process can keep with the files that it may still open.
    ///
    /// A connection of a caller counts as three files: itself, a connection to the API, and another one to the API that
    /// is idle or that a retry uses.
    pub fn of_this_process() -> Self {
        // Files of the store, and connections to the token endpoint and a name server.
        const RESERVED: u64 = 24;
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = fs::read_dir("/dev/fd").map_or(0, Iterator::count) as u64;
        let connections = may_open.saturating_sub(open + RESERVED) / 3;
        // Each takes memory too: a caller without the key can have 400 KiB of a head kept.
        Self::new(usize::try_from(connections).unwrap_or(usize::MAX).clamp(4, 4_096))
    }
}

/// Raises the soft limit of open files to the hard limit.
///
/// # Errors
///
/// The system refuses. The soft limit is unchanged.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).or_else(|error| {
        // macOS accepts no more than OPEN_MAX, even below the hard limit.
        const OPEN_MAX: u64 = 10_240;
        match limit.current {
            Some(current) if current < OPEN_MAX => {
                setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_MAX), ..limit })
            }
            _ => Err(error),
        }
    })
}
