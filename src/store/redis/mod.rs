//! A store in Redis, for several machines.

mod connection;
mod entry;
mod failure;
mod link;
mod lock;
mod releases;
mod store;
#[cfg(all(test, unix, feature = "testing"))]
mod tests;

pub use self::lock::RedisLock;
pub use self::store::RedisStore;
