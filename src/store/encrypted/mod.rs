//! Encryption at rest, over any store.

mod key;
mod store;

pub use self::key::EncryptionKey;
pub use self::store::EncryptedStore;
