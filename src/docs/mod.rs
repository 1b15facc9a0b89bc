//! Guides: one page for each task, whose programs are compiled.
//!
//! | Guide | Content |
//! |---|---|
//! | [Many users](many_users/index.html) | a token for each user of a backend, in one pool |
//! | [Stores and fleets](stores/index.html) | which store, its set-up, outages, deploys and failover |
//! | [gRPC](grpc/index.html) | a generated client, deadlines, trailers and streams |
//! | [Move from another solution](move_from/index.html) | five programs before and after |
//! | [What happens when](what_happens/index.html) | event, state, and the result for the caller |
//! | [Compiler errors](compiler_errors/index.html) | the cause of the usual errors |
//! | [Logs](logs/index.html) | targets, levels, fields, and every message |

#[cfg(all(
    feature = "pool",
    any(doc, all(feature = "file-store", feature = "oauth2", feature = "testing"))
))]
#[doc = include_str!("many_users.md")]
pub mod many_users {}

#[cfg(all(feature = "tonic", any(doc, all(feature = "hyper-util", feature = "oauth2"))))]
#[doc = include_str!("grpc.md")]
pub mod grpc {}

#[cfg(any(
    doc,
    all(feature = "file-store", feature = "oauth2", feature = "reqwest", feature = "store")
))]
#[doc = include_str!("move_from.md")]
pub mod move_from {}

#[cfg(all(
    feature = "encrypted-store",
    feature = "file-store",
    feature = "oauth2",
    feature = "postgres",
    feature = "redis"
))]
#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("what_happens.md")]
pub mod what_happens {}

#[doc = include_str!("logs.md")]
pub mod logs {}

#[doc = include_str!("compiler_errors.md")]
pub mod compiler_errors {}
