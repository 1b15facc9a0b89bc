//! The frames that are kept for a second attempt.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

/// A queue of frames, up to a number of bytes.
#[derive(Default)]
pub(super) struct Kept {
    frames: VecDeque<KeptFrame>,
    /// How many more bytes may be kept.
    room: usize,
}

enum KeptFrame {
    /// Shared with the first attempt.
    Large(Bytes),
    /// Copies of small frames, one after the other: the buffers that they are cut from may be larger than they are.
    Small(BytesMut),
    /// Boxed, so that the other variants are no larger than their data.
    Trailers(Box<HeaderMap>),
}

/// The size from which a frame is shared instead of copied, in bytes.
///
/// Servers read into buffers of about 8 KiB, and hyper's into a new one for each packet.
const LARGE: usize = 4096;

/// The size of a buffer for small frames, in bytes.
const BLOCK: usize = 8192;

impl Kept {
    pub(super) fn up_to(limit: usize) -> Self {
        Self { frames: VecDeque::new(), room: limit }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps a frame, even one that exceeds the limit. Returns whether it was within the limit.
    pub(super) fn push(&mut self, frame: &Frame<Bytes>) -> bool {
        let size = if let Some(data) = frame.data_ref() {
            self.push_data(data);
            data.len()
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push_back(KeptFrame::Trailers(Box::new(trailers.clone())));
            trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
        } else {
            // A kind of frame that future versions of `http_body` may add cannot be kept.
            usize::MAX
        };
        let fits = size <= self.room;
        self.room = self.room.saturating_sub(size);
        fits
    }

    /// Allocates no more than the length of the data, or `room` if that is more.
    fn push_data(&mut self, data: &Bytes) {
        if data.len() >= LARGE {
            self.frames.push_back(KeptFrame::Large(data.clone()));
            return;
        }
        let mut data = &data[..];
        // Many bodies have one frame. A body that has two will probably have more.
        let mut capacity = 0;
        if let Some(KeptFrame::Small(block)) = self.frames.back_mut() {
            let (fits, left) = data.split_at(data.len().min(block.capacity() - block.len()));
            block.extend_from_slice(fits);
            data = left;
            capacity = self.room.min(BLOCK);
        }
        if !data.is_empty() {
            let mut block = BytesMut::with_capacity(capacity.max(data.len()));
            block.extend_from_slice(data);
            self.frames.push_back(KeptFrame::Small(block));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame<Bytes>> {
        Some(match self.frames.pop_front()? {
            KeptFrame::Large(data) => Frame::data(data),
            KeptFrame::Small(small) => Frame::data(small.freeze()),
            KeptFrame::Trailers(trailers) => Frame::trailers(*trailers),
        })
    }
}
