//! The characters that a parameter must not contain, such as the line break at the end of a file.

use crate::error::TokenError;
use crate::oauth2::dialect::known::{self, ONE_LINE, VISIBLE};
use crate::token::characters::{check, is_invisible};

/// Checks that a parameter contains no invisible character that its definition excludes, such as a line break.
///
/// Parameters that no RFC defines may contain any character. Visible characters outside of ASCII are allowed, since some
/// servers issue them.
///
/// # Errors
///
/// [Misconfigured](TokenError::is_misconfigured), with the name of the parameter and without its value.
pub(in crate::oauth2) fn check_characters(name: &str, value: &str) -> Result<(), TokenError> {
    let is_wrong: fn(char) -> bool = match known::parameter(name) {
        traits if traits & VISIBLE != 0 => is_invisible,
        traits if traits & ONE_LINE != 0 => |c| c.is_control() && c != '\t',
        _ => return Ok(()),
    };
    check(name, value, is_wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault B10.
    #[test]
    fn invisible_characters_are_refused_without_showing_the_value() {
        for bad in [
            "\n", "\r\n", "\t", "\0", "\u{7f}", "\u{85}", "\u{a0}", "\u{ad}", "\u{2028}",
            "\u{2069}", "\u{feff}",
        ] {
            for value in [format!("sesame{bad}"), format!("{bad}sesame"), format!("ses{bad}ame")] {
                for (name, _) in
                    known::PARAMETERS.iter().filter(|(_, traits)| traits & VISIBLE != 0)
                {
                    let error = check_characters(name, &value).unwrap_err();
                    assert!(error.is_misconfigured());
                    let shown = format!("{error} {error:?}");
                    assert!(shown.contains(&format!("`{name}`")), "{shown}");
                    assert!(!shown.contains("ses"), "{shown}");
                }
            }
        }
    }

    #[test]
    fn password_may_contain_a_tab_and_no_line_break() {
        check_characters("password", "p\tw\u{a0}\u{feff}").unwrap();
        for bad in ["p\n", "p\r", "p\0", "\u{7f}p"] {
            assert!(check_characters("password", bad).unwrap_err().is_misconfigured(), "{bad:?}");
        }
    }

    #[test]
    fn spaces_and_visible_characters_are_accepted() {
        for value in ["", "r t", " s3cr3t:with/odd%chars+&=\"\\ ", "ü€𝄞"] {
            check_characters("client_secret", value).unwrap();
        }
        check_characters("private_key", "-----BEGIN\nEND-----\n").unwrap();
    }
}
