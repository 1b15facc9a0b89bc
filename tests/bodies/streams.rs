//! A stream and its spare, polled by hand: the frames that are kept, and the attempts that wait and fail.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Either, Empty, StreamBody};
use proptest::prelude::*;
use tokio_test::block_on;
use tower_refresh::BoxError;
use tower_refresh::replay::{ReplayBody, Replayable};

use crate::recorder::Memory;

const LIMIT: usize = 65_536;

// ===== without a rejection =====

#[test]
fn the_first_attempt_sends_what_the_body_would_have_sent() {
    let (first, spare) = halves(Replayable::new(Script::of(["one", "two"]).trailers()), LIMIT);
    assert_eq!(first.size_hint().exact(), Some(6));
    assert_eq!(sent(first), whole("onetwo"));
    drop(spare);
}

#[test]
fn body_is_not_read_ahead_of_the_first_attempt() {
    let script = Script::of(["one", "two"]);
    let polls = Arc::clone(&script.polls);
    let (mut first, mut spare) = split(script);
    assert_eq!(polls.load(Ordering::SeqCst), 0);
    assert_eq!(data(&mut first), "one");
    assert_eq!(polls.load(Ordering::SeqCst), 1);
    assert!(Replayable::pause(&mut spare));
    let second = Replayable::<Script>::replay(spare);
    assert_eq!(polls.load(Ordering::SeqCst), 1);
    assert_eq!(sent(second), Sent { trailers: None, ..whole("onetwo") });
}

#[test]
fn retry_sends_the_kept_frames_and_then_the_rest() {
    for before in 0..=4 {
        let (mut first, mut spare) = split(Script::of(["one", "two", "three"]).trailers());
        for _ in 0..before {
            assert!(next(&mut first).is_ready());
        }
        assert!(Replayable::pause(&mut spare), "{before}");
        let second = Replayable::<Script>::replay(spare);
        assert_eq!(second.size_hint().exact(), Some(11), "{before}");
        assert!(!second.is_end_stream());
        assert_eq!(sent(second), whole("onetwothree"), "{before}");
    }
}

#[test]
fn a_body_that_was_sent_to_its_end_is_sent_again() {
    let (first, mut spare) = split(Script::of(["one", "two"]).trailers());
    assert_eq!(sent(first), whole("onetwo"));
    assert!(Replayable::pause(&mut spare));
    let mut second = Replayable::<Script>::replay(spare);
    assert_eq!(second.size_hint().exact(), Some(6));
    assert_eq!(data(&mut second), "one");
    assert_eq!(data(&mut second), "two");
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(!second.is_end_stream());
    assert!(next(&mut second).map(|frame| frame.unwrap().unwrap().is_trailers()).is_ready());
    assert!(second.is_end_stream());
    assert!(matches!(next(&mut second), Poll::Ready(None)));
}

#[test]
fn body_found_empty_while_it_is_sent_is_resent_as_empty() {
    // Otherwise hyper would send a request without a body, where the first one had an empty one.
    let (mut first, mut spare) = split(Script::new([Step::Pending]));
    assert!(!first.is_end_stream());
    assert!(next(&mut first).is_pending());
    assert!(matches!(next(&mut first), Poll::Ready(None)));
    assert!(Replayable::pause(&mut spare));
    let mut second = Replayable::<Script>::replay(spare);
    assert!(!second.is_end_stream());
    assert!(matches!(next(&mut second), Poll::Ready(None)));
    assert!(second.is_end_stream());
}

#[test]
fn body_dropped_by_the_first_attempt_is_kept_for_the_retry() {
    let (mut first, mut spare) = split(Script::of(["one", "two"]));
    assert_eq!(data(&mut first), "one");
    drop(first);
    assert!(Replayable::pause(&mut spare));
    assert_eq!(sent(Replayable::<Script>::replay(spare)).data, "onetwo");
}

