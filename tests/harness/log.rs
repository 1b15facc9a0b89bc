//! The `tracing` output of one thread.
#![allow(clippy::disallowed_types, reason = "a lock between a test and its subscriber")]
#![allow(dead_code, reason = "compiled into several crates, which use different parts")]

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::dispatcher::{self, DefaultGuard};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::format::FmtSpan;

/// While one subscriber exists, `tracing` decides for all threads by the thread that reaches an event first, and tests
/// without a subscriber run on other threads. With a second one it asks both.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// Panics at each event and each step of a span of this thread until the guard is dropped.
pub fn panic_at_each_event() -> DefaultGuard {
    LazyLock::force(&SECOND);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(|| -> io::Sink { panic!("the log cannot be written") });
    dispatcher::set_default(&subscriber.finish().into())
}

/// Records the spans and events of this thread until it is dropped.
pub struct Log {
    lines: Lines,
    dispatch: Dispatch,
    _guard: DefaultGuard,
}

impl Log {
    pub fn start(level: Level) -> Self {
        LazyLock::force(&SECOND);
        let lines = Lines::default();
        let writer = lines.clone();
        let dispatch = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish()
            .into();
        let guard = dispatcher::set_default(&dispatch);
        Self { lines, dispatch, _guard: guard }
    }

    /// Records the thread that calls the returned function, to its end: for the threads of a runtime.
    pub fn on_thread_start(&self) -> impl Fn() + Send + Sync + 'static {
        let dispatch = self.dispatch.clone();
        move || std::mem::forget(dispatcher::set_default(&dispatch))
    }

    /// Returns the lines recorded since the last call.
    pub fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.lines.0.lock().unwrap())).unwrap()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
