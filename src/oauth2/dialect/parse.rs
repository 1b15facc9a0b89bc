//! The forms in which the values of a dialect may be written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Reads one JSON pointer or a list of them.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    OneOrMany::deserialize(deserializer).map(Into::into)
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a JSON pointer or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(pointers: OneOrMany) -> Self {
        match pointers {
            OneOrMany::One(pointer) => vec![pointer],
            OneOrMany::Many(pointers) => pointers,
        }
    }
}

/// Reads [`Fields::extra`](super::Fields::extra): a list of names, or JSON pointers by name.
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

    // RFC 6901 §3
    let pointer = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    Ok(match Extra::deserialize(deserializer)? {
        Extra::Names(names) => {
            names.into_iter().map(|name| (name.clone(), vec![pointer(&name)])).collect()
        }
        Extra::Pointers(fields) => {
            fields.into_iter().map(|(name, pointers)| (name, pointers.into())).collect()
        }
    })
}

/// Reads error codes, each a string or an integer.
pub(super) fn codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an error code: a string or an integer")]
    enum Code {
        Text(String),
        Number(i64),
    }

    let codes = Vec::<Code>::deserialize(deserializer)?.into_iter().map(|code| match code {
        Code::Text(code) => code,
        Code::Number(code) => code.to_string(),
    });
    Ok(codes.collect())
}

/// Durations as numbers of seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::oauth2::dialect) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
    }

    pub(in crate::oauth2::dialect) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let wrong = "a duration must be a number of seconds, not below 0";
        let seconds =
            Option::<f64>::deserialize(deserializer).map_err(|_| D::Error::custom(wrong))?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(|_| D::Error::custom(wrong))
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
}
