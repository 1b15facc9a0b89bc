//! Parameters as a form and as JSON, each in one buffer that is wiped. A buffer that grows would leave a copy behind.

use std::borrow::Cow;
use std::io::Write as _;

use zeroize::Zeroizing;

use super::translate::Pair;
use crate::error::TokenError;
use crate::oauth2::dialect::ParameterType;
use crate::oauth2::wiped;

/// Writes the parameters as `application/x-www-form-urlencoded`.
pub(super) fn form(pairs: &[Pair<'_>]) -> Zeroizing<String> {
    // Three bytes for each byte, a `=` and a `&`.
    let capacity = pairs.iter().map(|pair| 3 * (pair.name.len() + pair.text.len()) + 2).sum();
    let mut form = wiped::text(capacity);
    form_urlencoded::Serializer::new(&mut *form)
        .extend_pairs(pairs.iter().map(|pair| (pair.name, &pair.text)));
    form
}

/// Writes an object in the order of the parameters.
///
/// A repeated parameter becomes an array. A name that is a JSON pointer becomes a member of nested objects.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured), with the name of the parameter, if a value is not of its type.
pub(super) fn json(pairs: &[Pair<'_>]) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    // An escape takes six bytes, as do quotes, colon, comma and braces of a member.
    let capacity = pairs.iter().map(|pair| 6 * (pair.name.len() + pair.text.len() + 1) + 4);
    let mut body = Zeroizing::new(Vec::with_capacity(capacity.sum::<usize>() + 2));
    let paths: Vec<_> = pairs.iter().map(|pair| segments(pair.name)).collect();
    let members: Vec<_> = paths.iter().map(Vec::as_slice).zip(pairs).collect();
    write_object(&mut body, &members)?;
    Ok(body)
}

/// Returns the names in a JSON pointer (RFC 6901 §4). Any other name is a member of the outermost object.
fn segments(name: &str) -> Vec<Cow<'_, str>> {
    match name.strip_prefix('/') {
        Some(pointer) => pointer
            .split('/')
            .map(|name| name.replace("~1", "/").replace("~0", "~").into())
            .collect(),
        None => vec![name.into()],
    }
}

/// Writes the members of an object, each with the rest of its path.
fn write_object(
    body: &mut Vec<u8>,
    members: &[(&[Cow<'_, str>], &Pair<'_>)],
) -> Result<(), TokenError> {
    body.push(b'{');
    for (at, (path, pair)) in members.iter().enumerate() {
        let Some(name) = path.first() else {
            return Err(TokenError::misconfigured(format!(
                "the parameter `{}` cannot be both a value and an object",
                pair.name
            )));
        };
        if members[..at].iter().any(|(other, _)| other.first() == Some(name)) {
            continue;
        }
        if at > 0 {
            body.push(b',');
        }
        write_string(body, name)?;
        body.push(b':');
        let same: Vec<_> = members[at..]
            .iter()
            .filter(|(other, _)| other.first() == Some(name))
            .map(|(other, pair)| (other.get(1..).unwrap_or_default(), *pair))
            .collect();
        if same.iter().all(|(rest, _)| rest.is_empty()) {
            let same: Vec<_> = same.iter().map(|(_, pair)| *pair).collect();
            write_values(body, &same)?;
        } else {
            write_object(body, &same)?;
        }
    }
    body.push(b'}');
    Ok(())
}

/// Writes the values of one parameter.
fn write_values(body: &mut Vec<u8>, pairs: &[&Pair<'_>]) -> Result<(), TokenError> {
    if let [pair] = pairs
        && pair.kind != ParameterType::Array
    {
        return write_value(body, pair, &pair.text);
    }
    // `/a` and `a` are the same member.
    if let [first, others @ ..] = pairs
        && others.iter().any(|other| other.name != first.name)
    {
        return Err(TokenError::misconfigured(format!(
            "the parameter `{}` is set twice",
            first.name
        )));
    }
    body.push(b'[');
    let elements = pairs.iter().flat_map(|pair| elements(pair).map(move |element| (pair, element)));
    for (at, (pair, element)) in elements.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        write_value(body, pair, element)?;
    }
    body.push(b']');
    Ok(())
}

/// Returns the elements of an array for one value: its words if its type is an array, or else the value.
fn elements<'a>(pair: &'a Pair<'_>) -> impl Iterator<Item = &'a str> {
    let is_array = pair.kind == ParameterType::Array;
    pair.text
        .split(move |c| is_array && c == ' ')
        .filter(move |element| !is_array || !element.is_empty())
}

fn write_value(body: &mut Vec<u8>, pair: &Pair<'_>, text: &str) -> Result<(), TokenError> {
    if !pair.kind.fits(text) {
        return Err(TokenError::misconfigured(format!(
            "the parameter `{}` must be {} (`parameter_types` in the dialect)",
            pair.name,
            pair.kind.noun()
        )));
    }
    match pair.kind {
        ParameterType::String | ParameterType::Array => write_string(body, text),
        // Not parsed, because that would round a number.
        ParameterType::Number | ParameterType::Boolean | ParameterType::Json => {
            body.write_all(text.as_bytes()).map_err(TokenError::misconfigured)
        }
    }
}

fn write_string(body: &mut Vec<u8>, text: &str) -> Result<(), TokenError> {
    serde_json::to_writer(body, text).map_err(TokenError::misconfigured)
}
