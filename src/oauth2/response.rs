//! What an answer of the token endpoint means.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::dialect::Dialect;
use super::lenient;
use super::moment::{self, When};
use super::scrub::Secrets;
use crate::clock::Now;
use crate::error::TokenError;
use crate::token::{AccessToken, RefreshToken, TokenSet};

/// An answer, read as far as it went.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, or why it was not read to its end.
    pub(super) body: Result<Zeroizing<Vec<u8>>, String>,
}

/// What is known besides the answer.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) dialect: &'a Dialect,
    pub(super) secrets: &'a Secrets,
    /// When the answer was received.
    pub(super) now: Now,
    /// Whether the request may have spent a refresh token.
    pub(super) spends: bool,
}

impl Context<'_> {
    /// Makes the error for a request whose outcome nobody knows: at once a matter of the refresh token, if there was one
    /// that the server may have replaced, and otherwise of no importance.
    pub(super) fn lost(&self, why: impl Into<String>) -> TokenError {
        let why = why.into();
        if self.spends { TokenError::ambiguous(why) } else { TokenError::transient(why) }
    }
}

/// Reads an answer to a request for a token.
///
/// Only 429, 503 and an OAuth error with a 4xx say that the request did not count. Whatever else fails may have counted.
pub(super) fn read(answer: &Answer, context: Context<'_>) -> Result<TokenSet, TokenError> {
    if !answer.status.is_success() {
        return Err(refusal(answer, context));
    }

    let body = match &answer.body {
        Ok(body) => body,
        Err(why) => return Err(context.lost(why)),
    };
    let Some(document) = lenient::parse(body) else {
        return Err(context.lost(
            "the token endpoint answered 200 with something that is neither JSON nor a form",
        ));
    };
    let document = Document::new(&document, context.dialect);

    let failed = document.says_not_ok();
    if let Some(error) = document.error(failed).filter(|_| failed || !document.has_token()) {
        if context.dialect.errors_with_200 {
            return Err(classify(&error, answer, context));
        }
        let lost = context.lost("the token endpoint answered 200 with an error; if that is its way, set `errors_with_200` in the dialect");
        return Err(error.tell(lost, context));
    }
    if failed {
        return Err(context.lost("the token endpoint answered 200 and that it failed"));
    }
    token_set(&document, answer, context)
}

/// Finds the refresh token in a good answer that is of no other use.
pub(super) fn refresh_token(answer: &Answer, context: Context<'_>) -> Option<RefreshToken> {
    let body = answer.body.as_ref().ok().filter(|_| answer.status.is_success())?;
    let document = lenient::parse(body)?;
    let document = Document::new(&document, context.dialect);
    document.text(&context.dialect.fields.refresh_token).map(RefreshToken::from)
}

/// Reads an answer other than 2xx.
pub(super) fn refusal(answer: &Answer, context: Context<'_>) -> TokenError {
    let status = answer.status.as_u16();
    let value = answer.body.as_ref().ok().and_then(|body| lenient::parse(body));
    let error = value.as_ref().and_then(|value| Document::new(value, context.dialect).error(true));
    let plain = |plain: TokenError| {
        let plain = match &error {
            Some(error) => error.tell(plain, context),
            None => plain,
        };
        with_retry_after(plain, answer, context.now)
    };

    match (status, &error) {
        (429 | 503, _) => plain(TokenError::transient(format!(
            "the token endpoint answered {status}"
        ))),
        (300..=399, _) => plain(TokenError::misconfigured(format!(
            "the token endpoint answered {status}, and a redirect is not followed with a secret; configure the URL that it redirects to"
        ))),
        (400..=499, Some(error)) => classify(error, answer, context),
        (400..=499, None) => plain(context.lost(format!(
            "{status} came without an OAuth error; is a proxy or a firewall between here and the token endpoint?"
        ))),
        _ => plain(context.lost(format!("the token endpoint answered {status}"))),
    }
}

