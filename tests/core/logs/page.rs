//! The page in the docs lists each line of the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../src/docs/logs.md");

/// A line in the code.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    area: String,
    level: &'static str,
    message: String,
}

#[test]
fn page_lists_each_message_under_its_target_with_its_level() {
    let code = calls();
    assert!(code.len() > 30, "{code:?}");
    let page = listed();
    for call in &code {
        assert!(page.contains(call), "the page lacks {call:?}");
    }
    for row in &page {
        assert!(code.contains(row), "the code lacks {row:?}");
    }
}

#[test]
fn page_lists_each_target_and_each_field() {
    let source = source();
    for (name, calls) in &source {
        for call in calls {
            for field in fields(call) {
                let is_listed = PAGE.contains(&format!("`{field}`"));
                assert!(is_listed, "the page lacks the field `{field}` of {name}: {call}");
            }
        }
    }
    for call in calls() {
        assert!(PAGE.contains(&format!("| `tower_refresh::{}` |", call.area)), "{call:?}");
    }
}

/// Returns the rows of the tables of messages.
fn listed() -> BTreeSet<Call> {
    let (_, messages) = PAGE.split_once("\n# Messages\n").unwrap();
    let (messages, _) = messages.split_once("\n# ").unwrap();
    let mut rows = BTreeSet::new();
    for section in messages.split("\n## `tower_refresh::").skip(1) {
        let (area, table) = section.split_once('`').unwrap();
        for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let mut cells = row.split(" | ");
            let level = cells.next().unwrap().trim_start_matches("| ");
            let level = LEVELS.into_iter().find(|(_, name)| *name == level).unwrap().1;
            let message = cells.next().unwrap().to_owned();
            rows.insert(Call { area: area.into(), level, message });
        }
    }
    rows
}

/// Returns the lines that the code logs.
fn calls() -> BTreeSet<Call> {
    let mut all = BTreeSet::new();
    for (name, calls) in source() {
        for call in calls {
            let (before, _) = call.rsplit_once('"').unwrap();
            let (_, message) = before.rsplit_once('"').unwrap();
            let (_, area) = call.split_once("target: target::").expect(&name);
            let area = area.split(|c: char| !c.is_alphabetic()).next().unwrap().to_lowercase();
            let macro_name = match call.strip_prefix("change!(") {
                Some(arguments) => LEVELS
                    .into_iter()
                    .map(|(name, _)| name)
                    .find(|name| arguments.contains(&format!(", {name}, ")))
                    .expect(&call),
                None => call.split('!').next().unwrap(),
            };
            let (_, level) = LEVELS.into_iter().find(|(name, _)| *name == macro_name).unwrap();
            all.insert(Call { area, level, message: message.to_owned() });
        }
    }
    all
}

/// Returns the names of the fields of a call.
fn fields(call: &str) -> Vec<String> {
    let (_, arguments) = call.split_once("target: target::").unwrap();
    let (fields, _) = arguments.rsplit_once('"').unwrap().0.rsplit_once('"').unwrap();
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in fields.chars() {
        match c {
            '(' | '|' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match c {
            ',' if depth == 0 => names.push(String::new()),
            c => names.last_mut().unwrap().push(c),
        }
    }
    let name = |field: &String| {
        field.split(" = ").next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()
    };
    names.iter().skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Returns the calls of the macros in each file, in one line each.
fn source() -> Vec<(String, Vec<String>)> {
    fn files(folder: &Path, all: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, all),
                false if path.extension().is_some_and(|it| it == "rs") => all.push(path),
                false => {}
            }
        }
    }
    let mut paths = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    paths.sort();
    let calls = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let calls = text.split("trace::").skip(1).filter(|call| {
            let (name, _) = call.split_once('(').unwrap_or_default();
            name == "change!" || LEVELS.iter().any(|(level, _)| name == format!("{level}!"))
        });
        let calls =
            calls.map(|call| until_its_end(call).split_whitespace().collect::<Vec<_>>().join(" "));
        (path.display().to_string(), calls.collect())
    };
    // Except the macros themselves.
    paths.iter().filter(|path| !path.ends_with("src/trace.rs")).map(calls).collect()
}

/// Returns the text up to the bracket that closes the first one.
fn until_its_end(text: &str) -> &str {
    let (mut depth, mut is_quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => {
                depth -= 1;
                if depth == 0 {
                    return &text[..at];
                }
            }
            _ => {}
        }
    }
    panic!("no end: {text}")
}

/// The macros, and their levels.
const LEVELS: [(&str, &str); 5] = [
    ("error", "ERROR"),
    ("warning", "WARN"),
    ("info", "INFO"),
    ("debug", "DEBUG"),
    ("detail", "TRACE"),
];
