//! One connection for all that a process asks of a Redis, made anew when it breaks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, ProtocolVersion, PushInfo,
    PushKind, RedisError, Value, from_redis_value,
};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::StoreError;
use super::failure::{Asked, Failure};
use super::scripts;

/// Connects to one Redis, and connects again.
///
/// The task that drives a connection lives on the runtime that made it, and may be gone with it, or never be polled again. To
/// whoever uses it, that is a connection that broke: the next one is made on the runtime of whoever needs it. So nobody waits
/// for long for somebody else to connect: only so that many who need one at once do not make one each.
pub(super) struct Connector {
    client: Client,
    /// What messages call the server; no secret.
    place: String,
    current: ArcSwapOption<Link>,
    /// Whose turn it is to connect.
    turn: Mutex<()>,
    is_checked: AtomicBool,
}

/// One connection.
struct Link {
    connection: MultiplexedConnection,
    made: Instant,
    /// The keys whose lock was let go of. It ends with the connection.
    released: broadcast::Receiver<Arc<str>>,
}

impl Connector {
    pub(super) fn new(client: &Client) -> Result<Self, StoreError> {
        let info = client.get_connection_info().clone();
        let place = place(info.addr());
        // Messages come over the same connection as answers with this protocol, and with no other.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings.set_skip_set_lib_name());
        match Client::open(info) {
            Ok(client) => Ok(Self {
                client,
                place,
                current: ArcSwapOption::empty(),
                turn: Mutex::new(()),
                is_checked: AtomicBool::new(false),
            }),
            Err(error) => Err(Failure::of(&error, Asked::Greeting).into_error(&place)),
        }
    }

    /// Returns what messages call the server.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Asks the server, and asks once more over another connection if that breaks.
    ///
    /// Whatever is asked must be harmless to ask twice.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        within: Duration,
    ) -> Result<T, StoreError> {
        let answer = self.try_twice(&Request::Command(command), within).await;
        let read = answer.and_then(|(_, value)| {
            from_redis_value(value)
                .map_err(|_| Failure::Busy("answered with something that was not expected".into()))
        });
        let failure = match read {
            Ok(answer) => return Ok(answer),
            Err(Failure::InScript) => self.what_is_missing(command, within).await,
            Err(failure) => failure,
        };
        Err(failure.into_error(&self.place))
    }

    /// Checks, once for all locks, that the scripts may call all of their commands: the release of a lock reports no error,
    /// and a lease that cannot be released would hold up every refresh.
    pub(super) async fn check(&self, key: &str, within: Duration) -> Result<(), StoreError> {
        if self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let missing = self.missing(key.as_bytes(), within).await;
        let missing = missing.map_err(|failure| failure.into_error(&self.place))?;
        if !missing.is_empty() {
            return Err(Failure::not_for_scripts(&missing).into_error(&self.place));
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn what_is_missing(&self, command: &Cmd, within: Duration) -> Failure {
        match self.missing(scripts::key_of(command), within).await {
            Ok(missing) => Failure::not_for_scripts(&missing),
            Err(Failure::Misconfigured(why)) => Failure::Misconfigured(why),
            Err(_) => Failure::InScript,
        }
    }

    /// Returns the commands that a script may not call.
    async fn missing(&self, key: &[u8], within: Duration) -> Result<Vec<String>, Failure> {
        let command = scripts::missing(key);
        let (_, value) = self.try_twice(&Request::Command(&command), within).await?;
        // Any other fault is found by the next request.
        Ok(from_redis_value(value).unwrap_or_default())
    }

    /// Listens for releases of a key's lock: from now on, none is missed. None if the server does not permit it, if a proxy
    /// does not pass it on, or for another reason, which the next request meets as well.
    pub(super) async fn listen(&self, key: &str, within: Duration) -> Option<Listener> {
        let (link, _) = self.try_twice(&Request::Subscribe(key), within).await.ok()?;
        Some(Listener { key: key.into(), released: link.released.resubscribe(), link })
    }

    /// Returns whether messages still come over the connection that is in use.
    pub(super) fn is_current(&self, listener: &Listener) -> bool {
        self.current.load().as_ref().is_some_and(|link| Arc::ptr_eq(link, &listener.link))
    }

    async fn try_twice(
        &self,
        request: &Request<'_>,
        within: Duration,
    ) -> Result<(Arc<Link>, Value), Failure> {
        if Handle::try_current().is_err() {
            return Err(Failure::Misconfigured("needs a tokio runtime to be reached".into()));
        }
        let began = now();
        let deadline = began + within;
        let mut link = self.current.load_full();
        // A connection that was cut without a word is found out in time to try another.
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
                self.let_go(link.take().as_ref());
            }
            if is_last || !failure.is_worth_another_connection() || now() >= deadline {
                return Err(failure);
            }
            is_last = true;
            limit = deadline;
        }
    }

    /// Returns a connection that was made since then: by somebody else if that is soon, and else here.
    async fn reconnected(&self, since: Instant, turn_by: Instant) -> Result<Arc<Link>, Failure> {
        let _turn = timeout_at(turn_by, self.turn.lock()).await;
        // What was just made is polled.
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
                // If nobody listens, nobody waits.
                drop(sender.send(channel.into()));
            }
            Ok::<(), redis::aio::SendError>(())
        };
        // The limits are ours, over connecting and asking together.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(on_push);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Link { connection, made: now(), released })
    }

    /// Forgets the connection, as if it had broken.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn forget(&self) {
        self.current.store(None);
    }

    /// Forgets a connection that broke, unless another has taken its place.
    fn let_go(&self, broken: Option<&Arc<Link>>) {
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

/// Hears that the lock of a key was let go of.
pub(super) struct Listener {
    key: Arc<str>,
    released: broadcast::Receiver<Arc<str>>,
    /// Keeps the connection up, even when it is no longer the one in use.
    link: Arc<Link>,
}

impl Listener {
    /// Waits until the lock was let go of, but for no longer than this. Returns false if nothing more will be heard.
    pub(super) async fn hear(&mut self, at_most: Duration) -> bool {
        let heard = async {
            loop {
                match self.released.recv().await {
                    Ok(key) if key != self.key => {}
                    // If some were missed, it may have been among them.
                    Ok(_) | Err(RecvError::Lagged(_)) => return true,
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        timeout(at_most, heard).await.unwrap_or(true)
    }
}

/// Returns the time as limits and leases are counted, on this side.
#[expect(
    clippy::disallowed_methods,
    reason = "leases end by the clock of the machines, whatever clock a policy is given"
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

/// How many releases are remembered for those who are slow to hear of them. Whoever missed some looks.
const REMEMBERED: usize = 64;
