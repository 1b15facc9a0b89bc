//! Encryption at rest, over any store.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize as _, Zeroizing};

use super::format::{Body, SealedContent};
use super::{Binding, StoreError, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] that encrypts what it saves to another one, and decrypts what it loads.
///
/// Each save is encrypted with XChaCha20-Poly1305 and a random nonce of 24 bytes. The lock is that of the store beneath.
///
/// ```no_run
/// use tower_refresh::store::{MemoryStore, SealKey, Sealed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Made once, with `openssl rand -base64 32`.
/// let key = SealKey::from_base64("2026-03", std::env::var("TOKEN_KEY")?)?;
/// let store = Sealed::new(MemoryStore::new(), key);
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
///
/// # What it protects
///
/// Whoever reads the file, its backups, or the memory of a Redis finds no token there, and nothing that was derived from
/// one.
///
/// A program that can write there cannot forge a record. What stands in the clear is authenticated: the format version, the id
/// of the key, the [place](TokenStore::place) of the record, the epoch, the revision, the write id, the [`Binding`], and whether
/// an intent is open. A record in which any of it was edited is [unreadable](StoreError::unreadable), and so is one that was put
/// together from two.
///
/// A record that was moved to another place is unreadable as well, so that the records of two users cannot be swapped. The
/// place is the key of a `RedisStore`, and the file name of a `FileStore` or its `label`. A `MemoryStore` has none. Files of the
/// same name in different folders, and keys of the same name in different databases, are one place: give the files labels, or
/// each grant a [name](crate::CredentialsBuilder::name), which the [`Binding`] has.
///
/// # What it does not protect
///
/// - **Rollback is not detected.** An older record that somebody puts back is as good as the newest. It brings back a refresh
///   token that may be spent, and a server that detects reuse then ends the session; or a session that the application had
///   logged out of, if the server did not revoke it. To delete the record is to begin anew from the configured refresh
///   token. None of that tells anybody a token; keep strangers from writing all the same.
/// - **What stands in the clear** can be read: where the token endpoint is, the client id, the name of the credential, how
///   often it was renewed, and whether a renewal is under way.
/// - **The length** of what is encrypted tells the length of the tokens together.
/// - **Records of before** are bound to no place. They are read, and the next save binds them; until then, two of them can be
///   swapped. A copy of one that an attacker has kept can be put in any place, as long as its refresh token is still worth
///   something. See [`require_place`](Self::require_place).
/// - **The process itself** has the keys and the tokens in its memory, and whoever can read that has both.
/// - Fields that somebody adds to the clear part, such as the `_id` of a document database, are neither used nor kept.
///
/// # Where to keep the key
///
/// Not where the store is, nor in the same backup: in the secret manager of the platform, from where it reaches the program
/// as an environment variable or a mounted file. If it is lost, so are the sessions, and somebody must log in again; nothing
/// else is. All processes that share the grant need it.
///
/// # Rotating the key
///
/// [`new`](Self::new) takes the key that seals, [`also_open`](Self::also_open) those that open only. With several processes,
/// each step is rolled out to all of them before the next begins:
///
/// 1. Make a key with a new id, and let every process open with it: `Sealed::new(store, old).also_open(new)`.
/// 2. Seal with it: `Sealed::new(store, new).also_open(old)`. The next save of each grant is sealed with the new key.
/// 3. When every grant was renewed once, which is when no record names the old key any longer, take it away. One that was
///    forgotten is unreadable then and not lost: the error names the key.
///
/// A key that got known is rotated in the same way, and then the tokens are known too: log out and in again.
///
/// # Moving a record
///
/// A record whose file or key was renamed is unreadable, and the error names both places. Rename it back, or open it with
/// [`also_open_at`](Self::also_open_at): the next save binds it to its new place. A folder can be moved freely.
///
/// # Introducing it
///
/// A record that is not encrypted is unreadable, or whoever can write to the store could plant one.
/// [`accept_plain`](Self::accept_plain) is for the time of the migration. The way back is to log in again.
#[derive(Clone)]
pub struct Sealed<S> {
    store: S,
    seals: SealKey,
    also_opens: Vec<SealKey>,
    also_opens_at: Vec<String>,
    accepts_plain: bool,
    requires_place: bool,
}