/// What an OAuth error says (RFC 6749 §5.2).
fn classify(error: &OAuthError, answer: &Answer, context: Context<'_>) -> TokenError {
    let told = match Meaning::of(&error.code, context.dialect) {
        Some(Meaning::Denied) => {
            TokenError::denied("the token endpoint refused the grant; somebody must log in again")
        }
        Some(Meaning::Transient) => TokenError::transient("the token endpoint asks for patience"),
        Some(Meaning::Misconfigured) => {
            TokenError::misconfigured("the token endpoint refused the request")
        }
        None => TokenError::misconfigured(
            "the token endpoint refused the request with an unknown code; if it means that somebody must log in, add it to `denied` in the dialect",
        ),
    };
    with_retry_after(error.tell(told, context), answer, context.now)
}

#[derive(Clone, Copy)]
enum Meaning {
    Denied,
    Transient,
    Misconfigured,
}

impl Meaning {
    fn of(code: &str, dialect: &Dialect) -> Option<Self> {
        let is = |codes: &[String]| codes.iter().any(|known| known == code);
        if is(&dialect.denied) {
            return Some(Self::Denied);
        }
        if is(&dialect.transient) {
            return Some(Self::Transient);
        }
        match code {
            // RFC 6749 §5.2, OpenID Connect Core §3.1.2.6
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                Some(Self::Denied)
            }
            // RFC 6749 §4.1.2.1, RFC 8628 §3.5
            "temporarily_unavailable" | "slow_down" | "authorization_pending" => {
                Some(Self::Transient)
            }
            // RFC 6749 §5.2, RFC 8707 §2
            "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"
            | "invalid_request" => Some(Self::Misconfigured),
            _ => None,
        }
    }
}

struct OAuthError {
    code: String,
    description: Option<String>,
}

impl OAuthError {
    /// Adds what the server said, as it may be shown.
    fn tell(&self, error: TokenError, context: Context<'_>) -> TokenError {
        let code = context.secrets.clean(&self.code, CODE_LIMIT);
        let description = self
            .description
            .as_deref()
            .map(|text| context.secrets.clean(text, DESCRIPTION_LIMIT))
            .filter(|text| !text.is_empty());
        let error = match code.as_str() {
            "" => error,
            _ => error.with_code(code),
        };
        match description {
            Some(description) => error.with_description(description),
            None => error,
        }
    }
}

/// An answer, and where the dialect says that things are in it.
struct Document<'a> {
    whole: &'a Value,
    root: Option<&'a Value>,
    dialect: &'a Dialect,
}

impl<'a> Document<'a> {
    fn new(whole: &'a Value, dialect: &'a Dialect) -> Self {
        Self { whole, root: whole.pointer(&dialect.root), dialect }
    }

