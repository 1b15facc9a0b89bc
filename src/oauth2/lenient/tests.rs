use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Json, is_alike, parse_where};
use crate::oauth2::dialect::Fields;

/// Reads an answer by the usual names of fields.
fn parse(body: &[u8]) -> Option<Json> {
    parse_where(body, |value| u8::from(has_usual_name(value)))
}

fn has_usual_name(value: &Json) -> bool {
    let lists = Fields::usual().lists();
    let mut names = lists
        .iter()
        .flat_map(|(_, pointers)| *pointers)
        .filter_map(|pointer| pointer.split('/').nth(1));
    names.any(|name| value.members().any(|(key, _)| is_alike(key, name)))
}

fn text<'a>(json: &'a Json, pointer: &str) -> Option<&'a str> {
    json.find(pointer).first().and_then(|value| value.as_str())
}

#[track_caller]
fn reads(body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    let shown = String::from_utf8_lossy(body);
    let json = parse(body).unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(text(&json, "/access_token"), Some("a"), "{shown}");
    assert_eq!(text(&json, "/refresh_token"), Some("r"), "{shown}");
}

/// Values that are not JSON, or that JSON leaves open. Written by hand-made encoders, by `print` and by templates.
const FLAWED: [&str; 48] = [
    "NaN",
    "-NaN",
    "Infinity",
    "+Infinity",
    "-Infinity",
    "inf",
    "1e400",
    "-1e400",
    "0042",
    "-007",
    "+1",
    ".5",
    "1.",
    "0x1F",
    "12n",
    "1_000",
    "--",
    "None",
    "True",
    "False",
    "undefined",
    "nil",
    "NULL",
    "",
    "unquoted words, 2",
    "2022-11-01 13:43:43",
    "new Date(2022, 10, 1)",
    "Decimal('1.5')",
    "'single'",
    "'it\\'s'",
    "'it's'",
    "u'text'",
    "b'bytes'",
    "\"it\\'s\"",
    "\"\\x41\\U0001F600\\u{1F600}\"",
    "\"\\u12\"",
    "\"\\u\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800x\"",
    "\"line\nbreak\ttab\u{0}\u{1}\"",
    "\"the \"quoted\" word\"",
    "\"C:\\dir\\\", \"x\": 1",
    "[1,2,]",
    "[,]",
    "{\"a\":1,}",
    "\"{\\\"a\\\":1}\"",
    "\"{not json\"",
    "1 /* comment */",
];

