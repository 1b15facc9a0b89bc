//! The configuration of one client against one server.
//!
//! ```json
//! {
//!   "token_endpoint": "https://auth.example.com/oauth2/token",
//!   "client_auth": { "method": "basic", "client_id": "compass", "client_secret": { "env": "COMPASS_SECRET" } },
//!   "dialect": "rfc6749",
//!   "refresh_token": { "file": "compass.refresh-token" },
//!   "api": "https://api.example.com/v1/me"
//! }
//! ```
//!
//! `client_auth.method` is `basic`, `basic_unencoded`, `body` or `none`. `dialect` is the name of a preset or a dialect
//! as an object; `rfc6749` if it is not given. Secrets are in files or in the environment, never in here.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use http::Uri;
use serde::Deserialize;
use tower_refresh::BoxError;
use tower_refresh::oauth2::{ClientAuth, Dialect};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub token_endpoint: String,
    pub client_auth: ClientAuthConfig,
    #[serde(default)]
    pub dialect: DialectConfig,
    pub refresh_token: Secret,
    #[serde(deserialize_with = "uri")]
    pub api: Uri,
}

#[derive(Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuthConfig {
    Basic { client_id: String, client_secret: Secret },
    BasicUnencoded { client_id: String, client_secret: Secret },
    Body { client_id: String, client_secret: Secret },
    None { client_id: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum DialectConfig {
    Preset(String),
    Own(Box<Dialect>),
}

/// Where a secret is.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            match error.path().to_string().as_str() {
                "." => format!("{}: {}", path.display(), error.inner()).into(),
                field => format!("{}: field `{field}`: {}", path.display(), error.inner()).into(),
            }
        })
    }
}

impl ClientAuthConfig {
    pub fn build(&self) -> Result<ClientAuth, BoxError> {
        let secret = |secret: &Secret| {
            secret.read().map_err(|error| format!("field `client_auth.client_secret`: {error}"))
        };
        Ok(match self {
            Self::Basic { client_id, client_secret } => {
                ClientAuth::basic(client_id, secret(client_secret)?)
            }
            Self::BasicUnencoded { client_id, client_secret } => {
                ClientAuth::basic_unencoded(client_id, secret(client_secret)?)
            }
            Self::Body { client_id, client_secret } => {
                ClientAuth::body(client_id, secret(client_secret)?)
            }
            Self::None { client_id } => ClientAuth::none(client_id),
        })
    }
}

impl DialectConfig {
    pub fn build(self) -> Result<Dialect, BoxError> {
        let dialect = match self {
            Self::Preset(name) => Dialect::preset(&name).ok_or_else(|| {
                format!("field `dialect`: there is no preset of the name {name:?}")
            })?,
            Self::Own(dialect) => *dialect,
        };
        dialect.validate().map_err(|error| format!("field `dialect`: {error}"))?;
        Ok(dialect)
    }
}

impl Default for DialectConfig {
    fn default() -> Self {
        Self::Preset("rfc6749".to_owned())
    }
}

impl Secret {
    pub fn read(&self) -> Result<String, BoxError> {
        let secret = match self {
            Self::File(path) => {
                fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
            Self::Env(name) => std::env::var(name)
                .map_err(|error| format!("environment variable {name}: {error}"))?,
        };
        match secret.trim() {
            "" => Err(format!("{self} is empty").into()),
            secret => Ok(secret.to_owned()),
        }
    }

    /// Makes sure that the secret can be written back before the old one is spent.
    pub fn prepare(&self, config: &Path) -> Result<Kept, BoxError> {
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Env(_) => config.with_extension("refresh-token"),
        };
        // What cannot be created now could not be saved later.
        let kept = Kept { path };
        drop(
            kept.draft()
                .map_err(|error| format!("{} cannot be written: {error}", kept.path.display()))?,
        );
        Ok(kept)
    }
}

/// Where a rotated refresh token goes.
#[derive(Clone)]
pub struct Kept {
    pub path: PathBuf,
}

impl Kept {
    /// Puts the new token in the place of the old one: written whole, then renamed.
    pub fn save(&self, secret: &str) -> std::io::Result<()> {
        let mut file = self.draft()?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(self.draft_path(), &self.path)
    }

    fn draft(&self) -> std::io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.draft_path())
    }

    fn draft_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".new");
        path.into()
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

fn uri<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let uri: Uri = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
    if uri.scheme().is_none() || uri.authority().is_none() {
        return Err(serde::de::Error::custom("not an absolute URL"));
    }
    Ok(uri)
}