#[test]
fn boxed_bodies_of_every_stack_are_replayed() {
    fn check<B>(make: impl Fn(Script) -> B)
    where
        B: ReplayBody<Data = Bytes> + Unpin,
        B::Error: fmt::Debug,
    {
        let (mut first, spare) = halves(make(Script::of(["one", "two"]).trailers()), LIMIT);
        let mut spare = spare.unwrap();
        assert_eq!(first.size_hint().exact(), Some(6));
        assert_eq!(data(&mut first), "one");
        assert!(B::pause(&mut spare));
        assert!(next(&mut first).is_pending());
        let second = B::replay(spare);
        assert!(failed(&mut first));
        assert_eq!(second.size_hint().exact(), Some(6));
        assert_eq!(sent(second), whole("onetwo"));
    }
    check(BoxBody::new);
    check(UnsyncBoxBody::new);
    check(|script| Either::<_, Empty<Bytes>>::Left(BoxBody::new(script)));
    check(|script| Either::<Empty<Bytes>, _>::Right(UnsyncBoxBody::new(script)));
    check(Replayable::new);
    check(|script| Replayable::new(BoxBody::new(script)));
    #[cfg(feature = "axum")]
    check(axum::body::Body::new);
    #[cfg(feature = "tonic")]
    check(tonic::body::Body::new);
    #[cfg(feature = "reqwest")]
    check(reqwest::Body::wrap);
}

#[test]
fn body_found_empty_before_it_is_sent_is_resent_as_empty() {
    /// A server's request body over HTTP/2, whose end comes after its head.
    struct Late(Arc<AtomicUsize>);
    impl Body for Late {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.is_end_stream() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        }
        fn is_end_stream(&self) -> bool {
            self.0.load(Ordering::SeqCst) == 1
        }
        fn size_hint(&self) -> SizeHint {
            if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
        }
    }
    for asked in [false, true] {
        let ended = Arc::default();
        let (mut first, spare) = halves(Replayable::new(Late(Arc::clone(&ended))), LIMIT);
        // A client that polls has already sent a head that announces a body.
        assert!(!asked || next(&mut first).is_pending());
        ended.store(1, Ordering::SeqCst);
        assert!(first.is_end_stream());
        let mut spare = spare.unwrap();
        assert!(Replayable::pause(&mut spare));
        let mut second = Replayable::<Late>::replay(spare);
        assert_eq!(second.is_end_stream(), !asked);
        assert_eq!(second.size_hint().exact(), (!asked).then_some(0));
        assert!(matches!(next(&mut second), Poll::Ready(None)));
    }
}

#[test]
fn a_body_with_nothing_to_send_costs_nothing_and_is_sent_again() {
    fn check<B>(empty: B)
    where
        B: ReplayBody<Data = Bytes> + Unpin,
        B::Error: fmt::Debug,
    {
        let mut split = None;
        let cost = allocation_counter::measure(|| split = Some(halves(empty, LIMIT)));
        assert_eq!(cost.count_total, 0);
        let (first, spare) = split.unwrap();
        let mut spare = spare.unwrap();
        assert!(first.is_end_stream());
        assert!(B::pause(&mut spare));
        let second = B::replay(spare);
        assert!(second.is_end_stream());
        assert_eq!(second.size_hint().exact(), Some(0));
        assert_eq!(sent(second).data, "");
    }
    check(Replayable::new(Empty::<Bytes>::new()));
    check(BoxBody::<Bytes, BoxError>::default());
    check(UnsyncBoxBody::<Bytes, BoxError>::default());
    #[cfg(feature = "axum")]
    check(axum::body::Body::empty());
    #[cfg(feature = "tonic")]
    check(tonic::body::Body::empty());
    #[cfg(feature = "reqwest")]
    check(reqwest::Body::default());
    #[cfg(feature = "reqwest")]
    check(reqwest::Body::wrap(Empty::<Bytes>::new()));
}

#[cfg(feature = "reqwest")]
#[test]
fn reqwest_body_in_memory_is_shared_despite_the_limit() {
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let (first, spare) = halves(reqwest::Body::from(bytes.clone()), 0);
    assert_eq!(first.as_bytes().unwrap().as_ptr(), bytes.as_ptr());
    let second = <reqwest::Body as ReplayBody>::replay(spare.unwrap());
    assert_eq!(second.as_bytes().unwrap().as_ptr(), bytes.as_ptr());
}

// ===== the limit =====

#[test]
fn body_is_resent_up_to_the_limit_and_not_above_it() {
    for (limit, fits) in [(5, false), (6, true)] {
        let (first, spare) = halves(Replayable::new(Script::of(["one", "two"])), limit);
        let mut spare = spare.unwrap();
        assert_eq!(sent(first).data, "onetwo");
        assert_eq!(Replayable::<Script>::pause(&mut spare), fits);
    }
}

