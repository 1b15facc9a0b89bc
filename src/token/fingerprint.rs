//! Identifies refresh tokens without revealing them.

use std::hash::{BuildHasher as _, RandomState};

use super::RefreshToken;

/// The key of the fingerprints in one record and all that follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FingerprintKey(pub(crate) [u8; 16]);

/// Identifies a refresh token without revealing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl FingerprintKey {
    pub(crate) fn random() -> Self {
        Self(random())
    }

    /// HMAC-SHA-256, since a store makes fingerprints readable to others.
    #[cfg(feature = "store")]
    pub(crate) fn of(&self, token: &RefreshToken) -> Fingerprint {
        use hmac::{KeyInit as _, Mac as _};

        let mut fingerprint = [0; 16];
        // A key of any length is valid for HMAC.
        if let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.0) {
            mac.update(token.expose_secret().as_bytes());
            fingerprint.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        Fingerprint(fingerprint)
    }

    /// A keyed hash, since fingerprints stay in memory.
    #[cfg(not(feature = "store"))]
    pub(crate) fn of(&self, token: &RefreshToken) -> Fingerprint {
        use std::hash::Hasher as _;

        static KEYS: std::sync::OnceLock<[RandomState; 2]> = std::sync::OnceLock::new();
        let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        let mut fingerprint = [0; 16];
        for (half, key) in fingerprint.chunks_exact_mut(8).zip(keys) {
            let mut hasher = key.build_hasher();
            hasher.write(&self.0);
            hasher.write(token.expose_secret().as_bytes());
            half.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        Fingerprint(fingerprint)
    }
}

/// Returns bytes that no other call returns.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    #[cfg(feature = "store")]
    if getrandom::fill(&mut bytes).is_ok() {
        return bytes;
    }
    // Unique is enough: nothing relies on the bytes being unpredictable.
    let halves = [0_u64, 1].map(|half| RandomState::new().hash_one(half).to_be_bytes());
    bytes[..8].copy_from_slice(&halves[0]);
    bytes[8..].copy_from_slice(&halves[1]);
    bytes
}
