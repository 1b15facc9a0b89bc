//! The keys of a pool.

use std::borrow::Cow;
use std::hash::Hash;
use std::sync::Arc;

/// A key of a [`CredentialsPool`](crate::CredentialsPool), with the name that its credentials are bound to.
///
/// Strings, integers, and pairs and triples of keys, such as a user and an audience, are keys.
///
/// # Examples
///
/// ```
/// use std::borrow::Cow;
/// use tower_refresh::PoolKey;
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct UserId([u8; 4]);
///
/// impl PoolKey for UserId {
///     fn name(&self) -> Cow<'_, str> {
///         format!("{:08x}", u32::from_be_bytes(self.0)).into()
///     }
/// }
///
/// assert_eq!(UserId([0, 0, 1, 2]).name(), "00000102");
/// assert_eq!(("alice".to_owned(), "https://api.example.com".to_owned()).name(), "alice/https:%2F%2Fapi.example.com");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the key of a pool",
    label = "expected a string, an integer, a pair or triple of these, or a type with `PoolKey`",
    note = "implement `PoolKey` for `{Self}`, with a name for each key: `fn name(&self) -> Cow<'_, str>`"
)]
pub trait PoolKey: Clone + Eq + Hash + Send + Sync + 'static {
    /// Returns the name of the key. Different keys must have different names, and a name must stay the same across restarts.
    ///
    /// The credentials and their record in a store are bound to the name. Events and errors contain it, so it must not be a secret. A
    /// name that is empty, or has only white space, belongs to no user: the pool returns an error for it.
    fn name(&self) -> Cow<'_, str>;
}

macro_rules! strings {
    ($($type:ty)*) => {$(
        impl PoolKey for $type {
            fn name(&self) -> Cow<'_, str> {
                Cow::Borrowed(self)
            }
        }
    )*};
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl PoolKey for $type {
            fn name(&self) -> Cow<'_, str> {
                self.to_string().into()
            }
        }
    )*};
}

strings!(String Arc<str> Box<str> &'static str Cow<'static, str>);
integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl<A: PoolKey, B: PoolKey> PoolKey for (A, B) {
    fn name(&self) -> Cow<'_, str> {
        joined(&[self.0.name(), self.1.name()])
    }
}

impl<A: PoolKey, B: PoolKey, C: PoolKey> PoolKey for (A, B, C) {
    fn name(&self) -> Cow<'_, str> {
        joined(&[self.0.name(), self.1.name(), self.2.name()])
    }
}

/// Joins names with slashes. A slash within a name is escaped, so that different parts give different names. Returns the empty name
/// if one of the names is empty.
fn joined<'a>(names: &[Cow<'_, str>]) -> Cow<'a, str> {
    if names.iter().any(|name| is_empty(name)) {
        return Cow::Borrowed("");
    }
    let escape = |name: &Cow<'_, str>| name.replace('%', "%25").replace('/', "%2F");
    names.iter().map(escape).collect::<Vec<_>>().join("/").into()
}

/// Returns whether a name belongs to no user.
pub(super) fn is_empty(name: &str) -> bool {
    name.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_pairs_of_keys_have_different_names() {
        let names = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a", "b%2Fc"), ("a/", "b/c")];
        for (n, one) in names.iter().enumerate() {
            for other in &names[n + 1..] {
                assert_ne!(one.name(), other.name());
            }
        }
    }

    #[test]
    fn pair_without_one_of_its_names_has_no_name() {
        assert_eq!(("", "api").name(), "");
        assert_eq!(("alice", " ").name(), "");
        assert_eq!((("alice", ""), "api").name(), "");
        assert_eq!((1_u8, "api").name(), "1/api");
    }
}