#[test]
fn bytes_of_trailers_count_towards_the_limit() {
    for (limit, fits) in [(6 + 15, false), (6 + 16, true)] {
        let (first, spare) = halves(Replayable::new(Script::of(["one", "two"]).trailers()), limit);
        let mut spare = spare.unwrap();
        assert_eq!(sent(first), whole("onetwo"));
        assert_eq!(Replayable::<Script>::pause(&mut spare), fits, "{limit}");
    }
}

#[test]
fn a_long_body_whose_rejection_comes_early_is_sent_again() {
    let (first, spare) = halves(Replayable::new(Script::of(["one", "two", "three"])), 6);
    let (mut first, mut spare) = (first, spare.unwrap());
    assert_eq!(data(&mut first), "one");
    assert_eq!(data(&mut first), "two");
    assert!(Replayable::pause(&mut spare));
    assert_eq!(sent(Replayable::<Script>::replay(spare)).data, "onetwothree");
}

#[test]
fn memory_never_exceeds_the_limit_and_one_frame() {
    const FRAME: usize = 5000;
    for (limit, frames) in [(0, 50), (10 * FRAME, 50), (10 * FRAME, 10)] {
        let memory = Memory::default();
        let script = Script::new((0..frames).map(|_| Step::Data(memory.hold(vec![7; FRAME]))));
        let bytes = frames * FRAME;
        let (mut first, spare) = halves(Replayable::new(script.lazily(&memory)), limit);
        let mut spare = spare.unwrap();
        let mut total = 0;
        while let Poll::Ready(Some(frame)) = next(&mut first) {
            total += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(total, bytes);
        assert!(memory.most() <= limit + FRAME, "{}", memory.most());
        assert_eq!(Replayable::<Lazy>::pause(&mut spare), bytes <= limit);
        if bytes > limit {
            assert_eq!(memory.now(), 0);
        }
    }
}

#[test]
fn small_frames_take_little_more_room_than_their_bytes() {
    for size in [1, 5, 100, 511, 512, 1000, 2049, 4095] {
        let frames = LIMIT / size;
        let data = Bytes::from_static(&[7; 4095]).slice(..size);
        let script = Script::new((0..frames).map(|_| Step::Data(data.clone())));
        let (mut first, mut spare) = split(script);
        let cost = allocation_counter::measure(|| while next(&mut first).is_ready_some() {});
        assert!(cost.bytes_max <= (LIMIT + 4096) as u64, "{size}: {cost:?}");
        assert!(Replayable::pause(&mut spare));
        assert_eq!(sent(Replayable::<Script>::replay(spare)).data.len(), frames * size);
    }
}

#[test]
fn kept_frame_does_not_retain_the_buffer_it_was_cut_from() {
    // As hyper's server cuts a request body whose packets come one by one.
    for size in [1, 600, 4095] {
        let memory = Memory::default();
        let frames = futures_util::stream::iter(0..LIMIT / size).map({
            let memory = memory.clone();
            move |_| Ok::<_, BoxError>(Frame::data(memory.hold(vec![7; 8192]).slice(..size)))
        });
        let (mut first, spare) = halves(Replayable::new(StreamBody::new(frames)), LIMIT);
        while next(&mut first).is_ready_some() {}
        assert!(memory.most() <= 8192, "{size}: {}", memory.most());
        drop(spare);
    }
}

#[test]
fn empty_frames_take_no_room_in_the_limit() {
    let (mut first, mut spare) = split(Script::new((0..100_000).map(|_| Step::Data(Bytes::new()))));
    let cost = allocation_counter::measure(|| while next(&mut first).is_ready_some() {});
    assert_eq!(cost.count_total, 0);
    assert!(Replayable::pause(&mut spare));
}

#[test]
fn large_frames_are_kept_by_reference_count() {
    let bytes = Bytes::from(vec![7; 4096]);
    let (mut first, mut spare) = split(Script::new([Step::Data(bytes.clone())]));
    let frame = next(&mut first).unwrap_data();
    assert_eq!(frame.as_ptr(), bytes.as_ptr());
    assert!(Replayable::pause(&mut spare));
    let frame = next(&mut Replayable::<Script>::replay(spare)).unwrap_data();
    assert_eq!(frame.as_ptr(), bytes.as_ptr());
}

#[test]
fn accepted_response_frees_kept_frames_of_an_unfinished_body() {
    let memory = Memory::default();
    let (mut first, spare) = split(Script::new([
        Step::Data(memory.hold(vec![7; 4096])),
        Step::Data(memory.hold(vec![7; 1])),
    ]));
    drop(next(&mut first).unwrap_data());
    assert_eq!(memory.now(), 4097);
    drop(spare);
    assert_eq!(memory.now(), 1);
    assert_eq!(next(&mut first).unwrap_data().len(), 1);
    assert_eq!(memory.now(), 0);
    assert!(matches!(next(&mut first), Poll::Ready(None)));
}

#[test]
fn abandoned_retry_frees_all_frames_without_another_poll() {
    // Over HTTP/2 it is not, as long as a frame of it waits for the server's window.
    for polls in [0, 1] {
        let memory = Memory::default();
        let (mut first, mut spare) = split(Script::new([
            Step::Data(memory.hold(vec![7; 4096])),
            Step::Data(memory.hold(vec![7; 4096])),
        ]));
        drop(next(&mut first).unwrap_data());
        assert!(Replayable::pause(&mut spare));
        let mut second = Replayable::<Script>::replay(spare);
        for _ in 0..polls {
            drop(next(&mut second).unwrap_data());
        }
        drop(second);
        assert_eq!(memory.now(), 0, "{polls}");
        assert!(failed(&mut first));
    }
}

// ===== a rejection before the end =====

#[test]
fn paused_body_waits_and_continues_if_no_retry_follows() {
    let (mut first, mut spare) = split(Script::of(["one", "two"]));
    assert_eq!(data(&mut first), "one");
    assert!(Replayable::pause(&mut spare));
    let woken = Woken::default();
    assert!(woken.poll(&mut first).is_pending());
    assert_eq!(woken.times(), 0);
    drop(spare);
    assert_eq!(woken.times(), 1);
    assert_eq!(data(&mut first), "two");
    assert!(matches!(next(&mut first), Poll::Ready(None)));
}

#[test]
fn first_attempt_fails_once_the_retry_takes_over() {
    let (mut first, mut spare) = split(Script::of(["one", "two"]));
    assert_eq!(data(&mut first), "one");
    assert!(Replayable::pause(&mut spare));
    let woken = Woken::default();
    assert!(woken.poll(&mut first).is_pending());
    let second = Replayable::<Script>::replay(spare);
    assert_eq!(woken.times(), 1);
    assert!(!first.is_end_stream());
    assert!(failed(&mut first));
    assert_eq!(sent(second).data, "onetwo");
    assert!(failed(&mut first));
}

#[test]
fn first_attempt_that_waits_for_the_body_is_woken_to_fail() {
    // It was polled before the pause, and the body will wake the second attempt only.
    let (mut first, mut spare) = split(Script::new([Step::Never]));
    let woken = Woken::default();
    assert!(woken.poll(&mut first).is_pending());
    assert!(Replayable::pause(&mut spare));
    let second = Replayable::<Script>::replay(spare);
    assert_eq!(woken.times(), 1);
    assert!(failed(&mut first));
    drop(second);
}

#[test]
fn body_sent_whole_ends_in_order_even_if_it_is_resent() {
    let (mut first, mut spare) = split(Script::of(["one"]));
    assert_eq!(data(&mut first), "one");
    assert!(matches!(next(&mut first), Poll::Ready(None)));
    assert!(Replayable::pause(&mut spare));
    let second = Replayable::<Script>::replay(spare);
    assert!(matches!(next(&mut first), Poll::Ready(None)));
    assert_eq!(sent(second).data, "one");
}

// ===== a body that fails =====

#[test]
fn failed_body_reports_its_own_error_and_is_not_resent() {
    let (mut first, mut spare) =
        split(Script::new([Step::Data("one".into()), Step::Error, Step::Data("two".into())]));
    assert_eq!(data(&mut first), "one");
    let Poll::Ready(Some(Err(error))) = next(&mut first) else { panic!() };
    assert_eq!(error.to_string(), "an error of the script");
    assert!(!Replayable::pause(&mut spare));
}

#[test]
fn a_body_that_fails_in_the_second_attempt_fails_that_one() {
    let (mut first, mut spare) = split(Script::new([Step::Data("one".into()), Step::Error]));
    assert_eq!(data(&mut first), "one");
    assert!(Replayable::pause(&mut spare));
    let mut second = Replayable::<Script>::replay(spare);
    assert_eq!(data(&mut second), "one");
    let Poll::Ready(Some(Err(error))) = next(&mut second) else { panic!() };
    assert_eq!(error.to_string(), "an error of the script");
}

#[test]
fn body_that_panics_leaves_no_attempt_waiting() {
    let (mut first, mut spare) = split(Script::new([Step::Data("one".into()), Step::Panic]));
    assert_eq!(data(&mut first), "one");
    assert!(Replayable::pause(&mut spare));
    drop(spare);
    assert!(catch_unwind(AssertUnwindSafe(|| next(&mut first))).is_err());

    let (mut first, spare) = split(Script::new([Step::Data("one".into()), Step::Panic]));
    assert_eq!(data(&mut first), "one");
    assert!(catch_unwind(AssertUnwindSafe(|| next(&mut first))).is_err());
    // Another poll does not see an orderly end.
    assert!(failed(&mut first));
    drop(spare);

    let (mut first, spare) = split(Script::new([Step::Data("one".into()), Step::Panic]));
    assert_eq!(data(&mut first), "one");
    assert!(catch_unwind(AssertUnwindSafe(|| next(&mut first))).is_err());
    drop(first);
    let mut spare = spare;
    assert!(!Replayable::<Script>::pause(&mut spare));
}

// ===== concurrent use =====

/// The spare, for a step that does something with it while the body is polled.
type Slot = Arc<Mutex<Option<<Replayable<Script> as ReplayBody>::Spare>>>;

fn pause_in(slot: &Slot) -> Step {
    let slot = Arc::clone(slot);
    Step::run(move || assert!(Replayable::<Script>::pause(slot.lock().unwrap().as_mut().unwrap())))
}

/// Begins the retry, which waits for the body while the first attempt polls it. Returns the handle as well.
fn take_over_in(
    slot: &Slot,
    woken: &Woken,
    before: impl FnOnce(&mut Replayable<Script>) + Send + 'static,
) -> (Step, Arc<Mutex<Option<Replayable<Script>>>>) {
    let second = Arc::new(Mutex::new(None));
    let (slot, woken, taken) = (Arc::clone(slot), woken.clone(), Arc::clone(&second));
    let step = Step::run(move || {
        let mut spare = slot.lock().unwrap().take().unwrap();
        assert!(Replayable::<Script>::pause(&mut spare));
        let mut replay = Replayable::<Script>::replay(spare);
        before(&mut replay);
        assert!(woken.poll(&mut replay).is_pending());
        *taken.lock().unwrap() = Some(replay);
    });
    (step, second)
}

fn split_with(slot: &Slot, steps: impl IntoIterator<Item = Step>) -> Replayable<Script> {
    let (first, spare) = split(Script::new(steps));
    *slot.lock().unwrap() = Some(spare);
    first
}

#[test]
fn frame_in_flight_when_the_pause_begins_is_sent_and_kept() {
    let slot = Slot::default();
    let steps = [pause_in(&slot), Step::Data("one".into()), Step::Data("two".into())];
    let (mut first, spare) = halves(Replayable::new(Script::new(steps)), 0);
    *slot.lock().unwrap() = spare;
    // Even above the limit, since the retry was promised.
    assert_eq!(data(&mut first), "one");
    assert!(next(&mut first).is_pending());
    let spare = slot.lock().unwrap().take().unwrap();
    let second = Replayable::<Script>::replay(spare);
    assert_eq!(second.size_hint().exact(), Some(6));
    assert_eq!(sent(second).data, "onetwo");
}

#[test]
fn body_that_fails_during_the_pause_fails_both_attempts() {
    let slot = Slot::default();
    let mut first = split_with(&slot, [Step::Data("one".into()), pause_in(&slot), Step::Error]);
    assert_eq!(data(&mut first), "one");
    let Poll::Ready(Some(Err(error))) = next(&mut first) else { panic!() };
    assert_eq!(error.to_string(), "an error of the script");
    // Too late to refuse the retry, which must not be shorter than the first attempt.
    let mut second = Replayable::<Script>::replay(slot.lock().unwrap().take().unwrap());
    assert_eq!(data(&mut second), "one");
    assert!(failed(&mut second));
}

#[test]
fn retry_that_begins_while_the_body_is_polled_waits_for_it() {
    let slot = Slot::default();
    let woken = Woken::default();
    let (take_over, second) = take_over_in(&slot, &woken, |replay| {
        assert_eq!(replay.size_hint().exact(), Some(11));
        assert_eq!(data(replay), "one");
    });
    let steps = ["one", "two", "three"].map(|data| Step::Data(data.into()));
    let [one, two, three] = steps;
    let mut first = split_with(&slot, [one, take_over, two, three]);
    assert_eq!(data(&mut first), "one");
    assert_eq!(data(&mut first), "two");
    assert_eq!(woken.times(), 1);
    assert!(failed(&mut first));
    let second = second.lock().unwrap().take().unwrap();
    assert_eq!(second.size_hint().exact(), Some(8));
    assert_eq!(sent(second).data, "twothree");
}

#[test]
fn a_second_attempt_that_waits_for_a_body_that_panics_fails() {
    let slot = Slot::default();
    let woken = Woken::default();
    let (take_over, second) = take_over_in(&slot, &woken, |_| {});
    let mut first = split_with(&slot, [take_over, Step::Panic]);
    assert!(catch_unwind(AssertUnwindSafe(|| next(&mut first))).is_err());
    drop(first);
    assert_eq!(woken.times(), 1);
    assert!(failed(second.lock().unwrap().as_mut().unwrap()));
}

#[test]
fn first_attempt_superseded_during_a_poll_is_woken_to_fail() {
    let slot = Slot::default();
    let take_over = {
        let slot = Arc::clone(&slot);
        Step::run(move || {
            let mut spare = slot.lock().unwrap().take().unwrap();
            assert!(Replayable::<Script>::pause(&mut spare));
            drop(Replayable::<Script>::replay(spare));
        })
    };
    let mut first = split_with(&slot, [take_over, Step::Never]);
    let woken = Woken::default();
    assert!(woken.poll(&mut first).is_pending());
    assert_eq!(woken.times(), 1);
    assert!(failed(&mut first));
}

#[test]
fn spare_dropped_while_the_body_is_polled_keeps_no_frame() {
    let slot = Slot::default();
    let memory = Memory::default();
    let let_go = {
        let slot = Arc::clone(&slot);
        Step::run(move || drop(slot.lock().unwrap().take()))
    };
    let steps =
        [Step::Data(memory.hold(vec![7; 4096])), let_go, Step::Data(memory.hold(vec![7; 4096]))];
    let mut first = split_with(&slot, steps);
    drop(next(&mut first).unwrap_data());
    drop(next(&mut first).unwrap_data());
    assert_eq!(memory.now(), 0);
    assert!(matches!(next(&mut first), Poll::Ready(None)));
}

#[test]
fn waker_that_drops_the_other_half_does_not_deadlock() {
    /// Runs a closure when the last waker of the task is dropped.
    struct Task {
        #[expect(dead_code, reason = "dropped with the task")]
        holds: Mutex<Option<<Replayable<Script> as ReplayBody>::Spare>>,
    }
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let (mut first, mut spare) = split(Script::new([Step::Never]));
    assert!(Replayable::pause(&mut spare));
    let waker = Waker::from(Arc::new(Task { holds: Mutex::new(Some(spare)) }));
    let poll = |first: &mut Replayable<Script>, waker: &Waker| {
        Pin::new(first).poll_frame(&mut Context::from_waker(waker)).is_pending()
    };
    assert!(poll(&mut first, &waker));
    drop(waker);
    // The other waker is dropped, and the spare with it.
    assert!(poll(&mut first, Waker::noop()));
    assert!(poll(&mut first, Waker::noop()));
}

#[test]
fn two_layers_can_keep_the_same_body() {
    let (outer, outer_spare) = split(Script::of(["one", "two"]).trailers());
    let (mut first, inner_spare) = halves(outer, LIMIT);
    let (mut inner_spare, mut outer_spare) = (inner_spare.unwrap(), outer_spare);
    assert_eq!(data(&mut first), "one");
    // The inner layer sends it again, and is rejected again.
    assert!(Replayable::<Script>::pause(&mut inner_spare));
    let mut second = Replayable::<Script>::replay(inner_spare);
    assert!(failed(&mut first));
    assert_eq!(data(&mut second), "one");
    // Then the outer layer does the same.
    assert!(Replayable::<Script>::pause(&mut outer_spare));
    let third = Replayable::<Script>::replay(outer_spare);
    assert!(failed(&mut second));
    assert_eq!(third.size_hint().exact(), Some(6));
    assert_eq!(sent(third), whole("onetwo"));
}

#[test]
fn two_threads_lose_no_byte_and_no_wakeup() {
    for round in 0..2000_u64 {
        let steps = (0..8).flat_map(|number| {
            let pending =
                [Step::Pending, Step::Pending].into_iter().take((number + round) as usize % 3);
            pending.chain([Step::Data(vec![number as u8; 700].into())])
        });
        let script = Script::new(steps.collect::<Vec<_>>());
        let (mut first, mut spare) = split(script);
        let sender = thread::spawn(move || {
            block_on(async {
                let mut sent = Vec::new();
                loop {
                    match first.frame().await {
                        Some(Ok(frame)) => sent.extend(frame.into_data().unwrap()),
                        Some(Err(_)) => return (sent, false),
                        None => return (sent, true),
                    }
                }
            })
        });
        for _ in 0..round % 50 {
            thread::yield_now();
        }
        assert!(Replayable::pause(&mut spare));
        let second = Replayable::<Script>::replay(spare);
        let second = block_on(second.collect()).unwrap().to_bytes();
        let whole: Vec<u8> = (0..8).flat_map(|number| [number; 700]).collect();
        assert_eq!(second, whole);
        let (sent, in_order) = sender.join().unwrap();
        assert!(whole.starts_with(&sent));
        assert!(!in_order || sent == whole);
    }
}

// ===== any body, any limit, any time =====

#[derive(Clone, Debug)]
enum Plan {
    Data(usize),
    Pending,
}

fn plan() -> impl Strategy<Value = Vec<Plan>> {
    let size =
        prop_oneof![Just(0_usize), 1..20_usize, 400..600_usize, 1000..3000_usize, 4000..9000_usize];
    let step = prop_oneof![4 => size.prop_map(Plan::Data), 1 => Just(Plan::Pending)];
    prop::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The retry equals the original or does not happen, and it happens whenever the limit allows.
    #[test]
    fn retry_equals_the_original_body_or_does_not_happen(
        plan in plan(),
        trailers in any::<bool>(),
        limit in prop_oneof![0..100_usize, 0..10_000_usize, 0..60_000_usize, Just(usize::MAX)],
        polls in 0..40_usize,
        in_flight in any::<bool>(),
        drops_first in any::<bool>(),
    ) {
        let slot = Slot::default();
        let mut expected = Vec::new();
        let mut steps = Vec::new();
        for (number, step) in plan.iter().enumerate() {
            // The pause may begin in the middle of a poll.
            if in_flight && number == polls {
                let slot = Arc::clone(&slot);
                steps.push(Step::run(move || {
                    if let Some(spare) = slot.lock().unwrap().as_mut() {
                        Replayable::<Script>::pause(spare);
                    }
                }));
            }
            steps.push(match step {
                Plan::Data(size) => {
                    let data: Vec<u8> = (0..*size).map(|at| (at * 7 + number) as u8).collect();
                    expected.extend(&data);
                    Step::Data(data.into())
                }
                Plan::Pending => Step::Pending,
            });
        }
        let mut script = Script::new(steps);
        if trailers {
            script = script.trailers();
        }
        let length = script.size_hint().exact();
        let (mut first, spare) = halves(Replayable::new(script), limit);
        prop_assert_eq!(first.size_hint().exact(), length);
        *slot.lock().unwrap() = spare;

        let mut sent_first = Vec::new();
        let mut trailers_first = 0;
        let mut ended = false;
        for _ in 0..polls {
            match next(&mut first) {
                Poll::Ready(Some(frame)) => match frame.unwrap().into_data() {
                    Ok(data) => sent_first.extend(data),
                    Err(_) => trailers_first = 16,
                },
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Pending => {}
            }
        }
        prop_assert!(expected.starts_with(&sent_first));
        prop_assert!(!ended || sent_first == expected);

        let mut spare = slot.lock().unwrap().take().unwrap();
        let whole = Replayable::<Script>::pause(&mut spare);
        let kept = sent_first.len() + trailers_first;
        // A frame in flight when a pause begins may exceed the limit.
        prop_assert!(whole || kept > limit, "{} of {} bytes", kept, limit);
        prop_assert!(!whole || kept <= limit || in_flight, "{} of {} bytes", kept, limit);
        if !whole {
            drop(spare);
            let rest = sent(first);
            sent_first.extend(&rest.data);
            prop_assert_eq!(sent_first, expected);
            return Ok(());
        }
        let mut first = Some(first);
        if drops_first {
            first = None;
        }
        let second = Replayable::<Script>::replay(spare);
        prop_assert_eq!(second.size_hint().exact(), length);
        let second = sent(second);
        prop_assert_eq!(&second.data[..], &expected[..]);
        prop_assert_eq!(second.trailers, trailers.then(self::trailers));
        if let Some(first) = &mut first {
            prop_assert!(ended || failed(first) || matches!(next(first), Poll::Ready(None)));
        }
    }
}

// ===== scripted bodies =====

#[derive(Debug)]
struct Script {
    steps: VecDeque<Step>,
    /// In bytes.
    left: usize,
    polls: Arc<AtomicUsize>,
}

enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Pending once, and woken at once.
    Pending,
    /// Pending without end.
    Never,
    Error,
    Panic,
    /// Runs a closure while the body is being polled.
    Run(Mutex<Option<Box<dyn FnOnce() + Send>>>),
}

