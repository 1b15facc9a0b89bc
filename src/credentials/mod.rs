//! The current token set, and the refresh that obtains the next one.

mod backoff;
mod builder;
mod event;
mod evidence;
mod flight;
mod generation;
mod handle;
mod into;
mod issued;
mod jitter;
mod policy;
#[cfg(feature = "serde")]
mod seconds;
mod session;
mod state;
mod status;
mod task;
mod wait;

pub use self::builder::{CredentialsBuilder, OnUnavailable};
pub use self::event::{Event, Events};
pub use self::handle::Credentials;
pub(crate) use self::handle::recursion;
pub use self::into::IntoCredentials;
pub(crate) use self::issued::Issued;
pub use self::policy::RefreshPolicy;
pub use self::status::{Status, TokenStatus};
pub(crate) use self::wait::{Answer, Waiting, Want};
