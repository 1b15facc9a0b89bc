//! The connection to one Redis server, which all entries of a store share.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, ProtocolVersion,
    PushInfo, PushKind, RedisError, Value, from_redis_value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::{Asked, Failure};
use crate::lock::Lock;
use crate::store::StoreError;

/// Connects to one server, and again when the connection breaks.
///
/// The task that drives a connection runs on the runtime that made it. It may have ended with that runtime, or never be polled
/// again. Both count as a broken connection, and the next request makes another one on its own runtime. For that reason, a
/// request waits only briefly while another request connects: just long enough that many requests at once do not make one
/// connection each.
pub(super) struct Connector {
    client: Client,
    connect: Option<Connect>,
    /// The name that messages use for the server, without a secret.
    place: String,
    current: ArcSwapOption<Link>,
    /// Held by the request that connects.
    turn: Mutex<()>,
    is_checked: AtomicBool,
}

/// Opens a stream to the server.
pub(super) type Connect = Arc<
    dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>> + Send + Sync,
>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
struct Link {
    connection: MultiplexedConnection,
    made: Instant,
    /// The keys whose lock was released. It ends with the connection.
    released: broadcast::Receiver<Arc<str>>,
    /// The keys whose releases this connection has subscribed to.
    subscribed: Lock<HashSet<String>>,
}

impl Connector {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let client = Client::open(url).and_then(|client| {
            let info = client.get_connection_info().clone();
            // Only in RESP3 do messages arrive on the connection of the answers.
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            Client::open(info.set_redis_settings(settings.set_skip_set_lib_name()))
        });
        // The error may quote the URL, and is not passed on.
        let client = client.map_err(|error| {
            let is_tls = ["rediss:", "valkeys:"].iter().any(|tls| url.starts_with(tls));
            let is_tls_missing = is_tls
                && error.kind() == ErrorKind::InvalidClientConfig
                && error.to_string().contains("TLS");
            StoreError::misconfigured(if is_tls_missing { NO_TLS_BUILT_IN } else { WRONG_URL })
        })?;
        Ok(Self::with(client, None))
    }

    /// Returns a connector to the same server over streams of `connect`.
    pub(super) fn over(&self, connect: Connect) -> Self {
        Self::with(self.client.clone(), Some(connect))
    }

    fn with(client: Client, connect: Option<Connect>) -> Self {
        Self {
            place: place(client.get_connection_info().addr()),
            client,
            connect,
            current: ArcSwapOption::empty(),
            turn: Mutex::new(()),
            is_checked: AtomicBool::new(false),
        }
    }

    /// Returns the name that messages use for the server.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Runs a script, and runs it again over another connection if the first breaks. So it must be harmless to run it twice.
    pub(super) async fn run<T: FromRedisValue, A: AsRef<[u8]>>(
        &self,
        script: &str,
        key: &str,
        arguments: &[A],
        within: Duration,
    ) -> Result<T, StoreError> {
        let mut command = eval(script, key);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        let answer = self.try_twice(&Request::Command(&command), within).await;
        let failure = match answer
            .and_then(|(_, value)| from_redis_value(value).map_err(|_| Failure::unexpected()))
        {
            Ok(answer) => return Ok(answer),
            Err(Failure::InScript) => match self.missing(key, within).await {
                Ok(missing) => Failure::not_for_scripts(&missing),
                Err(failure @ Failure::Misconfigured(_)) => failure,
                Err(_) => Failure::InScript,
            },
            Err(failure) => failure,
        };
        Err(failure.into_error(&self.place))
    }

    /// Checks, once for all locks, that scripts may call all commands that they need: the release of a lock reports no error,
    /// and a lock that cannot be released would delay every refresh.
    pub(super) async fn check(&self, key: &str, within: Duration) -> Result<(), StoreError> {
        if self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failure = match self.missing(key, within).await {
            Ok(missing) if missing.is_empty() => {
                self.is_checked.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Ok(missing) => Failure::not_for_scripts(&missing),
            Err(failure) => failure,
        };
        Err(failure.into_error(&self.place))
    }

    /// Returns the commands that a script may not call.
    async fn missing(&self, key: &str, within: Duration) -> Result<Vec<String>, Failure> {
        let (_, value) = self.try_twice(&Request::Command(&eval(MISSING, key)), within).await?;
        // The next request reports any other failure.
        Ok(from_redis_value(value).unwrap_or_default())
    }

    /// Subscribes to the releases of a key's lock: from now on, none is missed. Returns `None` if the server does not permit a
    /// subscription, or for another reason, which the next request reports.
    pub(super) async fn listen(&self, key: &str, within: Duration) -> Option<Listener> {
        let (link, _) = self.try_twice(&Request::Subscribe(key), within).await.ok()?;
        link.subscribed.lock().insert(key.into());
        Some(Listener::on(link, key))
    }

    /// Returns a listener without a request, if the current connection has subscribed to the releases of this key's lock.
    pub(super) fn listener(&self, key: &str) -> Option<Listener> {
        let link = self.current.load_full()?;
        let is_subscribed = link.subscribed.lock().contains(key);
        is_subscribed.then(|| Listener::on(link, key))
    }

    /// Returns whether the connection of this listener is the current one.
    pub(super) fn is_current(&self, listener: &Listener) -> bool {
        self.current.load().as_ref().is_some_and(|link| Arc::ptr_eq(link, &listener.link))
    }

    async fn try_twice(
        &self,
        request: &Request<'_>,
        within: Duration,
    ) -> Result<(Arc<Link>, Value), Failure> {
        if Handle::try_current().is_err() {
            return Err(Failure::Misconfigured("cannot be reached without a tokio runtime".into()));
        }
        let began = now();
        let deadline = began + within;
        let mut link = self.current.load_full();
        // A dead connection is detected in time to try another.
        let mut limit = if link.is_some() { began + within / 2 } else { deadline };
        let mut is_last = false;
        loop {
            let turn_by = now() + within / 8;
            let tried = timeout_at(limit, async {
                let link = match &mut link {
                    Some(link) => link,
                    link => link.insert(self.reconnected(began, turn_by).await?),
                };
                Self::try_once(link, request).await.map(|value| (Arc::clone(link), value))
            })
            .await;
            let failure = match tried {
                Ok(Ok((link, value))) => return Ok((link, value)),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::timed_out(),
            };
            if failure.is_worth_another_connection() {
                self.discard(link.take().as_ref());
            }
            if is_last || !failure.is_worth_another_connection() || now() >= deadline {
                return Err(failure);
            }
            is_last = true;
            limit = deadline;
        }
    }

    /// Returns a connection that was made since then: by another request if that does not take long, and otherwise here.
    async fn reconnected(&self, since: Instant, turn_by: Instant) -> Result<Arc<Link>, Failure> {
        let _turn = timeout_at(turn_by, self.turn.lock()).await;
        // The runtime of a new connection is polled.
        if let Some(link) = self.current.load_full().filter(|link| link.made >= since) {
            return Ok(link);
        }
        let made = self.connect().await.map_err(|error| Failure::of(&error, Asked::Greeting))?;
        let made = Arc::new(made);
        self.current.compare_and_swap(&None::<Arc<Link>>, Some(Arc::clone(&made)));
        Ok(made)
    }

    async fn try_once(link: &Link, request: &Request<'_>) -> Result<Value, Failure> {
        let mut connection = link.connection.clone();
        let (answer, asked) = match request {
            Request::Command(command) => {
                (command.query_async(&mut connection).await, Asked::Script)
            }
            Request::Subscribe(channel) => {
                (connection.subscribe(*channel).await.map(|()| Value::Nil), Asked::Subscription)
            }
        };
        answer.map_err(|error| Failure::of(&error, asked))
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        let (sender, released) = broadcast::channel(REMEMBERED);
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Message
                && let Some(channel) = push.data.into_iter().next()
                && let Ok(channel) = from_redis_value::<String>(channel)
            {
                // An error: nothing waits for the lock.
                drop(sender.send(channel.into()));
            }
            Ok::<(), redis::aio::SendError>(())
        };
        // `try_twice` limits connecting and asking together.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(on_push);
        let connection = if let Some(connect) = &self.connect {
            let stream = connect().await?;
            let settings = self.client.get_connection_info().redis_settings();
            let (connection, driver) =
                MultiplexedConnection::new_with_config(settings, stream, config).await?;
            // It ends with the connection.
            tokio::spawn(driver);
            connection
        } else {
            self.client.get_multiplexed_async_connection_with_config(&config).await?
        };
        Ok(Link { connection, made: now(), released, subscribed: Default::default() })
    }

    /// Discards the connection, as if it had broken.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn forget(&self) {
        self.current.store(None);
    }

    /// Discards a broken connection, unless another one has replaced it.
    fn discard(&self, broken: Option<&Arc<Link>>) {
        if let Some(broken) = broken {
            self.current.compare_and_swap(&Some(Arc::clone(broken)), None);
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("place", &self.place).finish_non_exhaustive()
    }
}

