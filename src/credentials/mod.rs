//! The current token set, and the refresh that obtains the next one.

mod builder;
mod event;
mod evidence;
mod flight;
mod generation;
mod handle;
mod into;
mod jitter;
mod policy;
#[cfg(feature = "serde")]
mod seconds;
mod session;
mod state;
mod status;

pub use self::builder::{CredentialsBuilder, OnUnavailable};
pub use self::event::{Event, Events};
pub(crate) use self::flight::{Answer, Waiting, Want};
pub use self::handle::Credentials;
pub(crate) use self::handle::recursion;
pub use self::into::IntoCredentials;
pub use self::policy::RefreshPolicy;
pub(crate) use self::state::Issued;
pub use self::status::{Status, TokenStatus};
