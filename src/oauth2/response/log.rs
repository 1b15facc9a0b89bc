//! The log lines about the fields of an answer: names, and never a value that may be a secret.

use std::time::Duration;

use super::answer::Context;
use super::document::{Document, is_placeholder};
use super::oauth_error::CODE_LIMIT;
use crate::lock::Lock;
use crate::oauth2::lenient::Json;
use crate::oauth2::moment;
use crate::oauth2::scrub::PIECE;
use crate::trace::{self, target};

/// The flaws of an endpoint's answers that were logged. Each is logged once, since the users of a pool share the endpoint.
#[derive(Debug, Default)]
pub(in crate::oauth2) struct Reported(Lock<Vec<(Flaw, Box<str>)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Unknown,
    AlmostUsual,
    Unreadable,
    TooLong,
    LongLifetime,
    UnknownType,
    UnreadLifetime,
}

impl Context<'_> {
    /// Logs the fields of an answer with a token that are not read.
    pub(super) fn log_fields(&self, document: &Document<'_>) {
        let almost = document.unread();
        for name in document.unknown().into_iter().filter(|name| !almost.contains(name)) {
            // Not again: most answers have some.
            if is_name(name) && self.is_news(Flaw::Unknown, name) {
                trace::debug!(
                    target: target::ENDPOINT,
                    endpoint = self.endpoint,
                    field = self.shown(document, name),
                    "unknown field in a token answer"
                );
            }
        }
        for name in almost {
            trace::change!(
                self.is_news(Flaw::AlmostUsual, name), warning,
                target: target::ENDPOINT,
                endpoint = self.endpoint,
                field = self.shown(document, name),
                "field of a token answer is not read, although its name is almost a usual one: add it to `fields` in the dialect"
            );
        }
        for name in unreadable(document) {
            trace::change!(
                self.is_news(Flaw::Unreadable, name), warning,
                target: target::ENDPOINT,
                endpoint = self.endpoint,
                field = self.shown(document, name),
                "field of a token answer is ignored, because its value cannot be read: correct it at the server, or name another field in the dialect"
            );
        }
    }

    pub(super) fn log_too_long(&self, document: &Document<'_>, name: &str) {
        trace::change!(
            self.is_news(Flaw::TooLong, name), warning,
            target: target::ENDPOINT,
            endpoint = self.endpoint,
            field = self.shown(document, name),
            "field of a token answer is too long to be kept: remove it from `fields.extra` in the dialect"
        );
    }

    pub(super) fn log_long_lifetime(
        &self,
        document: &Document<'_>,
        name: &str,
        lifetime: Duration,
    ) {
        trace::change!(
            self.is_news(Flaw::LongLifetime, name), warning,
            target: target::ENDPOINT,
            endpoint = self.endpoint,
            field = self.shown(document, name),
            lifetime_s = lifetime.as_secs(),
            "lifetime of an access token above a year: if it is in milliseconds, set `fields.lifetime_unit` in the dialect"
        );
    }

    pub(super) fn log_unknown_type(&self, document: &Document<'_>, token_type: &str) {
        trace::change!(
            self.is_news(Flaw::UnknownType, token_type), warning,
            target: target::ENDPOINT,
            endpoint = self.endpoint,
            token_type = self.shown(document, token_type),
            "unknown type of an access token, which is used as a bearer token: to silence this, set `fields.token_type` to an empty list in the dialect"
        );
    }

    /// Logs the field of an answer without a lifetime that may be the lifetime, unless its name was logged as almost a usual one.
    pub(super) fn log_unread_lifetime(&self, document: &Document<'_>) {
        let name = document.unread_lifetime().filter(|name| is_name(name));
        let Some(name) = name.filter(|name| !document.unread().contains(name)) else { return };
        trace::change!(
            self.is_news(Flaw::UnreadLifetime, name), warning,
            target: target::ENDPOINT,
            endpoint = self.endpoint,
            field = self.shown(document, name),
            "token answer without a lifetime has a field that may be one: add it to `fields.expires_in` in the dialect"
        );
    }

    /// Returns a text of the answer without the secrets that were sent and the tokens that were issued.
    fn shown(&self, document: &Document<'_>, text: &str) -> String {
        let fields = &document.dialect.fields;
        let tokens = [&fields.access_token, &fields.refresh_token, &fields.id_token];
        let mut secrets = self.secrets.clone();
        for token in tokens.into_iter().flat_map(|pointers| document.all(pointers)) {
            // A shorter one occurs in ordinary words.
            let token = token.as_token().filter(|token| token.len() >= PIECE);
            token.into_iter().for_each(|token| secrets.add(token));
        }
        secrets.clean(text.strip_prefix('/').unwrap_or(text), CODE_LIMIT)
    }

    fn is_news(&self, flaw: Flaw, name: &str) -> bool {
        let mut reported = self.reported.0.lock();
        let is_known = reported.iter().any(|(of, known)| *of == flaw && **known == *name);
        let is_news = !is_known && reported.len() < MOST;
        if is_news {
            reported.push((flaw, name.into()));
        }
        is_news
    }
}

/// Returns the names of fields with a value that cannot be read. An empty value, `false` and a time that is over are missing values.
fn unreadable<'a>(document: &Document<'a>) -> Vec<&'a str> {
    let fields = &document.dialect.fields;
    let is_token: IsReadable = |value| value.as_token().is_some();
    let is_text: IsReadable = |value| value.as_str().is_some();
    let is_words: IsReadable = |value| value.as_words(" ").is_some();
    let lists: [(&[String], IsReadable); 10] = [
        (&fields.token_type, is_text),
        (&fields.expires_in, moment::is_readable),
        (&fields.expires_at, moment::is_readable),
        (&fields.refresh_in, moment::is_readable),
        (&fields.refresh_token, is_token),
        (&fields.refresh_token_expires_in, moment::is_readable),
        (&fields.refresh_token_expires_at, moment::is_readable),
        (&fields.scope, is_words),
        (&fields.id_token, is_token),
        (&fields.issued_token_type, is_text),
    ];
    let mut names = Vec::new();
    for (pointers, is_readable) in lists {
        let mut values = document.named(pointers).filter(|found| !is_missing(found.value));
        let first = values.next();
        if let Some(first) = first
            && !is_readable(first.value)
            && !values.any(|found| is_readable(found.value))
        {
            names.push(first.name);
        }
    }
    names
}

type IsReadable = fn(&Json) -> bool;

fn is_missing(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Bool(true) => false,
        Json::Number(number) => number.parse() == Ok(0.0),
        Json::Text(text, _) => text.trim().is_empty() || is_placeholder(text),
        Json::Array(values) => values.iter().all(is_missing),
        Json::Object(members) => members.is_empty(),
    }
}

/// Returns whether a key is a name, and not the part of a token in an answer with a flaw.
fn is_name(key: &str) -> bool {
    const LONGEST: usize = 40;

    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    key.len() <= LONGEST
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(is_of_name)
        && key.bytes().filter(u8::is_ascii_digit).count() <= 2
}

/// The number of flaws that are logged for an endpoint.
const MOST: usize = 64;