impl<S: TokenStore> Sealed<S> {
    /// Puts encryption over a store, with this key.
    pub fn new(store: S, key: SealKey) -> Self {
        Self {
            store,
            seals: key,
            also_opens: Vec::new(),
            also_opens_at: Vec::new(),
            accepts_plain: false,
            requires_place: false,
        }
    }

    /// Opens what was sealed with this key, too. Nothing more is sealed with it.
    #[must_use]
    pub fn also_open(mut self, key: SealKey) -> Self {
        self.also_opens.push(key);
        self
    }

    /// Accepts a record that is not encrypted, for as long as it takes to introduce encryption. The next save seals it.
    ///
    /// Whoever can write to the store can then plant a token set of their own, and be sent what the program does with it.
    /// Take it away as soon as each grant was saved once.
    #[must_use]
    pub fn accept_plain(mut self) -> Self {
        self.accepts_plain = true;
        self
    }

    /// Opens a record that was sealed for this [place](TokenStore::place), too, after it was renamed. The next save seals it
    /// for the place where it is.
    ///
    /// A program that can write to the store can then put the record of that place here. Remove the call as soon as the
    /// record was saved once.
    #[must_use]
    pub fn also_open_at(mut self, place: impl Into<String>) -> Self {
        self.also_opens_at.push(place.into());
        self
    }

    /// Refuses a record that was sealed without its [place](TokenStore::place), as earlier versions of this crate did.
    ///
    /// By default, such a record is opened, and the next save binds it to its place. Call this as soon as each grant was
    /// saved once: from then on, no copy of an old record is of use to an attacker.
    ///
    /// The store must name a place. Otherwise, each save is [misconfigured](StoreError::is_misconfigured), and no refresh token
    /// is spent.
    #[must_use]
    pub fn require_place(mut self) -> Self {
        self.requires_place = true;
        self
    }

