//! The connection that hears of released locks. All waiters of a process share it, and it is open only while there are some.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;
use futures_util::stream::{Stream, StreamExt as _, poll_fn};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Socket};

use super::client::{Database, Limits, Parameter};
use super::table::CHANNEL;
use crate::lock::Lock;
use crate::store::WriteId;
use crate::store::lease::now;

/// Wakes the waiters whose lock was released.
pub(super) struct Notices {
    connect: Connect,
    database: Arc<Database>,
    state: watch::Sender<State>,
    /// The number of listeners.
    listening: watch::Sender<usize>,
    /// The listeners by the payload that wakes them.
    waiting: Lock<HashMap<String, watch::Sender<()>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no connection.
    Off,
    /// A task opens the connection.
    Opening,
    /// Every release is heard.
    On,
    /// The connection could not be opened, or hears nothing. Until then, waiters poll.
    Deaf(Instant),
}

/// Opens the connection. Its messages must be polled for the client to work.
type Connect = Box<dyn Fn() -> BoxFuture<Result<(Client, Messages), Error>> + Send + Sync>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Messages = Pin<Box<dyn Stream<Item = Result<AsyncMessage, Error>> + Send>>;

impl Notices {
    pub(super) fn new<T>(database: Arc<Database>, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let connect = move || -> BoxFuture<_> {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, mut connection) = config.connect(tls).await?;
                let messages: Messages = Box::pin(poll_fn(move |cx| connection.poll_message(cx)));
                Ok((client, messages))
            })
        };
        Self {
            connect: Box::new(connect),
            database,
            state: watch::Sender::new(State::Off),
            listening: watch::Sender::new(0),
            waiting: Default::default(),
        }
    }

    /// Listens without a statement, if the connection is open.
    pub(super) fn listener(self: &Arc<Self>, payload: &str) -> Option<Listener> {
        // Before the state is read, so that the end of the connection wakes it.
        let listener = self.is_on().then(|| Listener::new(self, payload));
        listener.filter(|_| self.is_on())
    }

    /// Listens for the notifications with this payload: from now on, none is missed. Returns `None` if that is not possible, or
    /// not yet.
    pub(super) async fn listen(
        self: &Arc<Self>,
        payload: &str,
        limits: Limits,
        within: Duration,
    ) -> Option<Listener> {
        // Before the state is read, so that the end of the connection wakes it.
        let listener = Listener::new(self, payload);
        let mut state = self.state.subscribe();
        self.open(limits);
        let opened = state.wait_for(|state| *state != State::Opening);
        let is_on = matches!(timeout(within, opened).await, Ok(Ok(state)) if *state == State::On);
        is_on.then_some(listener)
    }

    /// Returns whether a connection hears of releases.
    pub(super) fn is_on(&self) -> bool {
        *self.state.borrow() == State::On
    }

    /// Returns whether waiters poll, because no connection hears of releases.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn is_deaf(&self) -> bool {
        matches!(*self.state.borrow(), State::Deaf(_))
    }

    /// Returns how many waiters listen.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn listeners(&self) -> usize {
        *self.listening.borrow()
    }

    /// Returns how many payloads have waiters.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn payloads(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Starts the task that hears, unless there is one.
    fn open(self: &Arc<Self>, limits: Limits) {
        let Ok(runtime) = Handle::try_current() else { return };
        let is_first = self.state.send_if_modified(|state| {
            let is_off = match *state {
                State::Off => true,
                State::Deaf(until) => until <= now(),
                State::Opening | State::On => false,
            };
            if is_off {
                *state = State::Opening;
            }
            is_off
        });
        if is_first {
            let ending = Ending { notices: Arc::clone(self), state: State::Off };
            runtime.spawn(ending.hear(limits));
        }
    }

    fn wake(&self, payload: &str) {
        let listeners = self.waiting.lock().get(payload).cloned();
        if let Some(listeners) = listeners {
            listeners.send_replace(());
        }
    }

    fn wake_all(&self) {
        let all: Vec<_> = self.waiting.lock().values().cloned().collect();
        for listeners in all {
            listeners.send_replace(());
        }
    }

    /// Waits until nothing has listened for a while.
    async fn idle(&self) {
        let mut listening = self.listening.subscribe();
        loop {
            // It cannot fail: its sender is a field.
            drop(listening.wait_for(|listening| *listening == 0).await);
            let again = listening.wait_for(|listening| *listening > 0);
            if timeout(LINGER, again).await.is_err() {
                return;
            }
        }
    }

    /// Returns whether the connection hears a notification that another connection sends. It does not behind a pooler that
    /// assigns servers to transactions.
    async fn hears(self: &Arc<Self>, client: &Client, limits: Limits) -> bool {
        let listen = format!("LISTEN {CHANNEL}");
        if !matches!(timeout(limits.answer, client.batch_execute(&listen)).await, Ok(Ok(()))) {
            return false;
        }
        let payload = WriteId::random().to_string();
        let mut listener = Listener::new(self, &payload);
        let notify = "SELECT pg_notify($1, $2)::text";
        let parameters: [Parameter<'_>; 2] = [(&CHANNEL, Type::TEXT), (&payload, Type::TEXT)];
        self.database.run(notify, &parameters, limits).await.is_ok()
            && timeout(limits.answer, listener.heard()).await.is_ok()
    }
}

