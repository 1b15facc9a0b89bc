//! Tokens and token sets.

mod access_token;
pub(crate) mod characters;
pub(crate) mod fingerprint;
mod refresh_token;
mod secret;
mod token_set;

pub use self::access_token::AccessToken;
pub use self::refresh_token::RefreshToken;
pub(crate) use self::secret::Secret;
pub(crate) use self::token_set::Expiry;
pub use self::token_set::TokenSet;
