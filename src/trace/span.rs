//! The span of a refresh, which is nothing without the `tracing` feature.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

#[cfg(feature = "tracing")]
use super::{guarded, target};

/// The span of a refresh: of its own, because the refresh outlives the request that started it, and serves others.
#[derive(Debug, Default)]
pub(crate) struct Span {
    /// Always present, except during `drop`.
    #[cfg(feature = "tracing")]
    span: Option<tracing::Span>,
}

#[cfg(feature = "tracing")]
impl Span {
    pub(crate) fn of_refresh(credentials: &str, cause: &'static str, attempt: u32) -> Self {
        use tracing::field::Empty;

        let span = guarded(|| {
            tracing::debug_span!(
                target: target::REFRESH,
                parent: None,
                "refresh",
                credentials,
                cause,
                attempt,
                generation = Empty,
                outcome = Empty,
                kind = Empty,
                code = Empty,
                duration_ms = Empty,
                waiters = Empty,
            )
        });
        Self { span }
    }

    /// Sets the value of a field.
    pub(crate) fn record(&self, field: &'static str, value: impl tracing::Value) {
        if let Some(span) = &self.span {
            guarded(|| _ = span.record(field, value));
        }
    }

    /// Notes that the current span waits for the refresh.
    pub(crate) fn is_waited_for(&self) {
        if let Some(span) = &self.span {
            guarded(|| _ = tracing::Span::current().follows_from(span));
        }
    }

    fn enter(&self) -> Entered<'_> {
        Entered(self.span.as_ref().and_then(|span| guarded(|| span.enter())))
    }
}

#[cfg(feature = "tracing")]
impl Clone for Span {
    fn clone(&self) -> Self {
        Self { span: guarded(|| self.span.clone()).flatten() }
    }
}

#[cfg(feature = "tracing")]
impl Drop for Span {
    fn drop(&mut self) {
        guarded(|| drop(self.span.take()));
    }
}

#[cfg(feature = "tracing")]
struct Entered<'a>(Option<tracing::span::Entered<'a>>);

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        guarded(|| drop(self.0.take()));
    }
}

#[cfg(not(feature = "tracing"))]
impl Span {
    pub(crate) fn of_refresh(_credentials: &str, _cause: &'static str, _attempt: u32) -> Self {
        Self {}
    }

    pub(crate) fn record<T>(&self, _field: &'static str, _value: T) {}

    pub(crate) fn is_waited_for(&self) {}

    fn enter(&self) -> Entered {
        Entered
    }
}

#[cfg(not(feature = "tracing"))]
struct Entered;

#[cfg(not(feature = "tracing"))]
impl Clone for Span {
    fn clone(&self) -> Self {
        Self {}
    }
}

impl Span {
    /// Runs a future within the span.
    pub(crate) fn around<F: Future>(&self, future: F) -> InSpan<F> {
        InSpan { future, span: self.clone() }
    }
}

pin_project! {
    pub(crate) struct InSpan<F> {
        #[pin]
        future: F,
        span: Span,
    }
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        this.future.poll(cx)
    }
}
