//! The server behind a socket.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tower_service::Service;

use super::service::{Route, ServerService};
use super::shared::Shared;

/// A server that listens on loopback, returned by [`AuthorizationServer::serve`](super::AuthorizationServer::serve).
///
/// It speaks HTTP/1.1 and HTTP/2 without TLS (h2c with prior knowledge). Dropping it closes the listener and all connections at
/// once. [`shutdown`](Self::shutdown) waits for answers in flight.
///
/// # Examples
///
/// ```
/// use tower_refresh::testing::{AuthorizationServer, Serving};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let serving: Serving = AuthorizationServer::new().serve().await?;
/// assert!(serving.url("/token").starts_with("http://127.0.0.1:"));
/// serving.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the server"]
pub struct Serving {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    // Every task has a receiver, and ends when the sender is dropped.
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy)]
enum Phase {
    Open,
    /// No new connections. Open ones end after their answers.
    Closing,
}

impl Serving {
    pub(super) async fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let (phase, tasks) = watch::channel(Phase::Open);
        let tasks = Tasks { phase: tasks };
        tasks.spawn(accept(listener, shared, connections.clone(), tasks.clone()));
        Ok(Self { address, connections, phase })
    }

    /// Returns the address: 127.0.0.1 and a port of the system's choice.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the origin, such as `http://127.0.0.1:38211`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the URL of a path on this server, such as `/token`.
    pub fn url(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("http://{}{slash}{path}", self.address)
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Stops listening, waits for the answers in flight, and closes the connections.
    ///
    /// This includes answers that a fault delays. With [`Fault::hang`](super::Fault::hang), it never returns.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future closes the remaining connections at once.
    pub async fn shutdown(self) {
        self.phase.send_replace(Phase::Closing);
        self.phase.closed().await;
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("address", &self.address)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Spawns tasks that end with their [`Serving`], including the HTTP/2 tasks of hyper.
#[derive(Clone)]
struct Tasks {
    phase: watch::Receiver<Phase>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut phase = self.phase.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                // An error: the sender was dropped.
                () = async { while phase.changed().await.is_ok() {} } => {}
            }
        });
    }

    /// Returns at the start of the shutdown.
    async fn closing(&mut self) {
        if self.phase.changed().await.is_err() {
            // The sender was dropped: the task around this future ends at its next poll.
            std::future::pending::<()>().await;
        }
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<AtomicU64>,
    mut tasks: Tasks,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tasks.closing() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Usually out of file descriptors.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        connections.fetch_add(1, Ordering::Relaxed);
        shared.lock().counters.connections += 1;
        tasks.spawn(connection(stream, shared.clone(), tasks.clone()));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut tasks: Tasks) {
    // Without this, Nagle's algorithm delays the pieces of a body.
    let _ = stream.set_nodelay(true);

    let dropped = Arc::new(Notify::new());
    let service = ServerService::new(shared, Route::All);
    let service = service_fn(|request| {
        let mut service = service.clone();
        let dropped = dropped.clone();
        async move {
            let answer = service.call(request).await;
            if answer.is_err() {
                // With HTTP/2, hyper resets only the stream after an error. So it does not get this one.
                dropped.notify_one();
                std::future::pending::<()>().await;
            }
            answer
        }
    });
    let http = auto::Builder::new(tasks.clone());
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // An error: the client has closed the connection, or does not speak HTTP.
            _ = connection.as_mut() => return,
            () = dropped.notified() => return,
            () = tasks.closing() => connection.as_mut().graceful_shutdown(),
        }
    }
}
