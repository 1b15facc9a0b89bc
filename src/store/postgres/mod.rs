//! A store in PostgreSQL, for several machines.

mod client;
mod failure;
mod lock;
mod notices;
mod row;
mod store;
mod table;
#[cfg(all(test, unix, feature = "testing"))]
mod tests;

pub use self::lock::PostgresLock;
pub use self::store::PostgresStore;
