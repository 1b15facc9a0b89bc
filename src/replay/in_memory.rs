//! Bodies in memory.

use bytes::Buf;
use http_body_util::{Either, Empty, Full};

use super::body::ReplayBody;
use crate::error::BoxError;

/// Clones `D` regardless of the limit: the clone of a `Bytes` or a `&'static [u8]` takes no memory.
impl<D: Buf + Clone> ReplayBody for Full<D> {
    type Spare = Self;

    fn keep_spare(&mut self, _limit: usize) -> Option<Self> {
        Some(self.clone())
    }

    fn replay(spare: Self) -> Self {
        spare
    }
}

impl<D: Buf> ReplayBody for Empty<D> {
    type Spare = ();

    fn keep_spare(&mut self, _limit: usize) -> Option<()> {
        Some(())
    }

    fn replay((): ()) -> Self {
        Self::new()
    }
}

/// Copies the text, up to the limit. `Full<Bytes>` is cheaper.
impl ReplayBody for String {
    type Spare = Self;

    fn keep_spare(&mut self, limit: usize) -> Option<Self> {
        (self.len() <= limit).then(|| self.clone())
    }

    fn replay(spare: Self) -> Self {
        spare
    }
}

impl<L, R> ReplayBody for Either<L, R>
where
    L: ReplayBody,
    R: ReplayBody<Data = L::Data>,
    L::Error: Into<BoxError>,
    R::Error: Into<BoxError>,
{
    type Spare = Either<L::Spare, R::Spare>;

    fn keep_spare(&mut self, limit: usize) -> Option<Self::Spare> {
        match self {
            Self::Left(body) => body.keep_spare(limit).map(Either::Left),
            Self::Right(body) => body.keep_spare(limit).map(Either::Right),
        }
    }

    fn pause(spare: &mut Self::Spare) -> bool {
        match spare {
            Either::Left(spare) => L::pause(spare),
            Either::Right(spare) => R::pause(spare),
        }
    }

    fn replay(spare: Self::Spare) -> Self {
        match spare {
            Either::Left(spare) => Self::Left(L::replay(spare)),
            Either::Right(spare) => Self::Right(R::replay(spare)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Sends both attempts and returns their bytes.
    fn sent_twice<B>(mut body: B, limit: usize) -> (Bytes, Option<Bytes>)
    where
        B: ReplayBody,
        B::Error: std::fmt::Debug,
    {
        let hint = body.size_hint().exact();
        let spare = body.keep_spare(limit);
        assert_eq!(body.size_hint().exact(), hint);
        let collect = |body: B| body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let first = collect(body);
        let second = spare.map(B::replay).map(|body| {
            assert_eq!(body.size_hint().exact(), hint);
            collect(body)
        });
        (first, second)
    }

    #[test]
    fn body_in_memory_is_sent_again_in_full() {
        let full = Full::new(Bytes::from_static(b"body"));
        let expected = ("body".into(), Some("body".into()));
        assert_eq!(sent_twice(full.clone(), 0), expected);
        assert_eq!(sent_twice(String::from("body"), 4), expected);
        assert_eq!(sent_twice(Full::new(&b"body"[..]), 0), expected);
        assert_eq!(sent_twice(Either::<_, Empty<Bytes>>::Left(full.clone()), 0), expected);
        assert_eq!(sent_twice(Either::<Empty<Bytes>, _>::Right(full), 0), expected);
        let nothing = (Bytes::new(), Some(Bytes::new()));
        assert_eq!(sent_twice(Empty::<Bytes>::new(), 0), nothing);
        assert_eq!(sent_twice(Full::<Bytes>::default(), 0), nothing);
    }

    #[test]
    fn string_over_the_limit_is_sent_and_has_no_spare() {
        assert_eq!(sent_twice(String::from("body"), 3), (Bytes::from("body"), None));
    }

    #[test]
    fn spare_of_a_full_body_shares_its_bytes() {
        let bytes = Bytes::from(vec![7; 1 << 20]);
        let spare = Full::new(bytes.clone()).keep_spare(0);
        let spare = spare.and_then(Full::into_inner).unwrap();
        assert_eq!(spare.as_ptr(), bytes.as_ptr());
    }
}
