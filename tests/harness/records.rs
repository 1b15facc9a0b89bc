//! The spans and events of this crate on one thread, with their fields.
#![allow(clippy::disallowed_types, reason = "a lock between a test and its subscriber")]
#![allow(dead_code, reason = "compiled into several crates, which use different parts")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use tracing::dispatcher::{self, DefaultGuard};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// As in `log.rs`.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// Records the spans and events of this thread until it is dropped. Those of other crates are recorded without a check.
pub struct Records {
    recorded: Arc<Mutex<Recorded>>,
    _guard: DefaultGuard,
}

#[derive(Default)]
struct Recorded {
    lines: Vec<Line>,
    spans: BTreeMap<u64, SpanRecord>,
}

type Fields = BTreeMap<&'static str, String>;

#[derive(Clone, Debug)]
pub struct Line {
    pub level: Level,
    pub target: &'static str,
    pub message: String,
    pub fields: Fields,
    /// The number of the span that it is in.
    pub span: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct SpanRecord {
    pub id: u64,
    pub name: &'static str,
    pub target: &'static str,
    pub level: Level,
    pub parent: Option<u64>,
    pub fields: Fields,
    pub follows: Vec<u64>,
    pub is_closed: bool,
}

impl Records {
    pub fn start() -> Self {
        LazyLock::force(&SECOND);
        let recorded = Arc::<Mutex<Recorded>>::default();
        let recorder = Recorder(Arc::clone(&recorded));
        let subscriber = tracing_subscriber::registry().with(recorder);
        Self { recorded, _guard: dispatcher::set_default(&subscriber.into()) }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap()
    }

    /// Returns the lines of this crate since the last call.
    pub fn take(&self) -> Vec<Line> {
        let lines = std::mem::take(&mut self.lock().lines);
        lines.into_iter().filter(|line| line.target.starts_with("tower_refresh")).collect()
    }

    /// Returns the lines that a log at WARN shows, since the last call.
    pub fn take_trouble(&self) -> Vec<Line> {
        self.take().into_iter().filter(|line| line.level <= Level::WARN).collect()
    }

    /// Returns the spans so far with this name.
    pub fn spans(&self, name: &str) -> Vec<SpanRecord> {
        self.lock().spans.values().filter(|span| span.name == name).cloned().collect()
    }
}

impl Line {
    /// Returns the value of a field, or an empty text.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Asserts level, target, the start of the message, and fields.
    #[track_caller]
    pub fn assert(&self, level: Level, area: &str, message: &str, fields: &[(&str, &str)]) {
        assert_eq!(self.level, level, "{self:?}");
        assert_eq!(self.target, format!("tower_refresh::{area}"), "{self:?}");
        assert!(self.message.starts_with(message), "{self:?}");
        for (name, value) in fields {
            assert_eq!(self.field(name), *value, "{name}: {self:?}");
        }
    }
}

struct Recorder(Arc<Mutex<Recorded>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        let parent = context.span(id).and_then(|span| Some(span.parent()?.id().into_u64()));
        let metadata = attributes.metadata();
        let span = SpanRecord {
            id: id.into_u64(),
            name: metadata.name(),
            target: metadata.target(),
            level: *metadata.level(),
            parent,
            fields,
            follows: Vec::new(),
            is_closed: false,
        };
        self.0.lock().unwrap().spans.insert(span.id, span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            values.record(&mut Visitor(&mut span.fields));
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            span.follows.push(follows.into_u64());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let line = Line {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: fields.remove("message").unwrap_or_default(),
            fields,
            span: context.event_span(event).map(|span| span.id().into_u64()),
        };
        self.0.lock().unwrap().lines.push(line);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            span.is_closed = true;
        }
    }
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
