//! The keys, and the encryption of one record with one of them.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize as _, Zeroizing};

use crate::store::format::SealedContent;
use crate::store::{Binding, StoreError, StoredTokens};

/// A key for an [`EncryptedStore`](super::EncryptedStore): 32 random bytes and an id.
///
/// The id is stored in the clear beside each record that the key encrypts. It is not secret. Give each key an id that no
/// other key had, such as the month in which it was created.
///
/// The bytes must be random: a password can be guessed. `Debug` shows only the id. The bytes are wiped from memory with the
/// last clone.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::EncryptionKey;
///
/// # fn main() -> Result<(), tower_refresh::store::StoreError> {
/// // The output of `openssl rand -base64 32`.
/// let key = EncryptionKey::from_base64("2026-03", "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80=")?;
/// assert_eq!(key.id(), "2026-03");
/// # Ok(())
/// # }
/// ```
#[doc(alias = "secret key")]
#[derive(Clone)]
pub struct EncryptionKey {
    id: Arc<str>,
    bytes: Arc<Zeroizing<[u8; KEY]>>,
}

impl EncryptionKey {
    /// Creates a key from 32 random bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::EncryptionKey;
    ///
    /// # let read_from_secret_manager = || [7; 32];
    /// let key = EncryptionKey::new("2026-03", read_from_secret_manager());
    /// ```
    pub fn new(id: impl Into<String>, mut bytes: [u8; KEY]) -> Self {
        let key = Self { id: id.into().into(), bytes: Arc::new(Zeroizing::new(bytes)) };
        bytes.zeroize();
        key
    }

    /// Creates a key from base64, as `openssl rand -base64 32` prints it.
    ///
    /// Both alphabets are accepted (RFC 4648 §4 and §5), with or without padding and surrounding whitespace.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if the text is not base64 or not of 32 bytes. The message does not
    /// contain the text.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::EncryptionKey;
    ///
    /// let error = EncryptionKey::from_base64("2026-03", "short").unwrap_err();
    /// assert!(error.is_misconfigured());
    /// ```
    pub fn from_base64(id: impl Into<String>, base64: impl AsRef<str>) -> Result<Self, StoreError> {
        let id = id.into();
        let wrong = |what: String| {
            StoreError::misconfigured(format!(
                "the key {id:?} {what}: create one with `openssl rand -base64 32`"
            ))
        };
        let base64 = base64.as_ref().trim();
        let engine = if base64.contains(['-', '_']) { &URL_SAFE } else { &ANY_PADDING };
        // Large enough from the start: a buffer that grows leaves a copy behind.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
        let length = engine
            .decode_slice(base64, &mut bytes)
            // The error of the decoder contains a character of the key.
            .map_err(|_| wrong("is not base64".into()))?;
        let bytes = <[u8; KEY]>::try_from(&bytes[..length])
            .map_err(|_| wrong(format!("has {length} bytes instead of {KEY}")))?;
        Ok(Self::new(id, bytes))
    }

    /// Returns the id of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts a record for a place.
    pub(super) fn encrypt(
        &self,
        record: &StoredTokens,
        place: Option<String>,
    ) -> Result<SealedContent, StoreError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            StoreError::unavailable(format!(
                "the operating system returns no random numbers: {error}"
            ))
        })?;
        let mut encrypted = SealedContent {
            key_id: self.id.to_string(),
            place,
            nonce: STANDARD.encode(nonce),
            ciphertext: String::new(),
            has_open_intent: record.has_open_intent(),
        };
        let associated = associated_data(record, &encrypted);
        let mut content = to_json(record)?;
        self.cipher()
            .encrypt_in_place(&XNonce::from(nonce), &associated, &mut *content)
            .map_err(|_| StoreError::misconfigured("the record is too large to be encrypted"))?;
        encrypted.ciphertext = STANDARD.encode(&*content);
        Ok(encrypted)
    }

    /// Decrypts a record. Returns `None` if it was changed or encrypted with other bytes.
    pub(super) fn decrypt(
        &self,
        record: &StoredTokens,
        encrypted: &SealedContent,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let nonce = <[u8; NONCE]>::try_from(STANDARD.decode(&encrypted.nonce).ok()?).ok()?;
        let mut content = Zeroizing::new(STANDARD.decode(&encrypted.ciphertext).ok()?);
        let associated = associated_data(record, encrypted);
        self.cipher().decrypt_in_place(&XNonce::from(nonce), &associated, &mut *content).ok()?;
        Some(content)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&**self.bytes).into())
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the data that is authenticated and not encrypted: all that the record shows in the clear. A length precedes each
/// part, so that no two records have the same data.
fn associated_data(record: &StoredTokens, encrypted: &SealedContent) -> Vec<u8> {
    // Destructured, so that a new field does not compile until it is decided whether it is authenticated.
    let SealedContent { key_id, place, nonce: _, ciphertext: _, has_open_intent } = encrypted;
    let Binding { token_endpoint, client_id, name } = record.binding();
    let write_id = record.write_id();
    let parts: [&[u8]; 10] = [
        b"tower-refresh: a sealed record",
        &record.version().to_be_bytes(),
        key_id.as_bytes(),
        &record.epoch().to_be_bytes(),
        &record.revision().to_be_bytes(),
        write_id.as_bytes(),
        token_endpoint.as_bytes(),
        client_id.as_bytes(),
        name.as_bytes(),
        &[u8::from(*has_open_intent)],
    ];
    let mut data = Vec::new();
    // A record with a place has one part more than a record without.
    for part in parts.into_iter().chain(place.as_deref().map(str::as_bytes)) {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// Returns the whole record as JSON, with room for the tag: a buffer that grows leaves copies of the tokens behind.
fn to_json(record: &StoredTokens) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, record).map_err(StoreError::unreadable)?;
    let mut json = Zeroizing::new(Vec::with_capacity(length.0 + TAG));
    serde_json::to_writer(&mut *json, record).map_err(StoreError::unreadable)?;
    Ok(json)
}

/// Counts the bytes that are written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const KEY: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;

const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::token::TokenSet;

    #[test]
    fn buffer_with_unencrypted_tokens_does_not_grow() {
        let tokens = TokenSet::bearer("sesame".repeat(10_000)).unwrap().with_refresh_token("open");
        let mut content = to_json(&StoredTokens::example(None, &tokens, true)).unwrap();
        assert_eq!(content.capacity(), content.len() + TAG);
        let place = content.as_ptr();
        let key = EncryptionKey::new("a", [1; KEY]);
        key.cipher().encrypt_in_place(&XNonce::from([0; NONCE]), &[], &mut *content).unwrap();
        assert_eq!((content.as_ptr(), content.len()), (place, content.capacity()));
    }
}