impl Step {
    fn run(run: impl FnOnce() + Send + 'static) -> Self {
        Self::Run(Mutex::new(Some(Box::new(run))))
    }

    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            _ => 0,
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: VecDeque<_> = steps.into_iter().collect();
        let left = steps.iter().map(Step::len).sum();
        Self { steps, left, polls: Arc::default() }
    }

    fn of<const N: usize>(frames: [&'static str; N]) -> Self {
        Self::new(frames.map(|frame| Step::Data(frame.into())))
    }

    fn trailers(mut self) -> Self {
        self.steps.push_back(Step::Trailers(trailers()));
        self
    }

    /// Makes each frame only when it is polled.
    fn lazily(self, memory: &Memory) -> Lazy {
        let sizes = self.steps.iter().map(Step::len);
        let lazy = Lazy { sizes: sizes.collect(), memory: memory.clone() };
        drop(self);
        memory.forget();
        lazy
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        loop {
            return match self.steps.pop_front() {
                Some(Step::Data(data)) => {
                    self.left -= data.len();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Some(Step::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Step::Pending) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Step::Never) => {
                    self.steps.push_front(Step::Never);
                    Poll::Pending
                }
                Some(Step::Error) => Poll::Ready(Some(Err("an error of the script".into()))),
                Some(Step::Panic) => panic!("an error of the script"),
                Some(Step::Run(run)) => {
                    let run = run.lock().unwrap().take();
                    run.unwrap()();
                    continue;
                }
                None => Poll::Ready(None),
            };
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }
}

struct Lazy {
    sizes: VecDeque<usize>,
    memory: Memory,
}

impl Body for Lazy {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let size = self.sizes.pop_front();
        Poll::Ready(size.map(|size| Ok(Frame::data(self.memory.hold(vec![7; size])))))
    }
}

