//! The store around another one.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::key::EncryptionKey;
use crate::store::format::{Body, SealedContent};
use crate::store::{StoreError, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] that encrypts the records of another store.
///
/// Each save is encrypted with XChaCha20-Poly1305 and a random nonce of 24 bytes. The inner store provides the lock and keeps
/// the encrypted record.
///
/// # Examples
///
/// ```no_run
/// use tower_refresh::store::{EncryptedStore, EncryptionKey, MemoryStore};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Created once, with `openssl rand -base64 32`.
/// let key = EncryptionKey::from_base64("2026-03", std::env::var("TOKEN_KEY")?)?;
/// // Replace the `MemoryStore` with a `FileStore`, a `RedisStore` or a `PostgresStore`.
/// let store = EncryptedStore::new(MemoryStore::new(), key);
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
///
/// # What is protected
///
/// A reader of the file, the table, their backups or the memory of a Redis server finds no token there, and nothing derived from
/// one.
///
/// A program that can write to the storage cannot forge a record. The parts that are stored in the clear are authenticated:
/// the format version, the id of the key, the [place](TokenStore::place) of the record, the epoch, the revision, the write id,
/// the [`Binding`](crate::store::Binding), and whether an intent is open. If one of them was edited, the record is
/// [unreadable](StoreError::is_unreadable). So is a record that was put together from two records.
///
/// A record that was moved to another place is unreadable as well, so that the records of two users cannot be swapped. The
/// place is the key of a `RedisStore`, the table and the name of a `PostgresStore`, and the file name of a `FileStore` unless you set
/// one. A `MemoryStore` has no place. Files of the same name in different folders share one place, and so do equal keys in
/// different Redis databases, and equal names in different schemas of PostgreSQL. Set
/// `FileStore::with_place`, or give each grant a [name](crate::CredentialsBuilder::name), which is part of the `Binding`.
///
/// # Limits
///
/// - **Rollback is not detected.** An older record that is put back is as valid as the newest. It brings back a refresh token
///   that may be spent, and a server that detects reuse then ends the session. It can also bring back a session from which the
///   application has logged out, unless the server has revoked it. A deleted record starts again from the configured refresh
///   token. None of this discloses a token. Still, do not let another program write to the storage.
/// - **Parts in the clear** can be read: the origin of the token endpoint, the client id, the name of the credentials, how
///   often the tokens were refreshed, and whether a refresh is in flight.
/// - **The length** of the ciphertext shows the total length of the tokens.
/// - **Old records have no place.** They can be read, and the next save adds the place. Until then, two of them can be swapped,
///   and a copy that an attacker has kept can be put in any place while its refresh token is valid. See
///   [`require_place`](Self::require_place).
/// - **The process** has the keys and the tokens in its memory.
/// - **Fields that another program adds**, such as the `_id` of a document database, are neither used nor kept.
///
/// # Where to keep the key
///
/// Keep the key apart from the store and its backups: in the secret manager of your platform, which passes it to the program
/// as an environment variable or a mounted file. All processes that share the grant need it. If the key is lost, the sessions
/// are lost: the users must log in again.
///
/// # Key rotation
///
/// [`new`](Self::new) takes the key that encrypts, [`also_decrypt_with`](Self::also_decrypt_with) adds keys that only decrypt.
/// With several processes, roll out each step to all of them before the next one:
///
/// 1. Create a key with a new id, and let every process decrypt with it:
///    `EncryptedStore::new(store, old).also_decrypt_with(new)`.
/// 2. Encrypt with the new key: `EncryptedStore::new(store, new).also_decrypt_with(old)`. The next save of each grant uses it.
/// 3. Remove the old key once no record names it, which is after one refresh of each grant. A record that still needs it is
///    unreadable and not lost: the error names the key.
///
/// If a key has leaked, rotate it in the same way. The tokens have leaked too: log out and in again.
///
/// # Moved records
///
/// If a file or a key was renamed, its record is unreadable, and the error names both places. Rename it back, or allow the old
/// place with [`accept_moved_from`](Self::accept_moved_from): the next save binds the record to its new place. A folder can be
/// moved freely.
///
/// # Migration
///
/// An unencrypted record is unreadable, since a program that can write to the storage could plant one.
/// [`accept_unencrypted`](Self::accept_unencrypted) allows it for the time of the migration. To go back to a store without
/// encryption, log in again.
#[doc(alias = "Sealed")]
#[doc(alias = "encryption")]
#[derive(Clone)]
#[must_use]
pub struct EncryptedStore<S> {
    store: S,
    key: EncryptionKey,
    other_keys: Vec<EncryptionKey>,
    other_places: Vec<String>,
    accepts_unencrypted: bool,
    requires_place: bool,
}

