//! Every message of the sources is listed in the guide `troubleshooting`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_message_is_listed_in_troubleshooting() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let page = plain(&fs::read_to_string(sources.join("docs/troubleshooting.md")).unwrap());
    let mut files = Vec::new();
    collect(&sources, &mut files);
    let literals: Vec<_> =
        files.iter().flat_map(|file| literals(&fs::read_to_string(file).unwrap())).collect();

    let (others, messages): (Vec<_>, Vec<_>) = literals
        .iter()
        .partition(|literal| NO_MESSAGES.iter().any(|text| literal.text.contains(text)));
    let keys: BTreeSet<_> = messages.iter().filter_map(|literal| literal.key()).collect();
    // A scanner that finds nothing would pass.
    assert!(keys.len() > 300, "{} messages", keys.len());
    // In the page a sentence may begin with the words of a message.
    let page = page.to_lowercase();
    let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&key.to_lowercase())).collect();
    assert!(missing.is_empty(), "add to src/docs/troubleshooting.md: {missing:#?}");

    let is_used = |text: &&&str| others.iter().any(|literal| literal.text.contains(**text));
    let unused: Vec<_> = NO_MESSAGES.iter().filter(|text| !is_used(text)).collect();
    assert!(unused.is_empty(), "remove from NO_MESSAGES: {unused:#?}");
}

#[test]
fn scanner_finds_the_words_of_messages_and_nothing_else() {
    let source = r##"
        //! "a comment is no message"
        #[must_use = "an attribute is no message"]
        fn one() -> TokenError {
            let quote = '"';
            TokenError::transient(format!("the file {path} is locked: it is in use by \
                another process"))
        }
        /* "nor is this one" */
        fn two<'a>() { trace::warning!(%error, "save failed"); trace::debug!("not shown by default") }
        const TEXT: &str = r#"the row "a" is not there"#;
        #[cfg(test)]
        mod tests { const TEXT: &str = "a test has no messages"; }
    "##;
    let keys: Vec<_> = literals(source).iter().filter_map(Literal::key).collect();
    assert_eq!(keys, ["the file … is locked", "save failed", "the row a is not there"]);
}

/// The source files, without tests, the servers for tests, and the table of the metrics.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            "tests" | "tests.rs" | "testing" => {}
            // The descriptions of metrics.
            "table.rs" if path.ends_with("metrics/table.rs") => {}
            _ if path.is_dir() => collect(&path, files),
            name if name.ends_with(".rs") => files.push(path),
            _ => {}
        }
    }
}

/// A string literal outside of comments, attributes, tests and debug output.
#[derive(Debug)]
struct Literal {
    text: String,
    /// True if it is the text of a log line, which may be short.
    is_logged: bool,
}

impl Literal {
    /// Returns the beginning of the text, up to a colon, a semicolon or a parenthesis, with at least three words. Placeholders are
    /// ellipses. A literal with fewer words is no message.
    fn key(&self) -> Option<String> {
        let least = if self.is_logged { 1 } else { 3 };
        let text = plain(&self.text);
        let ends = [": ", "; ", " ("].iter().flat_map(|mark| text.match_indices(mark));
        let mut ends: Vec<_> = ends.map(|(at, _)| at).chain([text.len()]).collect();
        ends.sort_unstable();
        let end = ends.into_iter().find(|end| words(&text[..*end]) >= least)?;
        Some(text[..end].trim_matches(['…', ' ', ',', ';', ':']).to_owned())
    }
}

fn words(text: &str) -> usize {
    let is_word = |word: &&str| word.chars().next().is_some_and(char::is_alphabetic);
    text.split_whitespace().filter(is_word).count()
}

