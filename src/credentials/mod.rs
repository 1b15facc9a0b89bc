//! The current token set, and the refresh that obtains the next one.
//!
//! A *flight* is a refresh in flight, a look at the store or a save in the background. An *adoption* is a log-in or a log-out that
//! has yet to be recorded. Both take turns at the ledger of the grant.
//!
//! | Module | Content |
//! |---|---|
//! | `handle` | [`Credentials`]: the lock around the state, and the token that is read without it |
//! | `state` | every decision: which token may be used, which flight is started, what a landing changes |
//! | `issued`, `backoff`, `flight`, `session`, `evidence` | the parts of the state |
//! | `member`, `outage` | the membership in a pool, and the outage of a token endpoint that its members notice together |
//! | `log` | the log lines, each change once |
//! | `wait` | requests that wait for a flight |
//! | `task` | the tasks that fly, log in, log out and save |

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
#[cfg_attr(
    not(feature = "tracing"),
    allow(
        unused_imports,
        unused_variables,
        dead_code,
        clippy::if_same_then_else,
        reason = "the macros expand to nothing"
    )
)]
mod log;
#[cfg_attr(not(feature = "pool"), allow(dead_code, reason = "only a pool has members"))]
mod member;
#[cfg_attr(not(feature = "pool"), allow(dead_code, reason = "only a pool has members"))]
mod outage;
mod policy;
#[cfg(feature = "serde")]
pub(crate) mod seconds;
mod session;
mod state;
mod status;
mod task;
mod wait;
mod work;

pub use self::builder::{CredentialsBuilder, OnUnavailable};
pub use self::event::{Event, Events};
#[cfg(feature = "pool")]
pub(crate) use self::event::{EventStream, event_stream};
pub(crate) use self::generation::Generation;
pub use self::handle::Credentials;
pub(crate) use self::handle::recursion;
pub use self::into::IntoCredentials;
pub(crate) use self::issued::Issued;
#[cfg(feature = "pool")]
pub(crate) use self::member::{Common, NamedEvent};
pub use self::policy::RefreshPolicy;
#[cfg(feature = "pool")]
pub(crate) use self::status::Rounded;
pub use self::status::{Status, TokenStatus};
pub(crate) use self::wait::{Answer, Waiting, Want};