/// The state after the task has ended, also if its runtime drops it.
struct Ending {
    notices: Arc<Notices>,
    state: State,
}

impl Ending {
    async fn hear(mut self, limits: Limits) {
        let notices = Arc::clone(&self.notices);
        self.state = State::Deaf(now() + DEAF_FOR);
        let Ok(Ok((client, mut messages))) = timeout(limits.pool, (notices.connect)()).await else {
            return;
        };
        let reading = async {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message {
                    notices.wake(notification.payload());
                }
            }
        };
        let state = &mut self.state;
        let using = async {
            if notices.hears(&client, limits).await {
                // If the connection ends now, the next waiter opens another one.
                *state = State::Off;
                notices.state.send_replace(State::On);
                notices.idle().await;
            }
        };
        select(pin!(reading), pin!(using)).await;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.notices.state.send_replace(self.state);
        self.notices.wake_all();
    }
}

/// A waiter for notifications with one payload.
pub(super) struct Listener {
    heard: watch::Receiver<()>,
    /// Dropped after the receiver.
    _place: Place,
}

/// The place of a waiter among the listeners.
struct Place {
    notices: Arc<Notices>,
    payload: String,
}

impl Listener {
    pub(super) fn new(notices: &Arc<Notices>, payload: &str) -> Self {
        let heard = {
            let mut waiting = notices.waiting.lock();
            let listeners = waiting.entry(payload.to_owned());
            listeners.or_insert_with(|| watch::Sender::new(())).subscribe()
        };
        notices.listening.send_modify(|listening| *listening += 1);
        Self { heard, _place: Place { notices: Arc::clone(notices), payload: payload.to_owned() } }
    }

    /// Waits until it is notified, or until the connection is gone.
    pub(super) async fn heard(&mut self) {
        // It cannot fail: its sender is removed with the last listener.
        drop(self.heard.changed().await);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.notices.waiting.lock();
        // Others are counted until they are about to take this lock, so that the last one sees none.
        if waiting.get(&self.payload).is_some_and(|listeners| listeners.receiver_count() == 0) {
            waiting.remove(&self.payload);
        }
        drop(waiting);
        self.notices.listening.send_modify(|listening| *listening -= 1);
    }
}

/// How long the connection stays open without a listener, so that it is not opened for each wait.
const LINGER: Duration = Duration::from_secs(5);

/// How long waiters poll before they try to listen again.
const DEAF_FOR: Duration = Duration::from_secs(30);
