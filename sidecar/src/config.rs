//! The configuration: one client of one token endpoint and one API.
//!
//! `README.md` documents each field.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use http::uri::Scheme;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use tower_refresh::BoxError;
use tower_refresh::oauth2::{ClientAuth, Dialect};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub token_endpoint: String,
    pub client_auth: Option<ClientAuthConfig>,
    #[serde(default)]
    pub dialect: DialectConfig,
    pub refresh_token: Secret,
    pub tokens: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub http2: Option<Http2>,
    #[serde(deserialize_with = "api")]
    pub api: Uri,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthConfig {
    pub method: Method,
    pub client_id: String,
    pub client_secret: Option<Secret>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Basic,
    BasicUnencoded,
    Post,
    Public,
}

/// How HTTP/2 is chosen for the API other than by TLS.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    PriorKnowledge,
}

pub enum DialectConfig {
    Preset(String),
    Own(Box<Dialect>),
}

/// The place of a secret.
pub enum Secret {
    File(PathBuf),
    Env(String),
}

impl Config {
    /// Reads a configuration. An error names the field that is wrong.
    pub fn read(path: &Path) -> Result<Self, BoxError> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut json = serde_json::Deserializer::from_str(&text);
        let config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            match error.path().to_string().as_str() {
                "." => format!("{}: {}", path.display(), error.inner()),
                field => format!("{}: field `{field}`: {}", path.display(), error.inner()),
            }
        })?;
        json.end().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(config)
    }

    /// Returns the file in which the tokens are saved. `file` is the configuration file.
    ///
    /// Symbolic links are resolved: all names of one configuration lead to the same token file. With two, the same refresh
    /// token would be sent twice.
    pub fn tokens_of(&self, file: &Path) -> Result<PathBuf, BoxError> {
        match &self.tokens {
            Some(tokens) => beside(file, tokens),
            None => {
                let file = real(file)?;
                let is_json = file.extension().is_some_and(|extension| extension == "json");
                let name = if is_json { file.file_stem() } else { file.file_name() };
                let mut name = name.unwrap_or_default().to_owned();
                name.push(".tokens.json");
                beside(&file, Path::new(&name))
            }
        }
    }

    /// Returns the file with the certificates of a private CA. `file` is the configuration file.
    pub fn ca_of(&self, file: &Path) -> Result<Option<PathBuf>, BoxError> {
        self.ca.as_ref().map(|ca| beside(file, ca)).transpose()
    }

    /// Returns whether requests to the API use HTTP/2 with prior knowledge.
    pub fn is_http2_only(&self) -> bool {
        self.http2 == Some(Http2::PriorKnowledge)
    }

    /// Returns an error if the refresh token is in an environment variable and an earlier version has replaced it.
    ///
    /// Earlier versions wrote the successor of such a token to a file beside the configuration.
    pub fn check_not_replaced(&self, file: &Path) -> Result<(), BoxError> {
        let replaced = file.with_extension("refresh-token");
        if matches!(self.refresh_token, Secret::Env(_)) && replaced.exists() {
            return Err(format!(
                "field `refresh_token`: {} was replaced by an earlier version of this program and may have been used: name the file {} in the configuration, or remove it",
                self.refresh_token,
                replaced.display()
            )
            .into());
        }
        Ok(())
    }

    /// Returns whether a URL that [`api_url`] has parsed has the origin of the API.
    pub fn has_origin_of(&self, url: &Uri) -> bool {
        fn origin(url: &Uri) -> (bool, Option<String>, u16) {
            let is_https = url.scheme() == Some(&Scheme::HTTPS);
            let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
            (is_https, url.host().map(str::to_ascii_lowercase), port)
        }
        origin(&self.api) == origin(url)
    }

    /// Returns the origin of the API.
    pub fn origin(&self) -> String {
        format!(
            "{}://{}",
            self.api.scheme_str().unwrap_or_default(),
            self.api.authority().map_or("", |authority| authority.as_str()),
        )
    }
}

impl ClientAuthConfig {
    pub fn build(&self) -> Result<ClientAuth, BoxError> {
        let id = &self.client_id;
        let secret = || match &self.client_secret {
            Some(secret) => secret.read("client_auth.client_secret"),
            None => Err("field `client_auth.client_secret`: required by this method".into()),
        };
        Ok(match self.method {
            Method::Basic => ClientAuth::basic(id, secret()?),
            Method::BasicUnencoded => ClientAuth::basic_unencoded(id, secret()?),
            Method::Post => ClientAuth::post(id, secret()?),
            Method::Public if self.client_secret.is_some() => {
                return Err(
                    "field `client_auth.client_secret`: must not be set for method `public`".into(),
                );
            }
            Method::Public => ClientAuth::public(id),
        })
    }
}