    fn seal(&self, record: &StoredTokens) -> Result<StoredTokens, StoreError> {
        if let Body::Sealed(_) = record.body {
            return Err(StoreError::misconfigured(
                "the record is sealed already: put `Sealed` over a store once",
            ));
        }
        let place = Some(self.store.place()).filter(|place| !place.is_empty());
        if self.requires_place && place.is_none() {
            return Err(StoreError::misconfigured(format!(
                "{} names no place, and what is sealed without one could not be opened again: remove `Sealed::require_place`, or give the store a place (`TokenStore::place`)",
                self.store.describe()
            )));
        }
        let key = &self.seals;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            StoreError::unavailable(format!("the system has no random numbers to give: {error}"))
        })?;
        let mut sealed = SealedContent {
            key_id: key.id.to_string(),
            place,
            nonce: STANDARD.encode(nonce),
            ciphertext: String::new(),
            has_open_intent: record.has_open_intent(),
        };
        let associated = associated_data(record, &sealed);
        let mut content = in_the_clear(record)?;
        key.cipher()
            .encrypt_in_place(&XNonce::from(nonce), &associated, &mut *content)
            .map_err(|_| StoreError::misconfigured("the record is too large to be sealed"))?;
        sealed.ciphertext = STANDARD.encode(&*content);
        Ok(record.sealed(sealed))
    }

    fn open(&self, record: StoredTokens) -> Result<StoredTokens, StoreError> {
        let unreadable =
            |why: &str| StoreError::unreadable(format!("{}: {why}", self.store.describe()));
        let sealed = match &record.body {
            Body::Sealed(sealed) => sealed,
            Body::Plain(_) if self.accepts_plain => return Ok(record),
            Body::Plain(_) => {
                return Err(unreadable(
                    "it is not sealed, and may be somebody else's: if it was saved before encryption was introduced, \
                     call `Sealed::accept_plain` until it was saved once more",
                ));
            }
        };
        // It may be anything, if another program wrote it.
        let key_id: String = sealed.key_id.chars().take(KEY_ID_SHOWN).collect();
        let mut is_known = false;
        for key in [&self.seals].into_iter().chain(&self.also_opens) {
            if *key.id == *sealed.key_id {
                is_known = true;
                if let Some(content) = open(&record, sealed, key) {
                    self.check_place(sealed.place.as_deref()).map_err(|why| unreadable(&why))?;
                    let mut opened = StoredTokens::from_json(&content)
                        .map_err(|error| unreadable(&error.get_ref().to_string()))?;
                    opened.is_doubted = record.is_doubted;
                    return Ok(opened);
                }
            }
        }
        Err(unreadable(&if is_known {
            format!(
                "it cannot be opened: the key {key_id:?} is not the one that it was sealed with, or it was changed"
            )
        } else {
            format!(
                "it is sealed with the key {key_id:?}, which is not at hand: add it with `Sealed::also_open`"
            )
        }))
    }

    /// Refuses a record that is whole, and was sealed for another place.
    fn check_place(&self, sealed_for: Option<&str>) -> Result<(), String> {
        let place = self.store.place();
        match sealed_for {
            Some(sealed_for) if sealed_for == place => Ok(()),
            Some(sealed_for) if self.also_opens_at.iter().any(|place| place == sealed_for) => Ok(()),
            Some(sealed_for) => Err(format!(
                "it was sealed for the place {sealed_for:?}, and is at the place {place:?}: put back the record that belongs here, or call `Sealed::also_open_at({sealed_for:?})` if it was renamed on purpose"
            )),
            None if self.requires_place => Err(
                "it was sealed without its place, by an earlier version or by a store that names none, and may belong elsewhere: call `Sealed::require_place` only after each record was saved once".into(),
            ),
            None => Ok(()),
        }
    }
}

impl<S: TokenStore> TokenStore for Sealed<S> {
    type Lock = S::Lock;

    async fn lock(&self, wait: Duration) -> Result<Self::Lock, StoreError> {
        self.store.lock(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.store.load().await?.map(|record| self.open(record)).transpose()
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        // A record that cannot be opened is safe: nobody has learnt its write id from a load to name it here.
        self.store.save(&self.seal(record)?, replaces).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn place(&self) -> String {
        self.store.place()
    }
}

impl<S: TokenStore> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("store", &self.store.describe())
            .field("seals", &self.seals)
            .field("also_opens", &self.also_opens)
            .field("also_opens_at", &self.also_opens_at)
            .field("accepts_plain", &self.accepts_plain)
            .field("requires_place", &self.requires_place)
            .finish()
    }
}

/// A key for a [`Sealed`] store: 32 random bytes, and an id that is stored beside what they seal.
///
/// The id is not secret. Give each key one that no other had, such as the month in which it was made.
///
/// A password will not do: bytes that are not random can be guessed. It is redacted in `Debug`, and wiped from memory with
/// the last clone.
#[derive(Clone)]
pub struct SealKey {
    id: Arc<str>,
    bytes: Arc<Zeroizing<[u8; KEY]>>,
}

impl SealKey {
    /// Makes a key of 32 random bytes.
    pub fn new(id: impl Into<String>, mut bytes: [u8; KEY]) -> Self {
        let key = Self { id: id.into().into(), bytes: Arc::new(Zeroizing::new(bytes)) };
        bytes.zeroize();
        key
    }

