//! An answer, with the places of its fields.

use crate::oauth2::dialect::{Dialect, Fields, LifetimeUnit};
use crate::oauth2::lenient::{self, Json, fold, is_alike};
use crate::oauth2::moment;

/// An answer, with the places of its fields in the dialect.
pub(super) struct Document<'a> {
    whole: &'a Json,
    root: Option<&'a Json>,
    pub(super) dialect: &'a Dialect,
}

/// A value and the name under which it was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Json,
    /// The unit if it is a lifetime.
    pub(super) unit: LifetimeUnit,
}

impl<'a> Document<'a> {
    /// Reads the answer in a body.
    pub(super) fn parse(body: &[u8], dialect: &Dialect) -> Option<Json> {
        lenient::parse_where(body, |value| Document::new(value, dialect).likeness())
    }

    /// Returns the likeness to an answer, for [`lenient::parse_where`].
    fn likeness(&self) -> u8 {
        if self.has_token() { lenient::SURE } else { u8::from(self.has_field()) }
    }

    pub(super) fn new(whole: &'a Json, dialect: &'a Dialect) -> Self {
        let root = whole.find(&dialect.root).into_iter().find(|root| !root.is_null());
        Self { whole, root, dialect }
    }

    /// Returns the values that the pointers find, in their order, and then members with other spellings of the usual names,
    /// except `null`.
    pub(super) fn named(&self, pointers: &'a [String]) -> impl Iterator<Item = Found<'a>> {
        let root = self.root;
        let found = |pointer: &'a str, name: &'a str, value: &'a Json| Found {
            name,
            value,
            unit: LifetimeUnit::of_name(pointer).unwrap_or(self.dialect.fields.lifetime_unit),
        };
        let exact = pointers.iter().flat_map(move |pointer| {
            root.into_iter()
                .flat_map(|root| root.find(pointer))
                .map(move |value| found(pointer, pointer, value))
        });
        let is_usual = Fields::usual().lists().iter().any(|(_, usual)| *usual == pointers);
        let others = pointers
            .iter()
            .filter(move |_| is_usual)
            .flat_map(move |pointer| {
                alike(root, pointer).map(move |(key, value)| (pointer, key, value))
            })
            .filter(|(_, key, _)| !is_named(pointers, key))
            .map(move |(pointer, key, value)| found(pointer, key, value));
        exact.chain(others).filter(|found| !found.value.is_null())
    }

    /// Returns the values of [`named`](Self::named).
    pub(super) fn all(&self, pointers: &'a [String]) -> impl Iterator<Item = &'a Json> {
        self.named(pointers).map(|found| found.value)
    }

    pub(super) fn text(&self, pointers: &'a [String]) -> Option<&'a str> {
        self.all(pointers).filter_map(Json::as_str).find(|text| !text.is_empty())
    }

    /// Returns a token: a string, or the digits of an integer.
    pub(super) fn token(&self, pointers: &'a [String]) -> Option<&'a str> {
        self.all(pointers).filter_map(Json::as_token).find(|text| !text.is_empty())
    }

    /// Returns a refresh token that can be sent.
    pub(super) fn refresh_token(&self) -> Option<&'a str> {
        self.token(&self.dialect.fields.refresh_token).filter(|token| !is_placeholder(token))
    }

    pub(super) fn has_token(&self) -> bool {
        self.token(&self.dialect.fields.access_token).is_some()
    }

    fn has_field(&self) -> bool {
        let lists = self.dialect.fields.lists();
        lists.iter().any(|(_, pointers)| !self.all_anywhere(pointers).is_empty())
    }

    /// Returns the names of members that the dialect does not read although they differ from a usual name only in case and
    /// punctuation.
    pub(super) fn unread(&self) -> Vec<&'a str> {
        let fields = self.dialect.fields.lists();
        let mut unread = Vec::new();
        for ((name, pointers), (_, usual)) in fields.into_iter().zip(Fields::usual().lists()) {
            if name.starts_with("error") {
                continue;
            }
            let read = self.all(pointers).find(|value| scalar(value).is_some());
            let others = usual.iter().flat_map(|pointer| alike(self.root, pointer)).filter(
                |(key, value)| {
                    let is_same = read.is_some_and(|read| same_scalar(read, value));
                    scalar(value).is_some() && !is_same && !is_named(pointers, key)
                },
            );
            for (key, _) in others {
                if !unread.contains(&key) {
                    unread.push(key);
                }
            }
        }
        unread
    }

    /// Returns the names of members with a value that nothing reads.
    pub(super) fn unknown(&self) -> Vec<&'a str> {
        let fields = &self.dialect.fields;
        let extra = fields.extra.values().map(Vec::as_slice);
        let lists: Vec<_> =
            fields.lists().into_iter().map(|(_, pointers)| pointers).chain(extra).collect();
        let is_read = |key: &str| {
            lists.iter().any(|pointers| {
                let is_usual = Fields::usual().lists().iter().any(|(_, usual)| usual == pointers);
                pointers.iter().filter_map(|pointer| pointer.strip_prefix('/')).any(|pointer| {
                    let first = pointer.split('/').next().unwrap_or_default();
                    first == key || is_usual && is_alike(first, key)
                })
            }) || ["ok", "success", "error_uri"].contains(&key)
        };
        let members = self.root.into_iter().flat_map(Json::members);
        let unknown = members.filter(|(key, value)| !value.is_null() && !is_read(key));
        unknown.map(|(key, _)| key).collect()
    }

