//! Guides: one page for each task. All programs in them are compiled.
//!
//! | Guide | Content |
//! |---|---|
//! | [Add it to your program](add_it) | dependencies and programs for hyper, reqwest, tonic and axum; a struct field, shutdown, health |
//! | [Choose and write a source](sources) | where tokens come from: grants, closures, files, secret managers, your own type |
//! | [Log in and out](log_in) | device code, authorization code, a pasted token, revocation |
//! | [Describe a token endpoint](token_endpoints) | an endpoint that differs from RFC 6749 |
//! | [Layer order](layer_order) | the position of the layer in a stack, with a picture |
//! | [Stores and fleets](stores) | which store, its set-up, outages, deploys and failover |
//! | [Many users](many_users) | a token for each user of a backend, in one pool |
//! | [gRPC](grpc) | a generated client, deadlines, trailers and streams |
//! | [Test your client](testing) | an authorization server with faults, and clocks; reqwest without a socket |
//! | [Move from another solution](move_from) | five programs before and after |
//! | [Beyond HTTP](beyond_http) | PostgreSQL, Kafka, Redis, WebSocket and server-sent events |
//! | [Troubleshooting](troubleshooting) | each message, its cause, and the change that helps |
//! | [Security](security) | the rules of RFC 6750 and RFC 9700: the part of this crate, and yours |
//! | [What happens when](what_happens) | for each event and state, the result for the caller |
//! | [Logs](logs) | targets, levels, fields, and every message |
//! | [Metrics](metrics) | all metrics, a dashboard, and alert rules |
//! | [Compiler errors](compiler_errors) | the cause of the usual errors |
// A page has no features, so that links to it hold with any. Its programs have some. (`doc` is set for both, `doctest` is not.)

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("add_it.md")]
pub mod add_it {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("sources.md")]
pub mod sources {}

// `tests/other_clients` compiles its programs, because they need crates that no other test needs.
#[cfg(not(doctest))]
#[doc = include_str!("log_in.md")]
pub mod log_in {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("token_endpoints.md")]
pub mod token_endpoints {}

#[cfg(any(not(doctest), feature = "full"))]
/// The position of the layer among other layers of a stack.
///
#[doc = include_str!("pictures/layer_order.svg")]
///
#[doc = include_str!("layer_order.md")]
pub mod layer_order {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("stores.md")]
pub mod stores {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("many_users.md")]
pub mod many_users {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("grpc.md")]
pub mod grpc {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("testing.md")]
pub mod testing {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("move_from.md")]
pub mod move_from {}

// `tests/other_clients` compiles its programs, because they need crates that no other test needs.
#[cfg(not(doctest))]
#[doc = include_str!("beyond_http.md")]
pub mod beyond_http {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("what_happens.md")]
pub mod what_happens {}

#[doc = include_str!("logs.md")]
pub mod logs {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("metrics.md")]
///
#[doc = include_str!("pictures/dashboard.svg")]
pub mod metrics {}

#[cfg(any(not(doctest), feature = "full"))]
#[doc = include_str!("compiler_errors.md")]
pub mod compiler_errors {}