    /// Reads a key from base64 of either alphabet, with or without padding and whitespace around it, as
    /// `openssl rand -base64 32` prints it.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::misconfigured) if it is something else; what it is is not shown.
    pub fn from_base64(id: impl Into<String>, base64: impl AsRef<str>) -> Result<Self, StoreError> {
        let id = id.into();
        let wrong = |what: String| {
            StoreError::misconfigured(format!(
                "the key {id:?} {what}: make one with `openssl rand -base64 32`"
            ))
        };
        let base64 = base64.as_ref().trim();
        let engine = if base64.contains(['-', '_']) { &URL_SAFE } else { &ANY_PADDING };
        // Large enough from the start, as to grow would leave a copy behind.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(base64.len())]);
        let length = engine
            .decode_slice(base64, &mut bytes)
            // The error would show a character of it.
            .map_err(|_| wrong("is not base64".into()))?;
        let bytes = <[u8; KEY]>::try_from(&bytes[..length])
            .map_err(|_| wrong(format!("is of {length} bytes, and is to be of {KEY}")))?;
        Ok(Self::new(id, bytes))
    }

    /// Returns the id of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&**self.bytes).into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn open(
    record: &StoredTokens,
    sealed: &SealedContent,
    key: &SealKey,
) -> Option<Zeroizing<Vec<u8>>> {
    let nonce = <[u8; NONCE]>::try_from(STANDARD.decode(&sealed.nonce).ok()?).ok()?;
    let mut content = Zeroizing::new(STANDARD.decode(&sealed.ciphertext).ok()?);
    let associated = associated_data(record, sealed);
    key.cipher().decrypt_in_place(&XNonce::from(nonce), &associated, &mut *content).ok()?;
    Some(content)
}

/// What is authenticated and not encrypted: all that the record shows in the clear. Each part goes behind its length, so
/// that no two records share it.
fn associated_data(record: &StoredTokens, sealed: &SealedContent) -> Vec<u8> {
    // Whoever adds a field to any of them decides here whether it is authenticated.
    let SealedContent { key_id, place, nonce: _, ciphertext: _, has_open_intent } = sealed;
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
    // One part more: no record without a place has the same data.
    for part in parts.into_iter().chain(place.as_deref().map(str::as_bytes)) {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// Returns the whole record as JSON, with room for the tag: a buffer that grew would leave copies of the tokens behind.
fn in_the_clear(record: &StoredTokens) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, record).map_err(StoreError::unreadable)?;
    let mut json = Zeroizing::new(Vec::with_capacity(length.0 + TAG));
    serde_json::to_writer(&mut *json, record).map_err(StoreError::unreadable)?;
    Ok(json)
}

/// Counts what is written to it.
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

/// How many characters of a key's id an error shows.
const KEY_ID_SHOWN: usize = 64;

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
    use crate::store::MemoryStore;
    use crate::token::TokenSet;

    fn record() -> StoredTokens {
        let tokens =
            TokenSet::bearer("sesame".repeat(10_000)).unwrap().refresh_token("open").build();
        StoredTokens::example(None, &tokens, true)
    }

    #[test]
    fn the_doubt_of_a_store_passes_through() {
        let sealed = Sealed::new(MemoryStore::new(), SealKey::new("a", [1; KEY])).accept_plain();
        for stored in [sealed.seal(&record()).unwrap(), record()] {
            assert!(!sealed.open(stored.clone()).unwrap().is_doubted);
            assert!(sealed.open(stored.doubted()).unwrap().is_doubted);
        }
    }

    #[test]
    fn no_buffer_with_tokens_in_the_clear_grows() {
        let mut content = in_the_clear(&record()).unwrap();
        assert_eq!(content.capacity(), content.len() + TAG);
        let place = content.as_ptr();
        let key = SealKey::new("a", [1; KEY]);
        key.cipher().encrypt_in_place(&XNonce::from([0; NONCE]), &[], &mut *content).unwrap();
        assert_eq!((content.as_ptr(), content.len()), (place, content.capacity()));
    }

    #[test]
    fn an_intent_is_known_of_without_the_key() {
        let sealed = Sealed::new(MemoryStore::new(), SealKey::new("a", [1; KEY]));
        assert!(sealed.seal(&record()).unwrap().has_open_intent());
    }
}
