//! Acceptances of a token, noted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::target::Target;

/// The acceptances that the evidence asks for: any at all (the bit [`ANY`], until there is one), and those of suspects (one bit
/// each, and their numbers).
///
/// Each token has a witness, so that an acceptance of a token that is known to be good costs one relaxed load.
#[derive(Debug)]
pub(in crate::credentials) struct Witness {
    asked: AtomicU64,
    /// The numbers of the suspects: a target that only shares the bit of a suspect must not take the lock for each response.
    suspects: [AtomicU64; SUSPECTS],
}

impl Witness {
    pub(in crate::credentials) fn new() -> Self {
        Self { asked: AtomicU64::new(ANY), suspects: Default::default() }
    }

    /// Notes that a response of this target accepted the token. Returns whether the target may be a suspect.
    pub(in crate::credentials) fn accepted(&self, target: Target) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked == 0 {
            return false;
        }
        if asked & ANY != 0 {
            self.asked.fetch_and(!ANY, Ordering::Relaxed);
        }
        let is_suspect = |place: &AtomicU64| place.load(Ordering::Relaxed) == target.number();
        asked & bit(target) != 0 && self.suspects.iter().any(is_suspect)
    }

    /// Returns whether a response has accepted the token since the last [`ask`](Self::ask) for any.
    pub(super) fn has_accepted(&self) -> bool {
        self.asked.load(Ordering::Relaxed) & ANY == 0
    }

    /// Sets the acceptances to note.
    pub(super) fn ask(&self, any: bool, suspects: impl Iterator<Item = Target>) {
        let mut asked = if any { ANY } else { 0 };
        // The number of an earlier suspect that stays in its place costs a lock at most.
        for (place, suspect) in self.suspects.iter().zip(suspects) {
            asked |= bit(suspect);
            place.store(suspect.number(), Ordering::Relaxed);
        }
        self.asked.store(asked, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Returns the bit of a target. Targets with different bits are different.
pub(super) fn bit(target: Target) -> u64 {
    1 << (target.number() % u64::from(ANY.trailing_zeros()))
}

/// The bit for any acceptance.
pub(super) const ANY: u64 = 1 << 63;

/// The number of suspects that are remembered.
pub(super) const SUSPECTS: usize = 16;
