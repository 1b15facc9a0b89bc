//! A JSON value that is wiped when it is dropped.

use std::fmt::{self, Write as _};

use zeroize::Zeroizing;

/// A JSON value (RFC 8259 §3). Numbers keep their digits, and objects all members, also those of the same name.
pub(in crate::oauth2) enum Json {
    /// `null`, and values that cannot be read.
    Null,
    Bool(bool),
    /// With its digits unchanged: a refresh token may be a number.
    Number(Zeroizing<String>),
    /// A string, with the object that is encoded in it.
    Text(Zeroizing<String>, Option<Box<Json>>),
    Array(Vec<Json>),
    Object(Vec<(Zeroizing<String>, Json)>),
}

impl Json {
    /// Returns the values that a JSON pointer (RFC 6901) finds. If members have the same name, the last comes first.
    pub(in crate::oauth2) fn find(&self, pointer: &str) -> Vec<&Self> {
        let mut found = vec![self];
        for name in pointer.split('/').skip(1) {
            let name = name.replace("~1", "/").replace("~0", "~");
            found = found.into_iter().flat_map(|value| value.children(&name)).collect();
        }
        found
    }

    fn children(&self, name: &str) -> Vec<&Self> {
        match self {
            Self::Array(values) => {
                name.parse().ok().and_then(|at: usize| values.get(at)).into_iter().collect()
            }
            _ => {
                let named = |(key, value)| (key == name).then_some(value);
                self.members().rev().filter_map(named).collect()
            }
        }
    }

    /// Returns the members of an object. Other values have none.
    pub(in crate::oauth2) fn members(&self) -> impl DoubleEndedIterator<Item = (&str, &Self)> {
        let value = match self {
            Self::Text(_, Some(inner)) => inner,
            value => value,
        };
        let members = if let Self::Object(members) = value { members.as_slice() } else { &[] };
        members.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(in crate::oauth2) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(in crate::oauth2) fn as_bool(&self) -> Option<bool> {
        let Self::Bool(value) = self else { return None };
        Some(*value)
    }

    pub(in crate::oauth2) fn as_str(&self) -> Option<&str> {
        let Self::Text(text, _) = self else { return None };
        Some(text)
    }

    /// Returns a string, or an array of strings as one, unless it is empty.
    pub(in crate::oauth2) fn as_words(&self, separator: &str) -> Option<String> {
        let words = match self {
            Self::Array(words) => {
                words.iter().filter_map(Self::as_str).collect::<Vec<_>>().join(separator)
            }
            text => text.as_str()?.trim().to_owned(),
        };
        Some(words).filter(|words| !words.is_empty())
    }

    /// Returns the text of a number.
    pub(in crate::oauth2) fn as_number(&self) -> Option<&str> {
        let Self::Number(number) = self else { return None };
        Some(number)
    }

    /// Returns a string, or the digits of an integer other than 0.
    ///
    /// A number with a fraction or an exponent has lost digits, and some languages write `null` as 0.
    pub(in crate::oauth2) fn as_token(&self) -> Option<&str> {
        let is_integer = |number: &&str| {
            let digits = number.strip_prefix('-').unwrap_or(number);
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.bytes().any(|b| b != b'0')
        };
        self.as_str().or_else(|| self.as_number().filter(is_integer))
    }
}

/// JSON text.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => f.write_str(number),
            Self::Text(text, _) => quoted(text, f),
            Self::Array(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    value.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (at, (key, value)) in members.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    quoted(key, f)?;
                    f.write_str(":")?;
                    value.fmt(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// RFC 8259 §7. Nothing is allocated: a buffer that grows would leave copies behind that are not wiped.
fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            ..' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_str("\"")
}

/// Returns whether names differ in case and punctuation only, as `refreshToken` and `refresh-token`, or not at all.
pub(in crate::oauth2) fn is_alike(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

/// Returns a name without case and punctuation.
pub(in crate::oauth2) fn fold(name: &str) -> String {
    letters(name).collect()
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    // No name has other punctuation: text that has it was mistaken for a name.
    name.chars().filter(|c| !['_', '-', '.', ':', ' '].contains(c)).map(|c| c.to_ascii_lowercase())
}
