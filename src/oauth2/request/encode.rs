//! Parameters as a form and as JSON, in one buffer that is wiped: a second one, or one that grows, would leave a copy behind.

use std::io::Write as _;

use zeroize::Zeroizing;

use super::secret_text;
use super::translate::Pair;
use crate::error::TokenError;
use crate::oauth2::dialect::ParameterType;

/// Writes the parameters as `application/x-www-form-urlencoded`.
pub(super) fn form(pairs: &[Pair<'_>]) -> Zeroizing<String> {
    let mut form = secret_text(form_capacity(pairs));
    append_form(&mut form, pairs);
    form
}

/// Returns how long the form may become: three bytes for each byte, a `=` and a `&`.
pub(super) fn form_capacity(pairs: &[Pair<'_>]) -> usize {
    pairs.iter().map(|pair| 3 * (pair.name.len() + pair.text.len()) + 2).sum()
}

/// Writes the parameters at the end of a text that has room for them.
pub(super) fn append_form(text: &mut String, pairs: &[Pair<'_>]) {
    let start = text.len();
    form_urlencoded::Serializer::for_suffix(text, start)
        .extend_pairs(pairs.iter().map(|pair| (pair.name, &pair.text)));
}

/// Writes an object in the order of the parameters; a repeated parameter becomes an array.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured), with the name of the parameter, if a value is not of its type.
pub(super) fn json(pairs: &[Pair<'_>]) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    // An escape takes six bytes; quotes, colon, comma and brackets are seven.
    let capacity = pairs.iter().map(|pair| 6 * (pair.name.len() + pair.text.len()) + 7);
    let mut body = Zeroizing::new(Vec::with_capacity(capacity.sum::<usize>() + 2));
    body.push(b'{');
    for (at, pair) in pairs.iter().enumerate() {
        let is_same = |other: &&Pair<'_>| other.name == pair.name;
        if pairs[..at].iter().any(|other| is_same(&other)) {
            continue;
        }
        if at > 0 {
            body.push(b',');
        }
        write_string(&mut body, pair.name)?;
        body.push(b':');
        let is_array =
            pair.kind == ParameterType::Array || pairs[at..].iter().filter(is_same).count() > 1;
        if !is_array {
            write_value(&mut body, pair, &pair.text)?;
            continue;
        }
        body.push(b'[');
        let mut is_first = true;
        for pair in pairs[at..].iter().filter(is_same) {
            for element in elements(pair) {
                if !std::mem::take(&mut is_first) {
                    body.push(b',');
                }
                write_value(&mut body, pair, element)?;
            }
        }
        body.push(b']');
    }
    body.push(b'}');
    Ok(body)
}

/// Returns what one value adds to an array: its words if the dialect has it as an array, else itself.
fn elements<'a>(pair: &'a Pair<'_>) -> impl Iterator<Item = &'a str> {
    let is_array = pair.kind == ParameterType::Array;
    pair.text
        .split(move |c| is_array && c == ' ')
        .filter(move |element| !is_array || !element.is_empty())
}

fn write_value(body: &mut Vec<u8>, pair: &Pair<'_>, text: &str) -> Result<(), TokenError> {
    if !pair.kind.fits(text) {
        return Err(TokenError::misconfigured(format!(
            "the parameter `{}` is {} by the dialect's `parameter_types`, and its value is not one",
            pair.name,
            pair.kind.noun()
        )));
    }
    match pair.kind {
        ParameterType::String | ParameterType::Array => write_string(body, text),
        // Unchanged: parsing a number would round it.
        ParameterType::Number | ParameterType::Boolean | ParameterType::Json => {
            body.write_all(text.as_bytes()).map_err(TokenError::misconfigured)
        }
    }
}

fn write_string(body: &mut Vec<u8>, text: &str) -> Result<(), TokenError> {
    serde_json::to_writer(body, text).map_err(TokenError::misconfigured)
}
