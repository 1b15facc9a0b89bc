//! The characters that a token must not contain, such as the line break at the end of a file.

use crate::error::TokenError;

/// Checks that a value contains no wrong character.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured), with the name and without the value.
pub(crate) fn check(name: &str, value: &str, is_wrong: fn(char) -> bool) -> Result<(), TokenError> {
    let Some((at, c)) = value.char_indices().find(|(_, c)| is_wrong(*c)) else {
        return Ok(());
    };
    let kind = match c {
        '\r' | '\n' => "a line break",
        _ if c.is_control() => "a control character",
        _ => "an invisible character",
    };
    Err(TokenError::misconfigured(format!(
        "`{name}` contains {kind} at byte {at}: remove it before the value is passed on"
    )))
}

pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || c != ' ' && c.is_whitespace()
        // Soft hyphen, zero-width characters, marks of direction, byte order mark.
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}
