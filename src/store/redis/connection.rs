//! The connection to one Redis server, which all entries of a store share.

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
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::failure::{Asked, Failure};
use super::link::Link;
use super::releases::{Listener, Releases, Waker};
use crate::lock::Lock;
use crate::store::StoreError;
use crate::store::lease::now;

/// Connects to one server, and again when the connection breaks.
///
/// The task that drives a connection runs on the runtime that made it. It may have ended with that runtime, or never be polled
/// again. Both count as a broken connection, and the next request makes another one on its own runtime. For that reason, the
/// requests wait only briefly while one of them connects. Then another one connects too, and the others go on waiting, so that
/// thousands of requests at once make a few connections.
pub(super) struct Connector {
    client: Client,
    connect: Option<Connect>,
    /// The name that messages use for the server, without a secret.
    place: String,
    current: ArcSwapOption<Link>,
    connecting: Lock<Option<Connecting>>,
    is_checked: AtomicBool,
}

/// Opens a stream to the server.
pub(super) type Connect = Arc<
    dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>> + Send + Sync,
>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An attempt to connect.
struct Connecting {
    began: Instant,
    outcome: watch::Receiver<Option<Result<(), Failure>>>,
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
            connecting: Lock::default(),
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
        let answer = self.command(&command, within).await;
        let failure = match answer
            .and_then(|value| from_redis_value(value).map_err(|_| Failure::unexpected()))
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
        let value = self.command(&eval(MISSING, key), within).await?;
        // The next request reports any other failure.
        Ok(from_redis_value(value).unwrap_or_default())
    }

    async fn command(&self, command: &Cmd, within: Duration) -> Result<Value, Failure> {
        self.try_twice(|link| async move { link.command(command).await }, within).await
    }

    /// Subscribes to the releases of a key's lock: from now on, none is missed. Returns `None` if the server does not permit a
    /// subscription, or for another reason, which the next request reports.
    pub(super) async fn listen(&self, key: &str, within: Duration) -> Option<Listener> {
        self.try_twice(|link| Listener::subscribe(link, key), within).await.ok()?
    }

    /// Returns a listener without a request, if the current connection has subscribed to the releases of this key's lock.
    pub(super) fn listener(&self, key: &str) -> Option<Listener> {
        Listener::subscribed(&*self.current.load_full()?, key)
    }

    /// Returns whether the connection of this listener is the current one.
    pub(super) fn is_current(&self, listener: &Listener) -> bool {
        self.current.load().as_ref().is_some_and(|link| listener.is_on(link))
    }

    /// Sends a request, and sends it again over another connection if the first breaks or no longer answers.
    async fn try_twice<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        request: impl Fn(Arc<Link>) -> F,
        within: Duration,
    ) -> Result<T, Failure> {
        if Handle::try_current().is_err() {
            return Err(Failure::Misconfigured("cannot be reached without a tokio runtime".into()));
        }
        let began = now();
        let (deadline, at_most) = (began + within, began + within * LONGEST_QUEUE);
        let mut link = self.current.load_full();
        // A dead connection is detected in time to try another.
        let mut limit = if link.is_some() { began + within / 2 } else { deadline };
        let mut is_last = false;
        loop {
            let connected = match link.take() {
                Some(link) => Ok(link),
                None => self.connected(began, within / 8, limit).await,
            };
            let failure = match connected {
                Ok(link) => {
                    let patience = limit.saturating_duration_since(now());
                    match link.answer(request(Arc::clone(&link)), patience, at_most).await {
                        Err(failure) if failure.is_worth_another_connection() => {
                            self.discard(&link);
                            failure
                        }
                        answer => return answer,
                    }
                }
                Err(failure) => failure,
            };
            if is_last || !failure.is_worth_another_connection() || now() >= deadline {
                return Err(failure);
            }
            is_last = true;
            limit = deadline;
        }
    }

    /// Returns a connection that was made since then. Connects, unless another request has begun to, no longer ago than `patience`.
    async fn connected(
        &self,
        since: Instant,
        patience: Duration,
        limit: Instant,
    ) -> Result<Arc<Link>, Failure> {
        let outcome = loop {
            // The runtime of a new connection is polled.
            if let Some(link) = self.current.load_full().filter(|link| link.made >= since) {
                return Ok(link);
            }
            if now() >= limit {
                return Err(Failure::timed_out());
            }
            let (until, mut outcome) = {
                let mut connecting = self.connecting.lock();
                match &*connecting {
                    Some(other) if other.is_on_time(patience) => {
                        (other.began + patience, other.outcome.clone())
                    }
                    _ => {
                        let (sender, outcome) = watch::channel(None);
                        *connecting = Some(Connecting { began: now(), outcome });
                        break sender;
                    }
                }
            };
            let waited = timeout_at(until.min(limit), outcome.wait_for(Option::is_some)).await;
            if let Ok(Ok(outcome)) = waited
                && let Some(Err(failure)) = &*outcome
            {
                return Err(failure.clone());
            }
        };
        // If it is not made in time, the next request begins.
        let made = timeout_at(limit, self.connect()).await.map_err(|_| Failure::timed_out())?;
        let made = made.map(Arc::new).map_err(|error| Failure::of(&error, Asked::Greeting));
        if let Ok(made) = &made {
            self.current.compare_and_swap(&None::<Arc<Link>>, Some(Arc::clone(made)));
        }
        outcome.send_replace(Some(made.as_ref().map(|_| ()).map_err(Clone::clone)));
        made
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        let releases = Arc::new(Releases::default());
        let waker = Waker::of(&releases);
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Message
                && let Some(channel) = push.data.into_iter().next()
                && let Ok(channel) = from_redis_value::<String>(channel)
            {
                waker.wake(&channel);
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
        Ok(Link::new(connection, releases))
    }

    /// Discards the connection, as if it had broken.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn forget(&self) {
        self.current.store(None);
    }

    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn current(&self) -> Option<Arc<Link>> {
        self.current.load_full()
    }

    /// Discards a broken connection, unless another one has replaced it.
    fn discard(&self, broken: &Arc<Link>) {
        self.current.compare_and_swap(broken, None);
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Connecting {
    /// Returns whether the others still wait for this attempt.
    fn is_on_time(&self, patience: Duration) -> bool {
        let is_over = self.outcome.has_changed().is_err();
        !is_over && now() < self.began + patience
    }
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

fn eval(script: &str, key: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(1).arg(key);
    command
}

/// Without the prelude, which calls commands that may be missing.
const MISSING: &str = include_str!("scripts/missing.lua");

/// How many times the limit a request may wait behind others that are answered. With the default limit, that is less than the
/// keeper of a grant waits.
const LONGEST_QUEUE: u32 = 4;

const WRONG_URL: &str = "the URL cannot be used: write redis://user:password@host:port/db, with special characters of the password percent-encoded";

const NO_TLS_BUILT_IN: &str = "the URL requires TLS, which the crate `redis` was built without: add its feature `tokio-rustls-comp` or `tokio-native-tls-comp` to your own dependencies, or see `RedisStore::connect_with`";
