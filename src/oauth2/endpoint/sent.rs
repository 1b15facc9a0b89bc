//! Decides whether a token request was sent.
//!
//! A refresh token can be spent once. A request is therefore repeated only if the HTTP client proves that the first one was not
//! sent: by an error of connecting, by a connection that hyper-util's client has not obtained yet, or by a body that reqwest has
//! not read. An `io::Error` proves nothing: the kernel also reports an unreachable host on a connection over which the request
//! was sent.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::yield_now;

use crate::oauth2::scrub;

/// Recognises an error that proves that nothing was sent.
pub(super) type IsUnsent = dyn Fn(&(dyn Error + 'static)) -> bool + Send + Sync;

/// Observes one token request.
pub(super) struct Sending {
    known: Arc<Known>,
    #[cfg(feature = "hyper-util")]
    connection: hyper_util::client::legacy::connect::CaptureConnection,
}

#[derive(Default)]
struct Known {
    /// A client has promised to set `was_sent` before it sends anything.
    is_watched: AtomicBool,
    was_sent: AtomicBool,
    /// A client has followed a redirect, so that the answer is that to another request.
    was_redirected: AtomicBool,
    /// A layer made a copy of the request, to follow a redirect or to try again.
    was_copied: AtomicBool,
}

/// An extension of each token request.
pub(crate) struct WasSent {
    known: Arc<Known>,
}

impl Clone for WasSent {
    fn clone(&self) -> Self {
        self.known.was_copied.store(true, Ordering::Relaxed);
        Self { known: Arc::clone(&self.known) }
    }
}

/// Kept by a client, together with the body of the request, until the body is dropped, and until there is a response.
#[cfg(feature = "reqwest")]
#[derive(Clone)]
pub(crate) struct Watch {
    known: Arc<Known>,
}

#[cfg(feature = "reqwest")]
impl WasSent {
    /// Promises that [`Watch::sending`] is called before the request is sent.
    pub(crate) fn watch(&self) -> Watch {
        self.known.is_watched.store(true, Ordering::Relaxed);
        Watch { known: Arc::clone(&self.known) }
    }
}

#[cfg(feature = "reqwest")]
impl Watch {
    pub(crate) fn sending(&self) {
        self.known.was_sent.store(true, Ordering::Release);
    }

    pub(crate) fn redirected(&self) {
        self.known.was_redirected.store(true, Ordering::Release);
    }
}

impl Sending {
    pub(super) fn of(request: &mut Request<Full<Bytes>>) -> Self {
        let known = Arc::<Known>::default();
        request.extensions_mut().insert(WasSent { known: Arc::clone(&known) });
        Self {
            known,
            #[cfg(feature = "hyper-util")]
            connection: hyper_util::client::legacy::connect::capture_connection(request),
        }
    }

    /// Returns whether an error of the HTTP client proves that nothing was sent.
    pub(super) fn is_unsent(
        &self,
        error: &(dyn Error + 'static),
        predicate: Option<&IsUnsent>,
    ) -> bool {
        // reqwest follows redirects, and the error does not show it. Only `ReqwestService` reports an earlier request.
        let may_be_elsewhere = !self.is_watched() && is_of(error, REQWEST);
        let proves = |error: &(dyn Error + 'static)| {
            !may_be_elsewhere && client_of(error).is_some_and(|(_, is_connect)| is_connect)
                || predicate.is_some_and(|predicate| predicate(error))
        };
        !self.was_sent() && !self.may_be_a_repetition() && causes(error).any(proves)
    }

    /// Returns whether a request in hyper-util's client is still without a connection.
    ///
    /// Exact as long as the future that the client returned is neither polled nor dropped.
    pub(super) fn is_connecting(&mut self) -> bool {
        #[cfg(feature = "hyper-util")]
        {
            use futures_util::FutureExt as _;

            // Ready without a connection means that the request was dropped, or lost its extensions.
            self.connection.wait_for_connection_metadata().now_or_never().is_none()
        }
        #[cfg(not(feature = "hyper-util"))]
        false
    }

    /// Returns whether a client that reports what it sends has dropped the request without sending it.
    pub(super) async fn was_dropped_unsent(&self) -> bool {
        if !self.is_watched() {
            return false;
        }
        // The task of the connection may hold the body.
        for _ in 0..YIELDS {
            if Arc::strong_count(&self.known) == 1 {
                break;
            }
            yield_now().await;
        }
        Arc::strong_count(&self.known) == 1 && !self.was_sent()
    }

    /// Returns whether the connection that failed may be that of a second request, made after the first was sent.
    pub(super) fn may_be_a_repetition(&self) -> bool {
        #[cfg(feature = "hyper-util")]
        if self.connection.connection_metadata().is_none() {
            return false;
        }
        // By itself, hyper-util's client repeats only a request that it did not send, after a connection was closed while idle.
        cfg!(feature = "hyper-util") && self.known.was_copied.load(Ordering::Relaxed)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.known.is_watched.load(Ordering::Relaxed)
    }

    pub(super) fn was_redirected(&self) -> bool {
        self.known.was_redirected.load(Ordering::Acquire)
    }

    pub(super) fn was_sent(&self) -> bool {
        self.known.was_sent.load(Ordering::Acquire)
    }
}

/// Returns whether an error comes from hyper-util's client, which recognises errors of connecting.
pub(super) fn is_of_hyper_util(error: &(dyn Error + 'static)) -> bool {
    !is_of(error, REQWEST) && is_of(error, HYPER_UTIL)
}

fn is_of(error: &(dyn Error + 'static), client: &str) -> bool {
    causes(error).filter_map(client_of).any(|(its, _)| its == client)
}

/// Returns the client that an error comes from, and whether it is an error of connecting. Its causes are not examined.
fn client_of(error: &(dyn Error + 'static)) -> Option<(&'static str, bool)> {
    #[cfg(feature = "hyper-util")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return Some((HYPER_UTIL, error.is_connect()));
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return Some((REQWEST, error.is_connect()));
    }
    let _ = error;
    None
}

/// Returns an error and its causes, including the error inside an `io::Error`, which is not its source.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    scrub::chain(error).flat_map(|error| {
        std::iter::successors(Some(error), |error| {
            let inside = error.downcast_ref::<io::Error>()?.get_ref()?;
            Some(inside as &(dyn Error + 'static))
        })
    })
}

const HYPER_UTIL: &str = "hyper-util";
const REQWEST: &str = "reqwest";
const YIELDS: usize = 64;
