//! The body of a rejected response.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf as _;
use http_body::Body;
use tokio::time::Sleep;

use crate::credentials::Credentials;

/// How much of a rejected response is read, so that its connection can be used again.
const BYTES: usize = 16 * 1024;
/// How long a rejected response is read.
const TIME: Duration = Duration::from_millis(50);

/// Reads a body to its end, within limits.
pub(crate) struct Drain {
    left: usize,
    /// None if there is nothing to wait for, or no timer to wait with.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Drain {
    pub(crate) fn new<D: Body>(body: &D, credentials: &Credentials) -> Self {
        let deadline = if body.is_end_stream() { None } else { credentials.sleep(TIME) };
        Self { left: BYTES, deadline }
    }

    pub(crate) fn poll<D: Body>(
        &mut self,
        mut body: Pin<&mut D>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while !body.is_end_stream() {
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // An empty frame counts too: there may be no end of them.
                    let length = frame.data_ref().map_or(0, |data| data.remaining()).max(1);
                    if length > self.left {
                        break;
                    }
                    self.left -= length;
                }
                Poll::Ready(Some(Err(_)) | None) => break,
                Poll::Pending => match &mut self.deadline {
                    Some(deadline) => return deadline.as_mut().poll(cx),
                    None => break,
                },
            }
        }
        Poll::Ready(())
    }
}
