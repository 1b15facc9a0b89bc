//! Finds copies of secrets in memory that is being freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};

/// Runs `act` and returns a backtrace for each block of memory that was freed meanwhile, by this thread, with a piece of
/// a secret in it.
///
/// Drop inside of `act` what holds the secrets, and choose secrets whose pieces occur in nothing else. A test that uses
/// this needs no `#[global_allocator]` of its own.
pub fn freed_unwiped(secrets: &[&str], act: impl FnOnce()) -> Vec<String> {
    // Leaked: to free them here would be found, too.
    let secrets: Vec<&'static [u8]> =
        secrets.iter().map(|secret| &*Vec::leak(secret.as_bytes().to_vec())).collect();
    assert!(
        secrets.iter().all(|secret| secret.len() >= PIECE),
        "a secret is too short to be found"
    );
    WATCHED.set(Vec::leak(secrets));
    act();
    WATCHED.set(&[]);
    FOUND.take()
}

/// A piece of a secret of this length counts: a buffer that grew holds the beginning only.
const PIECE: usize = 8;

thread_local! {
    static WATCHED: Cell<&'static [&'static [u8]]> = const { Cell::new(&[]) };
    static FOUND: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

struct Watching;

// SAFETY: `System` does the work. `realloc` is the default one, which frees the old block through `dealloc`.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that every byte of a block may be read, and none is left from its previous owner.
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller hands over a block of this size, all of it initialised by `alloc`.
        look(unsafe { std::slice::from_raw_parts(block, layout.size()) });
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

fn look(block: &[u8]) {
    // Nothing is watched while this thread ends, nor while a finding is noted down.
    let Ok(secrets) = WATCHED.try_with(|watched| watched.replace(&[])) else { return };
    if secrets.iter().any(|secret| secret.windows(PIECE).any(|piece| contains(block, piece))) {
        let found = format!("{} bytes, freed by\n{}", block.len(), Backtrace::force_capture());
        FOUND.with_borrow_mut(|all| all.push(found));
    }
    let _ = WATCHED.try_with(|watched| watched.set(secrets));
}

fn contains(block: &[u8], piece: &[u8]) -> bool {
    block.windows(piece.len()).any(|bytes| bytes == piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault S19.
    #[test]
    fn finds_a_freed_copy_and_the_beginning_of_one() {
        assert_eq!(freed_unwiped(&["open-sesame"], || drop(String::from("open-sesame"))).len(), 1);
        assert_eq!(freed_unwiped(&["open-sesame"], || drop(String::from("open-ses"))).len(), 1);
        let grown = freed_unwiped(&["open-sesame"], || {
            let mut text = String::from("open-sesame");
            text.reserve(1000);
            std::mem::forget(text);
        });
        assert_eq!(grown.len(), 1);
    }

    #[test]
    fn finds_nothing_in_other_text_or_other_memory() {
        let kept = String::from("open-sesame");
        assert!(
            freed_unwiped(&["open-sesame"], || drop(kept.replace("sesame", "sésame"))).is_empty()
        );
        drop(kept);
    }
}