/// Faults A50 to A55.
#[test]
fn flaw_in_another_field_does_not_lose_the_tokens() {
    for flaw in FLAWED {
        reads(format!(r#"{{"access_token":"a","x":{flaw},"refresh_token":"r"}}"#));
        reads(format!(r#"{{"x":{flaw} , "access_token":"a","refresh_token":"r"}}"#));
        reads(format!(
            "{{\"access_token\":\"a\",\"refresh_token\":\"r\",\"x\":[{{\"y\":{flaw}\n}}]}}"
        ));
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    reads(format!(r#"{{"access_token":"a","x":{deep},"refresh_token":"r"}}"#));
}

/// Faults A50 to A55.
#[test]
fn flaw_between_the_fields_does_not_lose_the_tokens() {
    for body in [
        r#"{"access_token":"a","refresh_token":"r",}"#,
        r#"{,"access_token":"a",,"refresh_token":"r"}"#,
        r#"{"access_token":"a" "refresh_token":"r"}"#,
        "{\"access_token\":\"a\"\n\"refresh_token\":\"r\"}",
        r#"{access_token:"a",refresh_token:"r"}"#,
        r#"{'access_token':'a','refresh_token':'r','x':None}"#,
        r#"{u'access_token': u'a', u'refresh_token': u'r', u'x': True}"#,
        r#"{"access_token"=>"a", "refresh_token"=>"r", "x"=>nil}"#,
        "{// issued\n\"access_token\":\"a\", /* next */ \"refresh_token\":\"r\"}",
        "{\u{feff}\"access_token\":\u{feff}\"a\",\"refresh_token\":\"r\"}",
        // The last of repeated names that is not null counts.
        r#"{"access_token":"x","access_token":"a","refresh_token":"r"}"#,
        r#"{"access_token":"a","refresh_token":"x","refresh_token":"r"}"#,
    ] {
        reads(body);
    }
}

/// Faults A50, A51.
#[test]
fn text_around_the_answer_is_skipped() {
    const ANSWER: &str = r#"{"access_token":"a","refresh_token":"r"}"#;
    for (before, after) in [
        ("\u{feff} ", " <!-- 3 ms -->"),
        ("Notice: Undefined index: a=b in /x.php on line 3\n", ""),
        ("<br />\n<b>Warning</b>: {$x} <a href='function.foo'>x</a> in <b>x</b><br />\n", ""),
        ("<!-- cached -->", "<br />Notice"),
        ("<div id='error'><p><strong>Database error:</strong> [x]</p></div>", ""),
        ("Warning: json_decode(\"{\\\"a\\\":\") in <unknown> on line 3\n", ""),
        ("throw 1; <don't be evil>", ""),
        ("{}&&", ""),
        ("\"debug\" ", ""),
        ("echo '", "'"),
        ("/*-secure-\n", "*/"),
        (")]}',\n", ""),
        ("while(1);", ""),
        ("for(;;);", ""),
        ("while(1){}\n", ""),
        ("callback(", ");"),
        ("/**/ typeof cb === 'function' && cb(", ");"),
        ("var answer = ", ";"),
        ("[debug] {} ", ""),
        ("{\"debug\":true}\n", ""),
        ("[2022-11-01 13:43:43] it's {slow} ", ""),
        ("[", "]"),
        (" [ ", ", {}]\n"),
        ("", "}"),
        ("", "\0\0"),
    ] {
        reads(format!("{before}{ANSWER}{after}"));
    }
}

/// Fault A57.
#[test]
fn answer_may_be_encoded_as_a_string_and_in_utf_16() {
    const ANSWER: &str = r#"{"access_token":"a","refresh_token":"r","é":"😀"}"#;
    let once = serde_json::to_string(ANSWER).unwrap();
    let twice = serde_json::to_string(&once).unwrap();
    let html = ANSWER.replace('"', "\\u0022");
    for body in [
        once.clone(),
        twice,
        format!("callback({once})"),
        format!("cb('{}')", once.trim_matches('"')),
        format!("\"{html}\""),
    ] {
        reads(body);
    }
    for text in [ANSWER, &once] {
        for (mark, bytes) in
            [(0xfeff_u16, u16::to_le_bytes as fn(u16) -> [u8; 2]), (0xfeff, u16::to_be_bytes)]
        {
            let units = || std::iter::once(mark).chain(text.encode_utf16());
            reads(units().flat_map(bytes).collect::<Vec<u8>>());
            reads(text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>());
        }
    }
    reads(b"{\"name\":\"\xe9\",\"access_token\":\"a\",\"refresh_token\":\"r\"}");

    let inner = json!({"token": ANSWER}).to_string();
    let json = parse(inner.as_bytes()).unwrap();
    assert_eq!(text(&json, "/token/refresh_token"), Some("r"));
    assert_eq!(text(&json, "/token"), Some(ANSWER));
}

#[test]
fn string_with_an_ambiguous_end_is_null() {
    for value in [r#""a "b" c""#, r#""a" b "c""#, r#""a" b:"c""#, r#"'a' 'c'"#] {
        let json = parse(format!(r#"{{"access_token":{value}}}"#).as_bytes()).unwrap();
        assert!(json.find("/access_token")[0].is_null(), "{value}");
    }
}

/// Faults A50 to A59.
#[test]
fn integer_keeps_its_digits() {
    let json = parse(br#"{"a":12345678901234567890123,"b":-0042,"c":1e9,"d":1.5,"e":0}"#).unwrap();
    let token = |pointer| json.find(pointer).first().and_then(|value| value.as_token());
    assert_eq!(token("/a"), Some("12345678901234567890123"));
    assert_eq!(token("/b"), Some("-0042"));
    assert_eq!([token("/c"), token("/d"), token("/e")], [None; 3]);
}

/// Faults A50 to A57: what must not be read.
#[test]
fn truncated_answers_and_noise_are_not_read() {
    for noise in [
        "",
        " ",
        "ok",
        "\"a=b\"",
        "a=b\n<p>",
        "Access denied. Reference: a=b",
        "<html a=b>",
        "{\"access_token\":",
        "{\"access_token\":\"a\"",
        "{\"access_token\":\"a\\\"}",
        "{\"data\":{\"access_token\":\"a\"}",
        "[{\"access_token\":\"a\"}",
        "\"{\\\"access_token\\\":\\\"a\\\"",
        "\"{\\\"access_token\\\":\\\"a\\\"\"",
        "Notice: x {\"access_token\":\"a\"",
        "Notice: x {\"data\":{\"access_token\":\"a\"}",
        "Notice: x {\"user\":\"a\"}",
        "<html><script>state = {\"access_token\":\"a\"}</script></html>",
        "<!DOCTYPE html>{\"access_token\":\"a\"}",
        "<?xml version=\"1.0\"?><x>{\"access_token\":\"a\"}</x>",
        "Bad gateway {\"access_token\":\"a\"} </body></html>",
        "<h1>Error</h1>{\"access_token\":\"a\"}",
        "<p>Bad gateway: {\"access_token\":\"a\"}</p>",
        "<soap:Body>{\"access_token\":\"a\"}</soap:Body>",
    ] {
        assert!(parse(noise.as_bytes()).is_none(), "{noise}");
    }
}

/// A server chooses the length of all of this.
#[test]
fn hostile_text_is_read_in_bounded_time() {
    for piece in
        ["{", "{a:", "{\"a\":", "{\"a\":[", "\"", "\"\"", "\"/*", "(", "{a:(", "'\"", "\\\"", "<"]
    {
        parse(piece.repeat(100_000).as_bytes());
        parse(format!("{{\"a\":\"{}", piece.repeat(100_000)).as_bytes());
        parse(format!("{{\"a\":\"{}*/x\"}}", piece.repeat(100_000)).as_bytes());
    }
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\"'\\\\{}:, /]{0,12}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![any::<String>(), "[\"'\\\\{}:, /]{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn as_serde(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => serde_json::from_str(number).unwrap(),
        Json::Text(text, _) => Value::String(text.to_string()),
        Json::Array(values) => values.iter().map(as_serde).collect(),
        Json::Object(members) => Value::Object(
            members.iter().map(|(key, value)| (key.to_string(), as_serde(value))).collect(),
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn valid_json_is_read_as_serde_json_reads_it(value in value(), is_pretty: bool) {
        let value = json!({ "v": value });
        let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
        let json = parse(text.as_bytes());
        prop_assert_eq!(json.as_ref().map(as_serde), Some(serde_json::from_str(&text).unwrap()));
    }

    #[test]
    fn truncated_valid_json_is_not_read(value in value(), at: prop::sample::Index) {
        let text = json!({ "access_token": value }).to_string();
        let bytes = text.as_bytes();
        prop_assert!(parse(&bytes[..at.index(bytes.len())]).is_none());
    }
}
