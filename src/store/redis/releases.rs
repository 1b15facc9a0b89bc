//! The releases of locks, for which waiters listen.
//!
//! A key has one subscription for all of its listeners on a connection. It begins with the first listener and ends with the last
//! one, so that a program with many keys is subscribed to those keys only for which it waits.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::timeout;

use super::failure::Failure;
use super::link::Link;
use crate::lock::Lock;

/// The subscriptions of one connection.
#[derive(Default)]
pub(super) struct Releases(Lock<HashMap<Arc<str>, Weak<Subscription>>>);

/// Wakes the listeners: those of a key when its lock is released, and all of them when the connection, which owns it, has ended.
pub(super) struct Waker(Arc<Releases>);

/// Receives the releases of one key's lock.
pub(super) struct Listener {
    released: watch::Receiver<()>,
    subscription: Arc<Subscription>,
}

/// The subscription of one key. The last listener ends it.
struct Subscription {
    key: Arc<str>,
    /// Keeps the connection open, even if it is no longer the current one.
    link: Arc<Link>,
    released: watch::Sender<()>,
    /// Empty while the server may or may not have subscribed.
    has_subscribed: OnceCell<bool>,
}

impl Releases {
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn remove_if_unused(&self, key: &str) {
        let mut subscriptions = self.0.lock();
        if subscriptions.get(key).is_some_and(|subscription| subscription.strong_count() == 0) {
            subscriptions.remove(key);
        }
    }

    fn subscription(&self, key: &str) -> Option<Arc<Subscription>> {
        self.0.lock().get(key)?.upgrade()
    }
}

// ===== impl Waker =====

impl Waker {
    pub(super) fn of(releases: &Arc<Releases>) -> Self {
        Self(Arc::clone(releases))
    }

    pub(super) fn wake(&self, key: &str) {
        if let Some(subscription) = self.0.subscription(key) {
            subscription.released.send_replace(());
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        let subscriptions: Vec<_> = self.0.0.lock().values().filter_map(Weak::upgrade).collect();
        for subscription in subscriptions {
            subscription.released.send_replace(());
        }
    }
}

// ===== impl Listener =====

impl Listener {
    /// Subscribes to the releases of a key's lock: from now on, none is missed. Returns `None` if the server refuses.
    pub(super) async fn subscribe(link: Arc<Link>, key: &str) -> Result<Option<Self>, Failure> {
        let listener = Self::to(Subscription::of(&link, key));
        let subscription = &listener.subscription;
        let has_subscribed = subscription.has_subscribed.get_or_try_init(async || {
            match link.subscribe(key).await {
                Ok(()) => Ok(true),
                // The connection may have been lost after the server has subscribed.
                Err(failure) if failure.is_worth_another_connection() => Err(failure),
                Err(_) => Ok(false),
            }
        });
        Ok(has_subscribed.await?.then_some(listener))
    }

    /// Returns a listener without a request, if the connection has subscribed to the releases of this key's lock.
    pub(super) fn subscribed(link: &Link, key: &str) -> Option<Self> {
        let subscription = link.releases.subscription(key)?;
        subscription.has_subscribed.get()?.then(|| Self::to(subscription))
    }

    fn to(subscription: Arc<Subscription>) -> Self {
        Self { released: subscription.released.subscribe(), subscription }
    }

    /// Returns whether it listens on this connection.
    pub(super) fn is_on(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.subscription.link, link)
    }

    /// Waits until the lock is released or the connection is gone, but no longer than `at_most`.
    pub(super) async fn hear(&mut self, at_most: Duration) {
        // The caller asks for the lock in each case.
        let _ = timeout(at_most, self.released.changed()).await;
    }
}

// ===== impl Subscription =====

impl Subscription {
    /// Returns the subscription of a key, which is new for the first listener.
    fn of(link: &Arc<Link>, key: &str) -> Arc<Self> {
        let mut subscriptions = link.releases.0.lock();
        if let Some(subscription) = subscriptions.get(key).and_then(Weak::upgrade) {
            return subscription;
        }
        let subscription = Arc::new(Self {
            key: key.into(),
            link: Arc::clone(link),
            released: watch::Sender::new(()),
            has_subscribed: OnceCell::new(),
        });
        subscriptions.insert(Arc::clone(&subscription.key), Arc::downgrade(&subscription));
        subscription
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (key, link) = (Arc::clone(&self.key), Arc::clone(&self.link));
        let is_refused = self.has_subscribed.get() == Some(&false);
        // The current runtime may be ending. If that of the connection has ended, so has the connection.
        let runtime = link.runtime.clone();
        runtime.spawn(async move {
            if !is_refused && link.releases.subscription(&key).is_none() {
                unsubscribe(&link, &key).await;
            }
            link.releases.remove_if_unused(&key);
        });
    }
}

/// Ends the subscription of a key that had no listener a moment ago.
pub(super) async fn unsubscribe(link: &Link, key: &str) {
    let _ = timeout(LIMIT, link.unsubscribe(key)).await;
    // If the next subscription has begun in between, the server has ended that.
    if let Some(next) = link.releases.subscription(key) {
        let _ = timeout(LIMIT, link.subscribe(key)).await;
        // A release may have been missed.
        next.released.send_replace(());
    }
}

/// The limit for an answer that no caller waits for.
const LIMIT: Duration = Duration::from_secs(10);