impl<S: TokenStore> EncryptedStore<S> {
    /// Creates a store that encrypts the records of `store` with `key`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::{EncryptedStore, EncryptionKey, MemoryStore};
    ///
    /// # let bytes = [7; 32];
    /// let store = EncryptedStore::new(MemoryStore::new(), EncryptionKey::new("2026-03", bytes));
    /// ```
    pub fn new(store: S, key: EncryptionKey) -> Self {
        Self {
            store,
            key,
            other_keys: Vec::new(),
            other_places: Vec::new(),
            accepts_unencrypted: false,
            requires_place: false,
        }
    }

    /// Adds a key that decrypts records and encrypts none. See [key rotation](Self#key-rotation).
    pub fn also_decrypt_with(mut self, key: EncryptionKey) -> Self {
        self.other_keys.push(key);
        self
    }

    /// Accepts unencrypted records, to introduce encryption. The next save encrypts the record.
    ///
    /// A program that can write to the storage can then plant a token set, which this program uses. Remove this call as soon as
    /// each grant was saved once.
    pub fn accept_unencrypted(mut self) -> Self {
        self.accepts_unencrypted = true;
        self
    }

    /// Accepts a record that was encrypted for the [place](TokenStore::place) `place` and then moved here. The next save binds
    /// it to its new place.
    ///
    /// A program that can write to the storage can then put the record of that place here. Remove this call as soon as the
    /// record was saved once.
    pub fn accept_moved_from(mut self, place: impl Into<String>) -> Self {
        self.other_places.push(place.into());
        self
    }

    /// Refuses records without a [place](TokenStore::place), which earlier versions of this crate have written.
    ///
    /// By default, such a record is accepted, and the next save adds its place. Call this as soon as each grant was saved
    /// once: from then on, a copy of an old record is useless to an attacker.
    ///
    /// The inner store must have a place. Otherwise, each save is [misconfigured](StoreError::is_misconfigured), and no refresh
    /// token is spent.
    pub fn require_place(mut self) -> Self {
        self.requires_place = true;
        self
    }

    fn encrypt(&self, record: &StoredTokens) -> Result<StoredTokens, StoreError> {
        if let Body::Sealed(_) = record.body {
            return Err(StoreError::misconfigured(
                "the record is encrypted already: use `EncryptedStore` once",
            ));
        }
        let place = Some(self.store.place()).filter(|place| !place.is_empty());
        // The record could not be read again.
        if self.requires_place && place.is_none() {
            return Err(StoreError::misconfigured(format!(
                "{} has no place: remove `EncryptedStore::require_place`, or implement `TokenStore::place`",
                self.store.describe()
            )));
        }
        Ok(record.sealed(self.key.encrypt(record, place)?))
    }

    fn decrypt(&self, record: StoredTokens) -> Result<StoredTokens, StoreError> {
        let encrypted = match &record.body {
            Body::Sealed(encrypted) => encrypted,
            Body::Plain(_) if self.accepts_unencrypted => return Ok(record),
            Body::Plain(_) => {
                return Err(self.unreadable(
                    "it is not encrypted, and another program may have written it: if it was saved before encryption was introduced, call `EncryptedStore::accept_unencrypted` until it was saved once more",
                ));
            }
        };
        let content = self.content(&record, encrypted)?;
        self.check_place(encrypted.place.as_deref())?;
        let mut decrypted =
            StoredTokens::from_json(&content).map_err(|error| self.unreadable(error.get_ref()))?;
        decrypted.is_doubted = record.is_doubted;
        Ok(decrypted)
    }