    /// Returns what the pointers find, in their order; `null` is nothing.
    fn all(&self, pointers: &'a [String]) -> impl Iterator<Item = &'a Value> {
        let root = self.root;
        pointers
            .iter()
            .filter_map(move |pointer| root?.pointer(pointer))
            .filter(|value| !value.is_null())
    }

    fn text(&self, pointers: &'a [String]) -> Option<&'a str> {
        self.all(pointers).filter_map(Value::as_str).find(|text| !text.is_empty())
    }

    fn has_token(&self) -> bool {
        self.text(&self.dialect.fields.access_token).is_some()
    }

    /// Returns whether the answer says of itself that it is a failure.
    fn says_not_ok(&self) -> bool {
        ["/ok", "/success"]
            .into_iter()
            .any(|pointer| self.whole.pointer(pointer) == Some(&Value::Bool(false)))
            || self
                .text(&self.dialect.fields.error)
                .is_some_and(|code| Meaning::of(code, self.dialect).is_some())
    }

    /// Finds the error: a code that means something, else any text, else a number where numbers are meant as errors.
    fn error(&self, numbers: bool) -> Option<OAuthError> {
        let Self { whole, dialect, .. } = *self;
        let fields = &dialect.fields;
        // An error often comes without the envelope that the tokens come in.
        let whole = Document { whole, root: Some(whole), dialect };
        let texts = || {
            self.all(&fields.error)
                .chain(whole.all(&fields.error))
                .filter_map(Value::as_str)
                .map(str::trim)
                .filter(|code| !code.is_empty())
        };
        let number = || {
            self.all(&fields.error)
                .chain(whole.all(&fields.error))
                .find(|value| value.is_number())
                .map(Value::to_string)
        };
        let code = texts()
            .find(|code| Meaning::of(code, dialect).is_some())
            .or_else(|| texts().next())
            .map(str::to_owned)
            .or_else(|| number().filter(|_| numbers))?;
        let description =
            self.text(&fields.error_description).or_else(|| whole.text(&fields.error_description));
        Some(OAuthError { code, description: description.map(str::to_owned) })
    }
}

fn token_set(
    document: &Document<'_>,
    answer: &Answer,
    context: Context<'_>,
) -> Result<TokenSet, TokenError> {
    let dialect = context.dialect;
    let fields = &dialect.fields;

    let Some(token) = document.text(&fields.access_token) else {
        return Err(context.lost(
            "the token endpoint answered 200 without an access token; if it has another name there, name it in the dialect's `fields.access_token`",
        ));
    };
    // What a program writes that forgot to look: `Bearer undefined` has been seen in the wild.
    if ["undefined", "null", "None", "nil"].contains(&token) {
        return Err(context
            .lost(format!("the token endpoint answered 200 with `{token}` for an access token")));
    }
    let access_token = AccessToken::new(token).map_err(|_| {
        context
            .lost("the token endpoint answered 200 with an access token that is not visible ASCII")
    })?;
    check_token_type(document, context)?;

    let date = http_date(&answer.headers, &DATE);
    let received = date.unwrap_or(context.now.since_epoch());
    let expiry = document
        .all(&fields.expires_in)
        .find_map(moment::lifetime)
        .or_else(|| document.all(&fields.expires_at).find_map(moment::moment))
        .or(dialect.default_lifetime.map(|lifetime| When::In(lifetime.min(moment::LONGEST))))
        .or_else(|| jwt_expiry(token).filter(|expiry| *expiry > received).map(When::At));

    let mut tokens = TokenSet::builder(access_token);
    tokens = match expiry {
        None => tokens,
        Some(When::In(lifetime)) => tokens.expires_in(lifetime),
        // By the server's own clock, if it shows it: ours may be wrong.
        Some(When::At(at)) => match date {
            Some(date) => tokens.expires_in(at.saturating_sub(date)),
            None => tokens.expires_at(time_of_day(at)),
        },
    };

    if let Some(refresh_token) = document.text(&fields.refresh_token) {
        tokens = tokens.refresh_token(refresh_token);
    }
    let refresh_expiry = document
        .all(&fields.refresh_token_expires_in)
        .find_map(moment::lifetime)
        // Servers say 0 of refresh tokens that do not expire.
        .filter(|when| !matches!(when, When::In(lifetime) if lifetime.is_zero()))
        .or_else(|| document.all(&fields.refresh_token_expires_at).find_map(moment::moment));
    if let Some(when) = refresh_expiry {
        let now = context.now.since_epoch();
        tokens = tokens.refresh_token_expires_at(time_of_day(match when {
            When::In(lifetime) => now.saturating_add(lifetime),
            // In the time of our clock, since that is what it will be compared with.
            When::At(at) => at.saturating_add(now).saturating_sub(date.unwrap_or(now)),
        }));
    }

    if let Some(scope) = document.all(&fields.scope).find_map(scope) {
        tokens = tokens.scope(scope);
    }
    if let Some(id_token) = document.text(&fields.id_token) {
        tokens = tokens.id_token(id_token);
    }

    let refresh_in = if dialect.revokes_previous {
        // To renew early would have requests in flight rejected.
        tokens.clone().build().lifetime_at(context.now.wall())
    } else {
        match document.all(&fields.refresh_in).find_map(moment::lifetime) {
            Some(When::In(after)) if !after.is_zero() => Some(after),
            _ => None,
        }
    };
    if let Some(after) = refresh_in {
        tokens = tokens.refresh_in(after);
    }
    Ok(tokens.build())
}

/// RFC 6749 §7.1: a token of a type that is not understood must not be used. RFC 6749 §5.1: the type has no case.
fn check_token_type(document: &Document<'_>, context: Context<'_>) -> Result<(), TokenError> {
    let Some(token_type) = document.text(&document.dialect.fields.token_type) else {
        return Ok(());
    };
    let plain: String = token_type
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if plain == "bearer" || plain == "bearertoken" {
        return Ok(());
    }
    let shown = context.secrets.clean(token_type, CODE_LIMIT);
    Err(TokenError::misconfigured(format!(
        "the token endpoint issued a token of type `{shown}`, and only bearer tokens can be sent"
    )))
}

fn scope(value: &Value) -> Option<String> {
    let scope = match value {
        Value::String(scope) => scope.trim().to_owned(),
        Value::Array(scopes) => {
            let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
            scopes.join(" ")
        }
        _ => return None,
    };
    Some(scope).filter(|scope| !scope.is_empty())
}

/// Returns the `exp` of a JWT (RFC 7519 §4.1.4); nothing for tokens of which nothing can be read, such as a JWE.
fn jwt_expiry(token: &str) -> Option<Duration> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims = lenient::parse(&payload)?;
    match moment::moment(claims.get("exp")?)? {
        // Whether or not it is too small for a time of day, it is one.
        When::In(since_epoch) | When::At(since_epoch) => Some(since_epoch),
    }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn with_retry_after(error: TokenError, answer: &Answer, now: Now) -> TokenError {
    let seconds = || {
        let value = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // More digits than fit are as long as can be.
        Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
    };
    let date = || {
        let at = http_date(&answer.headers, &RETRY_AFTER)?;
        let now = http_date(&answer.headers, &DATE).unwrap_or(now.since_epoch());
        Some(at.saturating_sub(now))
    };
    match seconds().or_else(date) {
        Some(retry_after) => error.with_retry_after(retry_after.min(moment::LONGEST)),
        None => error,
    }
}

fn http_date(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let value = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(value.trim()).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
}

fn time_of_day(since_epoch: Duration) -> SystemTime {
    let since_epoch = since_epoch.min(moment::LATEST);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// How much of an error code is kept, in characters.
const CODE_LIMIT: usize = 64;

/// How much of a description is kept, in characters.
const DESCRIPTION_LIMIT: usize = 200;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_667_308_423);

    fn now() -> Now {
        Now::new(Duration::ZERO, SystemTime::UNIX_EPOCH + NOW)
    }

    fn read_in(dialect: &Dialect, answer: &Answer) -> Result<TokenSet, TokenError> {
        let mut secrets = Secrets::default();
        secrets.add("sesame");
        let context = Context { dialect, secrets: &secrets, now: now(), spends: true };
        read(answer, context)
    }

    fn ok(body: &str) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Ok(Zeroizing::new(body.into())),
        }
    }

    #[test]
    fn a_server_that_revokes_the_previous_token_is_not_asked_early() {
        let mut dialect = Dialect::rfc6749();
        dialect.revokes_previous = true;
        let at = NOW.as_secs() + 60;
        for (body, expected) in [
            (r#"{"access_token":"a","expires_in":60,"refresh_in":5}"#, Some(60)),
            (&format!(r#"{{"access_token":"a","expires_at":{at}}}"#), Some(60)),
            (r#"{"access_token":"a"}"#, None),
        ] {
            let tokens = read_in(&dialect, &ok(body)).unwrap();
            assert_eq!(tokens.refresh_in(), expected.map(Duration::from_secs), "{body}");
        }
    }

    #[test]
    fn a_server_may_say_when_to_ask() {
        for (value, expected) in [("5", Some(5)), ("\"5\"", Some(5)), ("0", None), ("null", None)] {
            let body = format!(r#"{{"access_token":"a","expires_in":60,"refresh_in":{value}}}"#);
            let tokens = read_in(&Dialect::rfc6749(), &ok(&body)).unwrap();
            assert_eq!(tokens.refresh_in(), expected.map(Duration::from_secs), "{value}");
        }
    }

    /// The names that mean something, and some that do not.
    fn name() -> impl Strategy<Value = String> {
        let known: Vec<String> = {
            let fields = serde_json::to_value(Dialect::camel_case().fields).unwrap();
            let more = serde_json::to_value(Dialect::rfc6749().fields).unwrap();
            [fields, more]
                .iter()
                .flat_map(|fields| fields.as_object().unwrap().values())
                .flat_map(|pointers| pointers.as_array().unwrap())
                .flat_map(|pointer| pointer.as_str().unwrap().split('/'))
                .chain(["ok", "success"])
                .map(str::to_owned)
                .collect()
        };
        prop_oneof![4 => prop::sample::select(known), 1 => ".{0,8}"]
    }

    /// What a server may write in a value's place, not all of it JSON.
    fn scalar() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            any::<String>(),
            "[a-z_]{1,12}",
            "sesame",
            "-?[0-9]{1,30}(\\.[0-9]{0,20})?(e[+-]?[0-9]{1,5})?",
            "[0-9]{1,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,20})?(Z|[+-][0-9]{2}:?[0-9]{2})?",
            "[a-zA-Z0-9_-]{0,8}\\.[a-zA-Z0-9_-]{0,40}\\.[a-zA-Z0-9_-]{0,8}",
            (any::<i64>()).prop_map(|exp| {
                let claims = format!(r#"{{"exp":{exp}}}"#);
                format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims))
            }),
        ];
        prop_oneof![
            text.prop_map(|text| serde_json::to_string(&text).unwrap()),
            "-?[0-9]{1,30}(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,5})?",
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            r#""(\\\\u[0-9a-fd]{4}|[\x00-\x7f]|é){0,6}""#,
        ]
    }

    fn document() -> impl Strategy<Value = String> {
        let value = scalar().prop_recursive(3, 16, 4, |inner| {
            let member = (name(), inner.clone());
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..4).prop_map(|all| object(&all)),
            ]
        });
        prop::collection::vec((name(), value), 0..8).prop_map(|all| object(&all))
    }

    fn object(members: &[(String, String)]) -> String {
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{}:{value}", serde_json::to_string(name).unwrap()))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            1 => any::<Vec<u8>>(),
            4 => document().prop_map(String::into_bytes),
            1 => (document(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
                let mut bytes = text.into_bytes();
                bytes.truncate(at.index(bytes.len()));
                bytes
            }),
            1 => prop::collection::vec((name(), any::<String>()), 0..6).prop_map(|pairs| {
                form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish()
                    .into_bytes()
            }),
        ]
    }

    fn header() -> impl Strategy<Value = Option<HeaderValue>> {
        prop::option::of(prop_oneof![
            any::<Vec<u8>>()
                .prop_filter_map("a header", |bytes| { HeaderValue::from_bytes(&bytes).ok() }),
            "[0-9]{1,30}".prop_filter_map("a header", |text| HeaderValue::try_from(text).ok()),
            (0..253_402_300_799_u64).prop_map(|at| {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
                HeaderValue::try_from(httpdate::fmt_http_date(at)).unwrap()
            }),
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn no_answer_panics_or_shows_a_secret_or_makes_a_bad_token(
            status in prop_oneof![3 => Just(200), 2 => 400..500_u16, 1 => 100..1000_u16],
            body in body(),
            date in header(),
            retry_after in header(),
            preset in prop::sample::select(vec!["rfc6749", "camel_case", "json_body"]),
            errors_with_200: bool,
        ) {
            let mut dialect = Dialect::preset(preset).unwrap();
            dialect.errors_with_200 = errors_with_200;
            let mut headers = HeaderMap::new();
            headers.extend([(DATE, date), (RETRY_AFTER, retry_after)]
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value))));
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: Ok(Zeroizing::new(body)),
            };
            match read_in(&dialect, &answer) {
                Ok(tokens) => {
                    prop_assert!(answer.status.is_success());
                    let token = tokens.access_token().expose_secret();
                    prop_assert!(!token.is_empty() && token != "undefined");
                }
                Err(error) => {
                    let shown = format!("{error} {error:?}");
                    prop_assert!(!shown.contains("sesame"));
                    prop_assert!(error.description().is_none_or(|text| text.len() <= DESCRIPTION_LIMIT));
                    prop_assert!(error.code().is_none_or(|text| text.len() <= CODE_LIMIT));
                    let is_refused = (400..500).contains(&status) || errors_with_200 && answer.status.is_success();
                    prop_assert!(!error.is_denied() || is_refused);
                }
            }
        }
    }
}
