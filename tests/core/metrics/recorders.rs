//! Recorders that use the credentials, or panic.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::Builder;

use super::{Client, client, healthy, send};

/// A recorder that calls others when a metric is registered.
struct Calling<F>(F);

impl<F: Fn()> Recorder for Calling<F> {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        (self.0)();
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        (self.0)();
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        (self.0)();
        Histogram::noop()
    }
}

fn client_of_an_api() -> Client {
    client(&healthy(), &Arc::new(AtomicU16::new(200)))
}

fn run(recorder: &dyn Recorder, test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(recorder, || runtime.block_on(test));
}

#[test]
fn recorder_that_sends_a_request_of_its_own_does_not_hang() {
    let (done, is_done) = mpsc::channel();
    drop(thread::spawn(move || {
        let (client, is_sending) = (OnceLock::<Client>::new(), AtomicBool::new(false));
        let recorder = Calling(|| {
            let Some(client) = client.get() else { return };
            if !is_sending.swap(true, Ordering::SeqCst) {
                let _ = send(client, "https://api.test/").now_or_never();
                is_sending.store(false, Ordering::SeqCst);
            }
        });
        run(&recorder, async {
            let client = client.get_or_init(client_of_an_api);
            let response = send(client, "https://api.test/").await.unwrap();
            done.send(response.status()).unwrap();
        });
    }));
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(StatusCode::OK));
}

#[test]
fn recorder_that_panics_does_not_fail_requests() {
    let recorder = Calling(|| panic!("a fault of the recorder"));
    run(&recorder, async {
        let response = send(&client_of_an_api(), "https://api.test/").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    });
}