/// Removes backticks, escapes and line breaks, and replaces placeholders by ellipses.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '`' | '"' | '\\' => {}
            '{' if characters.peek() == Some(&'{') => {
                plain.extend(characters.next());
            }
            '{' => {
                characters.by_ref().find(|character| *character == '}');
                plain.push('…');
            }
            '}' if characters.peek() == Some(&'}') => {
                plain.extend(characters.next());
            }
            _ => plain.push(character),
        }
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn literals(source: &str) -> Vec<Literal> {
    let mut literals = Vec::new();
    let mut rest = source;
    // The text since the last literal or statement.
    let mut before = String::new();
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '#' if rest.starts_with("#[cfg(test") || rest.starts_with("#[cfg(all(test") => {
                match rest.find("mod ") {
                    Some(item) if rest[item..].lines().next().unwrap_or("").contains('{') => break,
                    Some(item) => item,
                    None => rest.len(),
                }
            }
            '#' if rest.starts_with("#[") || rest.starts_with("#![") => attribute(rest),
            '\'' => character_literal(rest),
            'r' if (rest.starts_with("r\"") || rest.starts_with("r#"))
                && !ends_in_word(&before) =>
            {
                let hashes = rest[1..].chars().take_while(|character| *character == '#').count();
                let end = format!("\"{}", "#".repeat(hashes));
                match rest.get(hashes + 2..).and_then(|text| Some((text, text.find(&end)?))) {
                    Some((text, length)) if rest[hashes + 1..].starts_with('"') => {
                        literals.push(literal(&text[..length], &before));
                        hashes + 2 + length + end.len()
                    }
                    _ => 1,
                }
            }
            '"' => {
                let length = string(&rest[1..]);
                literals.push(literal(&rest[1..=length], &before));
                length + 2
            }
            _ => {
                before.push(character);
                character.len_utf8()
            }
        };
        if matches!(character, ';' | '{' | '}') {
            before.clear();
        }
        rest = &rest[length..];
    }
    literals.into_iter().flatten().collect()
}

/// The macros of `trace.rs` whose lines an operator sees.
const LOGGED: [&str; 3] = ["trace::warning!", "trace::error!", "trace::change!"];

/// Makes a literal of the text that follows `before`. A debug line is off by default, and shows no trouble.
fn literal(text: &str, before: &str) -> Option<Literal> {
    let line = before.rfind("trace::").map_or("", |at| &before[at..]);
    let is_logged = LOGGED.iter().any(|name| line.starts_with(name));
    let is_quiet = !is_logged && line.contains('!');
    (!is_quiet).then(|| Literal { text: text.into(), is_logged })
}

/// Returns the length of a string up to its closing quote.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    text.find(|character| {
        let is_end = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        is_end
    })
    .unwrap_or(text.len())
}

/// Returns the length of an attribute.
fn attribute(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(character) = text[at..].chars().next() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            '"' => at += string(&text[at + 1..]) + 1,
            _ => {}
        }
        at += character.len_utf8();
        if character == ']' && depth == 0 {
            break;
        }
    }
    at
}

/// Returns the length of a character literal, or of the quote of a lifetime.
fn character_literal(text: &str) -> usize {
    let inner = &text[1..];
    let length = match inner.strip_prefix('\\') {
        Some(escaped) => escaped[1..].find('\'').map(|end| end + 2),
        None => inner.chars().next().map(char::len_utf8),
    };
    length.filter(|length| inner[*length..].starts_with('\'')).map_or(1, |length| length + 2)
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|last| last.is_alphanumeric() || last == '_')
}

/// Literals of three words or more that no user sees.
const NO_MESSAGES: [&str; 15] = [
    // Panics: bugs of the caller, or impossible.
    "polled after it was ready",
    "the options are complete",
    // The type of a sealed record, and how a store calls itself.
    "tower-refresh: a sealed record",
    "the store in memory",
    // Words by which the errors of other programs are recognised.
    "error performing TLS handshake",
    "invalid URL, scheme is not http",
    "without any password configured",
    "operation not permitted",
    "max number of clients",
    "out of range",
    "Error running script",
    "unknown redis command",
    "can't run this command",
    "from lua script",
    "executing the script",
];
