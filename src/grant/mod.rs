//! The ledger of one grant: what is known about it, and the only code that calls a source or a store.

pub(crate) mod backing;
mod due;
mod keeper;
mod ledger;
mod plan;
pub(crate) mod record;
mod refresh;
mod session;

#[cfg(feature = "pool")]
pub(crate) use self::keeper::Beginning;
pub(crate) use self::keeper::{Keeper, Look, Notes, Obtained, Store};
pub(crate) use self::ledger::SetId;
pub(crate) use self::plan::{Leeway, Wish};
