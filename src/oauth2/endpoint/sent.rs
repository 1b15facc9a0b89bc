//! Whether a request was sent.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goes with each token request in its extensions. A client of ours that may make a second request of one, after a redirect
/// for example, sets it when the body is asked for, and makes no second request with that body.
#[derive(Clone, Default)]
pub(crate) struct WasSent(Arc<AtomicBool>);

impl WasSent {
    #[cfg(feature = "reqwest")]
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn is_connect_error(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};

    let Some(error) = error.downcast_ref::<io::Error>() else {
        return false;
    };
    // An error inside an `io::Error` is not its source, but that one's source is.
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<io::Error>());
    [Some(error), inside].into_iter().flatten().any(|error| {
        matches!(
            error.kind(),
            ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
        )
    })
}
