//! A proxy that cuts connections after a number of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::lock::Lock;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    limits: Arc<Limits>,
    task: AbortHandle,
}

/// How much passes over one connection before it is cut.
struct Limits {
    to_server: AtomicUsize,
    to_client: AtomicUsize,
    /// How many of the next connections are cut.
    cuts: AtomicUsize,
    made: AtomicUsize,
    /// The connections before this one pass nothing more, and are not cut either.
    silent: AtomicUsize,
    /// A connection that asks this passes nothing more.
    swallowed: Lock<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limits = Arc::new(Limits {
            to_server: AtomicUsize::new(usize::MAX),
            to_client: AtomicUsize::new(usize::MAX),
            cuts: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            swallowed: Lock::default(),
        });
        let shared = Arc::clone(&limits);
        let accept = async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let number = shared.made.fetch_add(1, Ordering::SeqCst);
                connections.spawn(pass(client, server, number, Arc::clone(&shared)));
            }
        };
        let task = tokio::spawn(accept).abort_handle();
        Self { port, limits, task }
    }

    /// Cuts this many connections when so much has passed over each of them.
    pub(crate) fn cut(&self, connections: usize, to_server: usize, to_client: usize) {
        self.limits.to_server.store(to_server, Ordering::SeqCst);
        self.limits.to_client.store(to_client, Ordering::SeqCst);
        self.limits.cuts.store(connections, Ordering::SeqCst);
    }

    /// Cuts nothing from now on.
    pub(crate) fn mend(&self) {
        self.limits.cuts.store(0, Ordering::SeqCst);
    }

    /// Lets nothing more pass over a connection that asks this.
    #[allow(dead_code, reason = "for PostgreSQL")]
    pub(crate) fn swallow(&self, asked: &[u8]) {
        *self.limits.swallowed.lock() = asked.to_vec();
    }

    /// Lets nothing more pass over the connections that there are.
    pub(crate) fn silence(&self) {
        self.limits.silent.store(self.limits.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Limits {
    fn swallows(&self, asked: &[u8]) -> bool {
        let swallowed = self.swallowed.lock();
        !swallowed.is_empty() && asked.windows(swallowed.len()).any(|part| part == *swallowed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, number: usize, limits: Arc<Limits>) {
    let (mut to_server, mut to_client) = (0, 0);
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    loop {
        if number < limits.silent.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let is_cut = tokio::select! {
            read = client.read(&mut asked) => {
                if limits.swallows(&asked) {
                    return std::future::pending().await;
                }
                step(read, &asked, &mut server, &mut to_server, &limits.to_server, &limits.cuts).await
            }
            read = server.read(&mut answered) => {
                step(read, &answered, &mut client, &mut to_client, &limits.to_client, &limits.cuts).await
            }
        };
        if is_cut {
            return;
        }
    }
}

/// Passes on what was read, or as much of it as may be. Returns whether that was the last of it.
async fn step(
    read: std::io::Result<usize>,
    bytes: &[u8],
    to: &mut TcpStream,
    passed: &mut usize,
    limit: &AtomicUsize,
    cuts: &AtomicUsize,
) -> bool {
    let Ok(length @ 1..) = read else { return true };
    let left = limit.load(Ordering::SeqCst).saturating_sub(*passed);
    let is_cut = length >= left && cuts.load(Ordering::SeqCst) > 0;
    let length = if is_cut { left } else { length };
    *passed += length;
    if is_cut {
        cuts.fetch_sub(1, Ordering::SeqCst);
    }
    to.write_all(&bytes[..length]).await.is_err() || is_cut
}
