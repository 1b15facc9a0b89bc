//! Further fields of an answer, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::Fields;
use super::validate::{validate_pointer, wrong};
use crate::error::TokenError;

/// How many further fields of an answer a token set keeps.
const EXTRA_MAX: usize = 32;

/// Reads [`Fields::extra`]: a list of names, or JSON pointers by name.
pub(super) fn names_or_pointers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "`extra` must be a list of names, or an object with a JSON pointer for each name"
    )]
    enum Extra {
        Names(Vec<String>),
        Pointers(BTreeMap<String, OneOrMany>),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    Ok(match Extra::deserialize(deserializer)? {
        Extra::Names(names) => names
            .into_iter()
            .map(|name| {
                // RFC 6901 §3
                let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                (name, vec![pointer])
            })
            .collect(),
        Extra::Pointers(pointers) => pointers
            .into_iter()
            .map(|(name, pointers)| match pointers {
                OneOrMany::One(pointer) => (name, vec![pointer]),
                OneOrMany::Many(pointers) => (name, pointers),
            })
            .collect(),
    })
}

impl Fields {
    pub(super) fn validate_extra(&self) -> Result<(), TokenError> {
        if self.extra.len() > EXTRA_MAX {
            return wrong("fields.extra", &format!("must not have more than {EXTRA_MAX} fields"));
        }
        for (name, pointers) in &self.extra {
            let field = format!("fields.extra.{name}");
            if name.is_empty() || pointers.is_empty() {
                return wrong(field, "must have a name and a JSON pointer");
            }
            for pointer in pointers {
                validate_pointer(&field, pointer)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::oauth2::Fields;

    /// Fault C22.
    #[test]
    fn extra_fields_are_a_list_of_names_or_pointers_by_name() {
        for (json, name, pointers) in [
            (r#"["instance_url"]"#, "instance_url", &["/instance_url"][..]),
            (r#"["a/b~c"]"#, "a/b~c", &["/a~1b~0c"]),
            (r#"{"url": "/data/url"}"#, "url", &["/data/url"]),
            (r#"{"url": ["/a", "/b"]}"#, "url", &["/a", "/b"]),
        ] {
            let fields: Fields = serde_json::from_str(&format!(r#"{{"extra": {json}}}"#)).unwrap();
            assert_eq!(fields.extra[name], pointers, "{json}");
            let again = serde_json::to_string(&fields).unwrap();
            assert_eq!(serde_json::from_str::<Fields>(&again).unwrap(), fields);
        }
    }

    /// Fault C22.
    #[test]
    fn extra_fields_are_bounded() {
        let mut fields = Fields::default();
        for number in 0..=super::EXTRA_MAX {
            fields.validate_extra().unwrap();
            fields.extra.insert(number.to_string(), vec!["/a".to_owned()]);
        }
        let error = fields.validate_extra().unwrap_err();
        assert!(error.to_string().contains("`fields.extra`"), "{error}");
    }
}
