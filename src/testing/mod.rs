//! An authorization server that goes wrong when told to.

mod body;
mod client;
mod clock;
mod counters;
mod fault;
mod faults;
mod form;
mod resource;
mod server;
mod service;
mod serving;
mod shared;
mod token_endpoint;
mod tokens;

pub use self::body::{ConnectionDropped, ResponseBody};
pub use self::clock::{ManualClock, TokioClock};
pub use self::counters::Counters;
pub use self::fault::Fault;
pub use self::faults::Faults;
pub use self::server::{AuthorizationServer, AuthorizationServerBuilder};
pub use self::service::{ResponseFuture, ServerService};
pub use self::serving::Serving;
pub use self::tokens::Rotation;