impl DialectConfig {
    pub fn build(self) -> Result<Dialect, BoxError> {
        let dialect = match self {
            Self::Preset(name) => match name.as_str() {
                "rfc6749" => Dialect::rfc6749(),
                "camel_case" => Dialect::camel_case(),
                "json_body" => Dialect::json_body(),
                _ => return Err(format!("field `dialect`: unknown preset {name:?}").into()),
            },
            Self::Own(dialect) => *dialect,
        };
        dialect.validate().map_err(|error| format!("field `dialect`: {}", error.get_ref()))?;
        Ok(dialect)
    }
}

impl Default for DialectConfig {
    fn default() -> Self {
        Self::Preset("rfc6749".to_owned())
    }
}

// By hand: the error of an untagged enum does not name the invalid field of the dialect.
impl<'de> Deserialize<'de> for DialectConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PresetOrOwn;

        impl<'de> Visitor<'de> for PresetOrOwn {
            type Value = DialectConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a preset, or a dialect")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(DialectConfig::Preset(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                let dialect = Dialect::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(DialectConfig::Own(Box::new(dialect)))
            }
        }

        deserializer.deserialize_any(PresetOrOwn)
    }
}

impl Secret {
    /// Reads the secret. `field` is its name in the configuration, for errors.
    pub fn read(&self, field: &str) -> Result<String, BoxError> {
        let wrong = |why: &dyn fmt::Display| format!("field `{field}`: {self} {why}");
        let secret = match self {
            Self::File(path) => fs::read_to_string(path)
                .map_err(|error| wrong(&format_args!("cannot be read: {error}")))?,
            // Not the error itself: it shows a value that is not Unicode.
            Self::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => wrong(&"is not set"),
                std::env::VarError::NotUnicode(_) => wrong(&"is not UTF-8"),
            })?,
        };
        match secret.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}') {
            "" => Err(wrong(&"is empty").into()),
            secret => match wrapper(secret) {
                Some(what) => Err(wrong(&format_args!("{what}: write only the secret")).into()),
                None => Ok(secret.to_owned()),
            },
        }
    }
}

/// Describes the wrapping of a secret that is not bare.
///
/// RFC 6749 appendix A allows all visible ASCII characters and spaces in a secret.
fn wrapper(secret: &str) -> Option<&'static str> {
    let is_between = |first, last| secret.starts_with(first) && secret.ends_with(last);
    if is_between('{', '}') || is_between('[', ']') {
        Some("holds JSON")
    } else if is_between('<', '>') {
        Some("holds HTML or XML")
    } else if ['"', '\'', '`'].into_iter().any(|quote| is_between(quote, quote)) {
        Some("holds a quoted string")
    } else if secret.contains(['\n', '\r']) {
        Some("holds several lines")
    } else if secret.contains(|c: char| c.is_control() || !c.is_ascii()) {
        Some("holds characters that are not visible ASCII")
    } else if secret.split_once(' ').is_some_and(|(word, _)| word.eq_ignore_ascii_case("bearer")) {
        Some("begins with `Bearer`")
    } else {
        None
    }
}

// By hand: the errors of a derived one would show a secret that stands in the configuration itself.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let place = value.as_object().filter(|place| place.len() == 1);
        let place = place.and_then(|place| place.iter().next());
        match place.map(|(place, value)| (place.as_str(), value)) {
            Some(("file", Value::String(path))) => Ok(Self::File(path.into())),
            Some(("env", Value::String(name))) => Ok(Self::Env(name.clone())),
            _ => Err(Error::custom(
                "must name a file or an environment variable: {\"file\": \"PATH\"} or {\"env\": \"NAME\"}",
            )),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Resolves a path relative to the folder of the configuration.
fn beside(file: &Path, path: &Path) -> Result<PathBuf, BoxError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Ok(real(file)?.parent().unwrap_or(Path::new("")).join(path))
}

fn real(file: &Path) -> Result<PathBuf, BoxError> {
    Ok(fs::canonicalize(file).map_err(|error| format!("{}: {error}", file.display()))?)
}

fn api<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    api_url(&String::deserialize(deserializer)?).map_err(Error::custom)
}

/// Parses a URL that the token may be sent to.
///
/// `RefreshLayer` refuses any other as well, but only after a token was fetched.
///
/// # Errors
///
/// The error continues a sentence that begins with the name of the URL.
pub fn api_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
    let Some(authority) = uri.authority() else {
        return Err("must be an absolute URL".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("must not contain a user name".to_owned());
    }
    let host = authority.host();
    if authority.as_str() != host && authority.port_u16().is_none() {
        return Err("has a port that must be a number".to_owned());
    }
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse().is_ok_and(|host: IpAddr| host.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback => Ok(uri),
        _ => Err("must be https; plain http is for loopback".to_owned()),
    }
}
