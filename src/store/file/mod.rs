//! A store in a file, for the processes of one machine.

mod access;
mod error;
mod lock;
mod place;
mod read;
mod reserve;
mod store;
mod write;

#[cfg(all(test, unix))]
mod tests;

pub use self::store::{FileLock, FileStore};