    /// Returns the name of a member that nothing reads although it may be the lifetime of the token: a time, of which the name
    /// contains `expir` or `ttl`. It may be outside of `root`.
    pub(super) fn unread_lifetime(&self) -> Option<&'a str> {
        let is_lifetime = |(name, value): &(&str, &Json)| {
            let name = fold(name);
            (name.contains("expir") || name.contains("ttl"))
                && !name.contains("refresh")
                && moment::lifetime(value, LifetimeUnit::Seconds).is_some()
        };
        let unknown = self.unknown();
        let root = self.root.into_iter().flat_map(Json::members);
        let unread = root.filter(move |(name, _)| unknown.contains(name));
        let is_elsewhere = self.root.is_none_or(|root| !std::ptr::eq(root, self.whole));
        let outside = is_elsewhere.then(|| self.whole.members()).into_iter().flatten();
        unread.chain(outside).find(is_lifetime).map(|(name, _)| name)
    }

    /// Returns the values of [`all`](Self::all), and then those in the whole answer: errors are often outside of `root`.
    pub(super) fn all_anywhere(&self, pointers: &'a [String]) -> Vec<&'a Json> {
        let whole = self.unwrapped();
        self.all(pointers).chain(whole.all(pointers)).collect()
    }

    /// Returns the last member of the whole answer with this name.
    pub(super) fn member(&self, name: &str) -> Option<&'a Json> {
        self.whole.members().rev().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn unwrapped(&self) -> Self {
        Self { root: Some(self.whole), ..*self }
    }
}

/// Returns whether a body that was cut off contains a complete answer: an object from its start, or one with a token after
/// other text.
///
/// An error after other text does not count: it may be part of a page whose end is missing.
pub(in crate::oauth2) fn is_whole(body: &[u8], dialect: &Dialect) -> bool {
    let whole = lenient::parse_whole(body, |value| Document::new(value, dialect).likeness());
    whole.is_some_and(|whole| lenient::is_json(body) || Document::new(&whole, dialect).has_token())
}

/// Returns whether a token is the name of a missing value: some servers issue the token `undefined`.
pub(super) fn is_placeholder(token: &str) -> bool {
    ["undefined", "null", "None", "nil"].contains(&token)
}

/// Returns the members of an object whose names equal that of a pointer except for case and punctuation.
fn alike<'a>(
    root: Option<&'a Json>,
    pointer: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Json)> {
    let name = pointer.strip_prefix('/').filter(|name| !name.contains('/'));
    let members = root.into_iter().flat_map(Json::members);
    members.filter(move |(key, _)| name.is_some_and(|name| is_alike(key, name)))
}

fn is_named(pointers: &[String], key: &str) -> bool {
    pointers.iter().any(|pointer| pointer.strip_prefix('/') == Some(key))
}

fn scalar(value: &Json) -> Option<&str> {
    value.as_str().or_else(|| value.as_number()).filter(|text| !text.is_empty())
}

fn same_scalar(one: &Json, other: &Json) -> bool {
    scalar(one) == scalar(other)
}