    fn content(
        &self,
        record: &StoredTokens,
        encrypted: &SealedContent,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        // Another program may have written anything as the id.
        let id: String = encrypted.key_id.chars().take(KEY_ID_SHOWN).collect();
        let keys = [&self.key].into_iter().chain(&self.other_keys);
        let mut keys = keys.filter(|key| key.id() == encrypted.key_id).peekable();
        if keys.peek().is_none() {
            return Err(self.unreadable(format!(
                "it is encrypted with the key {id:?}, which this store does not have: add it with `EncryptedStore::also_decrypt_with`"
            )));
        }
        keys.find_map(|key| key.decrypt(record, encrypted)).ok_or_else(|| {
            self.unreadable(format!(
                "it cannot be decrypted: either this key {id:?} is not the one that encrypted it, or the record was changed"
            ))
        })
    }

    /// Refuses a record that was encrypted for another place.
    fn check_place(&self, encrypted_for: Option<&str>) -> Result<(), StoreError> {
        let place = self.store.place();
        match encrypted_for {
            Some(other) if other == place || self.other_places.iter().any(|place| place == other) => Ok(()),
            Some(other) => Err(self.unreadable(format!(
                "it was encrypted for the place {other:?}, and is at the place {place:?}: restore the record that belongs here, or call `EncryptedStore::accept_moved_from({other:?})` if it was renamed on purpose"
            ))),
            None if self.requires_place => Err(self.unreadable(
                "it was encrypted without its place, by an earlier version or over a store that has none, and may belong elsewhere: call `EncryptedStore::require_place` only after each record was saved once",
            )),
            None => Ok(()),
        }
    }

    fn unreadable(&self, why: impl fmt::Display) -> StoreError {
        StoreError::unreadable(format!("{}: {why}", self.store.describe()))
    }
}

impl<S: TokenStore> TokenStore for EncryptedStore<S> {
    type Lock = S::Lock;

    async fn lock(&self, wait: Duration) -> Result<Self::Lock, StoreError> {
        self.store.lock(wait).await
    }

    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<Self::Lock>, StoreError> {
        self.store.lock_or_wait(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.store.load().await?.map(|record| self.decrypt(record)).transpose()
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        // A record that cannot be decrypted is not replaced: its write id was never loaded, so that `replaces` differs.
        self.store.save(&self.encrypt(record)?, replaces).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn place(&self) -> String {
        self.store.place()
    }

    fn survives_drop(&self) -> bool {
        self.store.survives_drop()
    }
}

impl<S: TokenStore> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("store", &self.store.describe())
            .field("key", &self.key)
            .field("other_keys", &self.other_keys)
            .finish_non_exhaustive()
    }
}

/// How many characters of a key's id an error shows.
const KEY_ID_SHOWN: usize = 64;

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::token::TokenSet;

    fn record() -> StoredTokens {
        let tokens = TokenSet::bearer("sesame").unwrap().with_refresh_token("open");
        StoredTokens::example(None, &tokens, true)
    }

    fn store() -> EncryptedStore<MemoryStore> {
        EncryptedStore::new(MemoryStore::new(), EncryptionKey::new("a", [1; 32]))
    }

    #[test]
    fn doubt_of_the_inner_store_is_kept() {
        let store = store().accept_unencrypted();
        for stored in [store.encrypt(&record()).unwrap(), record()] {
            assert!(!store.decrypt(stored.clone()).unwrap().is_doubted);
            assert!(store.decrypt(stored.doubted()).unwrap().is_doubted);
        }
    }

    #[test]
    fn open_intent_is_visible_without_the_key() {
        assert!(store().encrypt(&record()).unwrap().has_open_intent());
    }
}
