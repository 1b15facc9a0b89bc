//! Acceptances of the current token, noted without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::credentials::generation::Generation;
use crate::target::Target;

/// The acceptances that the evidence asks for: any at all (the bit [`ANY`], until there is one), and those of suspects (one bit
/// each, and their numbers).
///
/// The bits and the generation that they are about are one number, so that an acceptance of a token that is known to be good costs
/// one relaxed load, and one of an older token is never taken for one of the current.
#[derive(Debug, Default)]
pub(in crate::credentials) struct Witness {
    asked: AtomicU64,
    /// The numbers of the suspects: a target that only shares the bit of a suspect must not take the lock for each response.
    /// Most credentials never have a suspect.
    suspects: OnceLock<Box<[AtomicU64; SUSPECTS]>>,
}

impl Witness {
    /// Notes that a response of this target accepted the token of this generation. Returns whether the target may be a suspect.
    pub(in crate::credentials) fn accepted(&self, generation: Generation, target: Target) -> bool {
        let mut asked = self.asked.load(Ordering::Relaxed);
        while is_about(asked, generation) && asked & ANY != 0 {
            let noted = asked & !ANY;
            let order = Ordering::Relaxed;
            asked = match self.asked.compare_exchange_weak(asked, noted, order, order) {
                Ok(_) => noted,
                Err(changed) => changed,
            };
        }
        let is_suspect = |place: &AtomicU64| place.load(Ordering::Relaxed) == target.number();
        is_about(asked, generation)
            && asked & bit(target) != 0
            && self.suspects.get().is_some_and(|suspects| suspects.iter().any(is_suspect))
    }

    /// Returns whether a response has accepted this generation since the last [`ask`](Self::ask) for any.
    pub(super) fn has_accepted(&self, generation: Generation) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        is_about(asked, generation) && asked & ANY == 0
    }

    /// Sets the acceptances of this generation to note.
    pub(super) fn ask(
        &self,
        generation: Generation,
        any: bool,
        suspects: impl Iterator<Item = Target>,
    ) {
        let mut asked = about(generation) | if any { ANY } else { 0 };
        // The number of an earlier suspect that stays in its place costs a lock at most.
        for (at, suspect) in suspects.enumerate() {
            asked |= bit(suspect);
            let places = self.suspects.get_or_init(Box::default);
            places[at % SUSPECTS].store(suspect.number(), Ordering::Relaxed);
        }
        self.asked.store(asked, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn bits(&self) -> u64 {
        self.asked.load(Ordering::Relaxed) & BITS
    }
}

/// Returns a generation in its place above the bits.
fn about(generation: Generation) -> u64 {
    generation.0 << BITS.count_ones()
}

fn is_about(asked: u64, generation: Generation) -> bool {
    asked & !BITS == about(generation)
}

/// Returns the bit of a target. Targets with different bits are different.
pub(super) fn bit(target: Target) -> u64 {
    1 << (target.number() % u64::from(ANY.trailing_zeros()))
}

/// All bits. A generation has the other 40: enough for a refresh each millisecond for 30 years.
const BITS: u64 = (1 << 24) - 1;

/// The bit for any acceptance.
pub(super) const ANY: u64 = 1 << 23;

/// The number of suspects that are remembered.
pub(super) const SUSPECTS: usize = 16;