// ===== polling by hand =====

/// Returns the body to send, and its spare.
fn halves<B: ReplayBody>(mut body: B, limit: usize) -> (B, Option<B::Spare>) {
    let spare = body.keep_spare(limit);
    (body, spare)
}

fn split(script: Script) -> (Replayable<Script>, <Replayable<Script> as ReplayBody>::Spare) {
    let (first, spare) = halves(Replayable::new(script), LIMIT);
    (first, spare.unwrap())
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Polled<B::Error> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// Returns the data of the next frame, empty at the end.
fn data<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Bytes {
    match next(body) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
        Poll::Ready(None) => Bytes::new(),
        _ => panic!("neither a frame nor the end"),
    }
}

fn failed<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> bool {
    matches!(next(body), Poll::Ready(Some(Err(_))))
}

trait PolledExt {
    fn unwrap_data(self) -> Bytes;
    fn is_ready_some(&self) -> bool;
}

impl<E: fmt::Debug> PolledExt for Polled<E> {
    fn unwrap_data(self) -> Bytes {
        match self {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn is_ready_some(&self) -> bool {
        matches!(self, Poll::Ready(Some(_)))
    }
}

/// Collects all frames of a body.
#[derive(Debug, PartialEq)]
struct Sent {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

fn sent<B>(body: B) -> Sent
where
    B: Body<Data = Bytes>,
    B::Error: fmt::Debug,
{
    let collected = block_on(body.collect()).unwrap();
    let trailers = collected.trailers().cloned();
    Sent { data: collected.to_bytes(), trailers }
}

fn whole(data: &'static str) -> Sent {
    Sent { data: data.into(), trailers: Some(trailers()) }
}

/// Sixteen bytes of them.
fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", "123456789".parse().unwrap());
    trailers
}

#[derive(Clone, Default)]
struct Woken(Arc<Count>);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn poll<B: Body<Data = Bytes> + Unpin>(&self, body: &mut B) -> Polled<B::Error> {
        let waker = Waker::from(Arc::clone(&self.0));
        Pin::new(body).poll_frame(&mut Context::from_waker(&waker))
    }

    fn times(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }
}