enum Request<'a> {
    Command(&'a Cmd),
    Subscribe(&'a str),
}

/// Receives the releases of one key's lock.
pub(super) struct Listener {
    key: Arc<str>,
    released: broadcast::Receiver<Arc<str>>,
    /// Keeps the connection open, even if it is no longer the current one.
    link: Arc<Link>,
}

impl Listener {
    fn on(link: Arc<Link>, key: &str) -> Self {
        Self { key: key.into(), released: link.released.resubscribe(), link }
    }

    /// Waits until the lock is released or the connection is gone, but no longer than `at_most`.
    pub(super) async fn hear(&mut self, at_most: Duration) {
        let heard = async {
            loop {
                match self.released.recv().await {
                    Ok(key) if key != self.key => {}
                    // The release of this key may be among the missed ones.
                    Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        };
        // The caller asks for the lock in each case.
        let _ = timeout(at_most, heard).await;
    }
}

/// Returns the local time, by which limits and leases are counted.
#[expect(
    clippy::disallowed_methods,
    reason = "leases end by the clocks of the machines, not by the clock of a policy"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

fn place(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            if host.contains(':') {
                format!("the Redis at [{host}]:{port}")
            } else {
                format!("the Redis at {host}:{port}")
            }
        }
        ConnectionAddr::Unix(path) => format!("the Redis at {}", path.display()),
        _ => "the Redis".into(),
    }
}

/// How many releases are kept for a slow waiter. A waiter that misses some tries again.
const REMEMBERED: usize = 64;

fn eval(script: &str, key: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(key);
    command
}

/// Without the prelude, which calls commands that may be missing.
const MISSING: &str = include_str!("scripts/missing.lua");

const WRONG_URL: &str = "the URL cannot be used: write redis://user:password@host:port/db, with special characters of the password percent-encoded";

const NO_TLS_BUILT_IN: &str = "the URL requires TLS, which the crate `redis` was built without: add its feature `tokio-rustls-comp` or `tokio-native-tls-comp` to your own dependencies, or see `RedisStore::connect_with`";
