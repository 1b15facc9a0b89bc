//! Guides: one page for each task, whose programs are compiled.
//!
//! | Guide | Content |
//! |---|---|
//! | [Many users](many_users/index.html) | a token for each user of a backend, in one pool |

#[cfg(all(
    feature = "pool",
    any(doc, all(feature = "file-store", feature = "oauth2", feature = "testing"))
))]
#[doc = include_str!("many_users.md")]
pub mod many_users {}
