//! The meaning of an answer of the token endpoint.

mod answer;
mod document;
mod extra;
#[cfg_attr(
    not(feature = "tracing"),
    allow(unused_imports, unused_variables, dead_code, reason = "the macros expand to nothing")
)]
mod log;
mod oauth_error;
mod read;
mod refusal;
mod token_set;

pub(super) use self::answer::{Answer, Context};
pub(super) use self::document::is_whole;
pub(super) use self::log::Reported;
pub(super) use self::read::{is_answer, read, refresh_token};
pub(super) use self::refusal::refusal;
#[cfg(test)]
mod tests;
