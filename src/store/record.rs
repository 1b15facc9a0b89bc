//! What is stored: one record for each grant.
//!
//! All of it is plain data, and every decision about it is made elsewhere (`plan.rs`). Times are those of the wall clock, in
//! milliseconds since 1970, since whoever reads them may be another machine.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::StoreError;
use crate::clock::since_epoch;
use crate::token::{AccessToken, Expiry, RefreshToken, Secret, TokenSet};

/// The format that this version of the crate writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// How many configured refresh tokens, and how many spent ones, are remembered.
const REMEMBERED_MAX: usize = 64;

/// What a [`TokenStore`](super::TokenStore) keeps: the token set of one grant, and what is known about its refresh token.
///
/// It is plain serde data for formats that describe themselves, such as JSON. A store that keeps bytes uses
/// [`to_json`](Self::to_json) and [`from_json`](Self::from_json), which has the clearer errors.
///
/// # Versions
///
/// A record says which format it has. One that is newer than this version of the crate is
/// [unreadable](StoreError::unreadable), and left as it is. Fields that this version does not know, in a format that it does,
/// are kept.
///
/// # Secrets
///
/// It contains the tokens in the clear, unless it is under an `EncryptedStore`. `Debug` shows none of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredTokens {
    #[serde(deserialize_with = "known_format")]
    version: u32,
    write_id: WriteId,
    /// Begun anew by a log-in or a log-out of the application.
    pub(super) epoch: u64,
    /// Counts the token sets, over all epochs.
    pub(super) revision: u64,
    pub(super) binding: Binding,
    pub(super) body: Body,
    /// Whether the store says that what was written last may be lost. Of this reading, and never written.
    #[serde(skip)]
    pub(super) is_doubted: bool,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// What is secret of a record.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    Plain(Box<Content>),
    Sealed(Box<SealedContent>),
}

/// The whole record, encrypted; what stands beside it in the clear is authenticated (`encrypted.rs`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SealedContent {
    pub(super) key_id: String,
    /// Where it is stored. None if the store has no name for that, or in the first format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
    /// Base64.
    pub(super) nonce: String,
    /// Base64, the tag at its end.
    pub(super) ciphertext: String,
    pub(super) has_open_intent: bool,
}

/// What is stored about a grant, in the clear.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Content {
    /// What fingerprints are made with: they tell nothing to whoever has not got the record.
    pub(super) fingerprint_key: FingerprintKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<StoredSet>,
    /// When the application last logged in or out itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) session_began_ms: u64,
    /// The application logged out: that there are no tokens is how it is to be.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_forgotten: bool,
    /// The refresh token that was last sent, as long as it is not known what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) intent: Option<Intent>,
    /// The refresh token that the token endpoint refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) denied: Option<Fingerprint>,
    /// The configured refresh tokens that had their turn, the latest last: none of them is sent in place of what is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) seen: Vec<Fingerprint>,
    /// The refresh tokens that others took the place of, the latest last: whoever brings one of them back, it is not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) spent: Vec<Fingerprint>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// A token set, with times of day.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredSet {
    access_token: Sensitive,
    received_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Sensitive>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token_expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<Sensitive>,
    /// Further fields of the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Sensitive>,
    /// The revision that the access token came with, if the refresh token is newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_revision: Option<u64>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// That a refresh token is about to be sent, or was and nobody knows what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Of the refresh token.
    pub(super) token: Fingerprint,
    /// Who wrote it.
    pub(super) by: WriteId,
    /// How often the token was sent, or may have been. Zero: what was written about it may be lost.
    pub(super) attempt: u32,
    pub(super) first_sent_ms: u64,
    pub(super) last_sent_ms: u64,
}

/// What a record belongs to: the token endpoint, the client, and the name of the credential.
///
/// A record that is bound to something else is never used, so that an edited configuration does not send one server's
/// refresh token to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Binding {
    /// The origin of the token endpoint, such as `https://as.example.com`; empty if the source does not say.
    #[serde(default)]
    pub token_endpoint: String,
    /// The client id; empty if the source does not say.
    #[serde(default)]
    pub client_id: String,
    /// The name of the credential.
    #[serde(default)]
    pub name: String,
}

impl StoredTokens {
    /// Makes a record for nothing yet.
    pub(super) fn new(binding: Binding) -> Self {
        Self {
            version: FORMAT,
            write_id: WriteId::random(),
            epoch: 1,
            revision: 0,
            binding,
            body: Body::Plain(Box::new(Content {
                fingerprint_key: FingerprintKey::random(),
                tokens: None,
                session_began_ms: 0,
                is_forgotten: false,
                intent: None,
                denied: None,
                seen: Vec::new(),
                spent: Vec::new(),
                other: BTreeMap::new(),
            })),
            is_doubted: false,
            other: BTreeMap::new(),
        }
    }

    /// Returns this record as it is to be written next, under a write id of its own.
    pub(super) fn next(&self) -> Self {
        Self { write_id: WriteId::random(), is_doubted: false, ..self.clone() }
    }

    /// Returns the id of the write that made it, which no other write has.
    pub fn write_id(&self) -> WriteId {
        self.write_id
    }

    /// Returns the number of the session: each log-in and log-out by the application begins a new one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the number of the token set: each has a higher one than all before it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns what the tokens belong to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Returns whether a refresh token is about to be sent, or was sent without a known outcome.
    ///
    /// If it is, a larger record follows; see the [laws](super::TokenStore#the-laws).
    pub fn has_open_intent(&self) -> bool {
        match &self.body {
            Body::Plain(content) => content.intent.is_some(),
            Body::Sealed(sealed) => sealed.has_open_intent,
        }
    }

    /// Says of a record that was loaded that what was written after it may be lost: the store has restarted or failed over.
    ///
    /// Its refresh token then counts as one that may have been spent: the access token is used to its end before anything is
    /// sent. A store that cannot lose what it saved never says so.
    #[must_use]
    pub fn doubted(mut self) -> Self {
        self.is_doubted = true;
        self
    }

    /// Returns the record as JSON, wiped from memory when it is dropped.
    ///
    /// # Errors
    ///
    /// None that is known of: all of it can be written as JSON.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        // To grow would leave a copy behind in memory.
        let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer_pretty(&mut *json, self).map_err(StoreError::unreadable)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a record from JSON.
    ///
    /// # Errors
    ///
    /// [Unreadable](StoreError::unreadable), with what is wrong and no word of the content: it is empty, cut short, something
    /// else, or written by a later version of this crate.
    pub fn from_json(json: &[u8]) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }

        // Messages of serde_json may quote what they did not expect, which may be a token.
        let place =
            |error: &serde_json::Error| format!("line {}, column {}", error.line(), error.column());
        if json.trim_ascii().is_empty() {
            return Err(StoreError::unreadable("it is empty"));
        }
        // An array would do as a head, as serde has it.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(StoreError::unreadable("it is not a record of tower-refresh"));
        }
        let head: Head = serde_json::from_slice(json).map_err(|error| {
            StoreError::unreadable(if error.is_eof() {
                "it is cut short".to_owned()
            } else {
                format!("it is not a record of tower-refresh ({})", place(&error))
            })
        })?;
        if head.version > FORMAT {
            return Err(StoreError::unreadable(later_format(head.version)));
        }
        serde_json::from_slice(json).map_err(|error| {
            StoreError::unreadable(format!(
                "it says that it is a record of tower-refresh, and is not a whole one ({})",
                place(&error)
            ))
        })
    }

    /// Makes a record as a test of a store needs one, to follow this one or to be the first.
    #[cfg(feature = "testing")]
    pub(crate) fn example(after: Option<&Self>, tokens: &TokenSet, has_open_intent: bool) -> Self {
        let mut record = after.map_or_else(|| Self::new(Binding::default()), Self::next);
        record.revision += 1;
        let write_id = record.write_id;
        if let Body::Plain(content) = &mut record.body {
            let set = StoredSet::new(tokens, SystemTime::UNIX_EPOCH);
            content.intent = set.refresh_token().filter(|_| has_open_intent).map(|token| Intent {
                token: content.fingerprint(&token),
                by: write_id,
                attempt: 1,
                first_sent_ms: 0,
                last_sent_ms: 0,
            });
            content.tokens = Some(set);
        }
        record
    }

    #[cfg(feature = "encrypted-store")]
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Returns what is left of the record in the clear when all of it is sealed.
    #[cfg(feature = "encrypted-store")]
    pub(super) fn sealed(&self, content: SealedContent) -> Self {
        Self {
            version: self.version,
            write_id: self.write_id,
            epoch: self.epoch,
            revision: self.revision,
            binding: self.binding.clone(),
            body: Body::Sealed(Box::new(content)),
            is_doubted: false,
            // Nobody knows whether these are secret.
            other: BTreeMap::new(),
        }
    }

    /// Returns the content in the clear.
    pub(super) fn content(&self) -> Result<&Content, StoreError> {
        match &self.body {
            Body::Plain(content) => Ok(content),
            Body::Sealed(sealed) => Err(StoreError::unreadable(format!(
                "it is encrypted with the key `{}`: wrap the store in `EncryptedStore`",
                sealed.key_id
            ))),
        }
    }

    /// Returns the content in the clear, to be changed.
    pub(super) fn content_mut(&mut self) -> Result<&mut Content, StoreError> {
        self.content()?;
        match &mut self.body {
            Body::Plain(content) => Ok(content),
            Body::Sealed(_) => Err(StoreError::unreadable("it is encrypted")),
        }
    }
}

impl fmt::Debug for StoredTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredTokens")
            .field("version", &self.version)
            .field("write_id", &self.write_id)
            .field("epoch", &self.epoch)
            .field("revision", &self.revision)
            .field("binding", &self.binding)
            .field("has_open_intent", &self.has_open_intent())
            .finish_non_exhaustive()
    }
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if version > FORMAT {
        return Err(D::Error::custom(later_format(version)));
    }
    Ok(version)
}

fn later_format(version: u32) -> String {
    format!(
        "it was written by a later version of tower-refresh (format {version}, and this one knows {FORMAT}): upgrade this program"
    )
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

// ===== impl Content =====

impl Content {
    pub(super) fn fingerprint(&self, token: &RefreshToken) -> Fingerprint {
        self.fingerprint_key.of(token)
    }

    /// Returns whether this configured refresh token has had its turn, or has it now.
    pub(super) fn has_seen(&self, configured: &RefreshToken) -> bool {
        let current = self.tokens.as_ref().and_then(StoredSet::refresh_token);
        let fingerprint = self.fingerprint(configured);
        self.seen.contains(&fingerprint)
            || self.spent.contains(&fingerprint)
            || current.is_some_and(|token| self.fingerprint(&token) == fingerprint)
    }

    /// Remembers that a configured refresh token has its turn.
    pub(super) fn see(&mut self, configured: &RefreshToken) {
        remember(&mut self.seen, self.fingerprint_key.of(configured));
    }

    /// Remembers that a configured refresh token had its turn without ever being sent: the latest is still the latest.
    pub(super) fn pass_over(&mut self, configured: &RefreshToken) {
        let latest = self.seen.pop();
        self.see(configured);
        self.seen.extend(latest);
    }

    /// Remembers that another refresh token took the place of this one.
    pub(super) fn spend(&mut self, token: &RefreshToken) {
        self.spend_fingerprint(self.fingerprint_key.of(token));
    }

    pub(super) fn spend_fingerprint(&mut self, token: Fingerprint) {
        remember(&mut self.spent, token);
    }
}

fn remember(fingerprints: &mut Vec<Fingerprint>, fingerprint: Fingerprint) {
    fingerprints.retain(|known| *known != fingerprint);
    fingerprints.push(fingerprint);
    if fingerprints.len() > REMEMBERED_MAX {
        fingerprints.remove(0);
    }
}

// ===== impl StoredSet =====

impl StoredSet {
    /// Makes one of a token set that was asked for at this time of day.
    pub(super) fn new(tokens: &TokenSet, asked: SystemTime) -> Self {
        let asked = since_epoch(asked);
        Self {
            access_token: Sensitive(Secret::new(tokens.access_token().expose_secret())),
            received_at_ms: milliseconds(asked),
            expires_at_ms: tokens.expiry().map(|expiry| {
                milliseconds(match expiry {
                    Expiry::In(lifetime) => asked.saturating_add(lifetime),
                    Expiry::At(at) => at,
                })
            }),
            refresh_at_ms: tokens
                .refresh_in()
                .map(|after| milliseconds(asked.saturating_add(after))),
            refresh_token: tokens
                .refresh_token()
                .map(|token| Sensitive(Secret::new(token.expose_secret()))),
            refresh_token_expires_at_ms: tokens
                .refresh_token_expires_at()
                .map(|at| milliseconds(since_epoch(at))),
            scope: tokens.scope().map(str::to_owned),
            id_token: tokens.id_token().map(|token| Sensitive(Secret::new(token))),
            extra: tokens
                .extras()
                .map(|(name, value)| (name.to_owned(), Sensitive(Secret::new(value))))
                .collect(),
            access_revision: None,
            other: BTreeMap::new(),
        }
    }

    /// Makes one of a refresh token alone: its access token has expired before anybody could use it.
    pub(super) fn without_access(
        refresh_token: &RefreshToken,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let tokens = TokenSet::bearer("none")
            .map_err(|error| StoreError::unreadable(error.get_ref().to_string()))?
            .with_expires_in(Duration::ZERO)
            .with_refresh_token(refresh_token.clone());
        Ok(Self::new(&tokens, now))
    }

    /// Returns the set that takes the place of this one, with what this version of the crate does not know.
    pub(super) fn followed_by(self, tokens: &TokenSet, asked: SystemTime) -> Self {
        Self { other: self.other, ..Self::new(tokens, asked) }
    }

    /// Returns the token set, as it is to be used at this time of day.
    pub(super) fn tokens(&self, now: SystemTime) -> Result<TokenSet, StoreError> {
        let access_token = AccessToken::new(self.access_token.0.expose())
            .map_err(|error| StoreError::unreadable(error.get_ref().to_string()))?;
        let mut tokens = TokenSet::new(access_token);
        if let Some(at) = self.expires_at_ms {
            tokens = tokens.with_expires_at(time_of_day(at));
        }
        if let Some(at) = self.refresh_at_ms {
            let left = Duration::from_millis(at).saturating_sub(since_epoch(now));
            tokens = tokens.with_refresh_in(left);
        }
        if let Some(token) = &self.refresh_token {
            tokens = tokens.with_refresh_token(token.0.expose());
        }
        if let Some(at) = self.refresh_token_expires_at_ms {
            tokens = tokens.with_refresh_token_expires_at(time_of_day(at));
        }
        if let Some(scope) = &self.scope {
            tokens = tokens.with_scope(scope);
        }
        if let Some(token) = &self.id_token {
            tokens = tokens.with_id_token(token.0.expose());
        }
        for (name, value) in &self.extra {
            tokens = tokens.with_extra(name, value.0.expose());
        }
        Ok(tokens)
    }

    /// Returns whether it was made of this token set.
    pub(super) fn is(&self, tokens: &TokenSet) -> bool {
        self.access_token.0.expose() == tokens.access_token().expose_secret()
            && self.refresh_token().as_ref().map(RefreshToken::expose_secret)
                == tokens.refresh_token().map(RefreshToken::expose_secret)
    }

    pub(super) fn refresh_token(&self) -> Option<RefreshToken> {
        self.refresh_token.as_ref().map(|token| RefreshToken::new(token.0.expose()))
    }

    /// Returns the revision that the access token came with, in a record of this revision.
    pub(super) fn access_revision(&self, revision: u64) -> u64 {
        // One that was edited would be newer than any that anybody has, and be handed out again and again.
        self.access_revision.map_or(revision, |access| access.min(revision))
    }

    /// Puts another refresh token in place of the one that it has had until this revision.
    pub(super) fn set_refresh_token(&mut self, token: &RefreshToken, until: u64) {
        self.access_revision.get_or_insert(until);
        self.refresh_token = Some(Sensitive(Secret::new(token.expose_secret())));
        self.refresh_token_expires_at_ms = None;
    }

    /// Returns how much longer the access token works, and whether that is known at all.
    pub(super) fn left(&self, now: SystemTime) -> Option<Duration> {
        let expires_at = Duration::from_millis(self.expires_at_ms?);
        Some(expires_at.saturating_sub(since_epoch(now)))
    }

    /// Returns whether most of its lifetime is still to come.
    pub(super) fn is_young(&self, now: SystemTime) -> bool {
        match (self.left(now), self.lifetime()) {
            (Some(left), Some(lifetime)) => left > lifetime / 4,
            _ => true,
        }
    }

    /// Returns how long the access token was to work when it was received, if that is known.
    pub(super) fn lifetime(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.expires_at_ms?.saturating_sub(self.received_at_ms)))
    }
}

fn milliseconds(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn milliseconds_at(at: SystemTime) -> u64 {
    milliseconds(since_epoch(at))
}

/// A time that does not fit is as good as never, and far enough away is the same.
pub(super) fn time_of_day(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(milliseconds))
        .unwrap_or(SystemTime::UNIX_EPOCH + FAR_AWAY)
}

const FAR_AWAY: Duration = Duration::from_secs(1000 * 365 * 86400);

// ===== ids, fingerprints, secrets =====

/// The id of one write, which no other write has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteId([u8; 16]);

impl WriteId {
    pub(crate) fn random() -> Self {
        Self(random())
    }

    #[cfg(feature = "encrypted-store")]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({self})")
    }
}

/// What fingerprints are made with; of one record and all that follow it.
#[derive(Clone, Copy)]
pub(super) struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    fn random() -> Self {
        Self(random())
    }

    fn of(&self, token: &RefreshToken) -> Fingerprint {
        let mut fingerprint = [0; 16];
        // A key of any length will do for HMAC.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) {
            mac.update(token.expose_secret().as_bytes());
            fingerprint.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        Fingerprint(fingerprint)
    }
}

/// Tells a refresh token from another without telling what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 16]);

macro_rules! serde_as_hex {
    ($($type:ident),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&hex(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let hex = String::deserialize(deserializer)?;
                unhex(&hex).map(Self).ok_or_else(|| D::Error::custom("expected 32 hexadecimal digits"))
            }
        }
    )*};
}

serde_as_hex!(WriteId, FingerprintKey, Fingerprint);

fn hex(bytes: &[u8; 16]) -> String {
    use fmt::Write as _;

    bytes.iter().fold(String::with_capacity(32), |mut hex, byte| {
        // To write into a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn unhex(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

/// Bytes that nobody else has.
fn random() -> [u8; 16] {
    use std::hash::{BuildHasher as _, RandomState};

    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // The system has none to give. These need to differ from all others, not to be unpredictable.
        let halves = [0_u64, 1].map(|half| RandomState::new().hash_one(half).to_be_bytes());
        bytes[..8].copy_from_slice(&halves[0]);
        bytes[8..].copy_from_slice(&halves[1]);
    }
    bytes
}

/// A secret that serde writes and reads.
#[derive(Clone, Debug)]
struct Sensitive(Secret);

impl Serialize for Sensitive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Sensitive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|secret| Self(Secret::new(secret)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> StoredTokens {
        let mut record =
            StoredTokens::new(Binding { name: "compass".into(), ..Binding::default() });
        let tokens = TokenSet::bearer("sesame-access")
            .unwrap()
            .with_expires_in(Duration::from_secs(60))
            .with_refresh_token("sesame-refresh")
            .with_refresh_token_expires_at(time_of_day(5_000_000))
            .with_scope("a b")
            .with_id_token("sesame-id")
            .with_extra("instance_url", "https://sesame-host");
        record.content_mut().unwrap().tokens =
            Some(StoredSet::new(&tokens, time_of_day(1_000_000)));
        record
    }

    fn json(record: &StoredTokens) -> serde_json::Value {
        serde_json::from_slice(&record.to_json().unwrap()).unwrap()
    }

    fn unreadable(json: &[u8]) -> String {
        let error = StoredTokens::from_json(json).unwrap_err();
        assert!(error.is_unreadable());
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
        error.to_string()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record();
        let read = StoredTokens::from_json(&record.to_json().unwrap()).unwrap();
        assert_eq!(json(&read), json(&record));
        let tokens = read.tokens(time_of_day(1_000_000)).unwrap().unwrap();
        assert_eq!(tokens.access_token().expose_secret(), "sesame-access");
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "sesame-refresh");
        assert_eq!(tokens.refresh_token_expires_at(), Some(time_of_day(5_000_000)));
        assert_eq!((tokens.scope(), tokens.id_token()), (Some("a b"), Some("sesame-id")));
        assert_eq!(tokens.extra("instance_url"), Some("https://sesame-host"));
        let left = tokens.lifetime_at(time_of_day(1_020_000));
        assert_eq!(left, Some(Duration::from_secs(40)));
    }

    /// Fault C22.
    #[test]
    fn a_record_without_extra_fields_is_read_and_written_without() {
        let mut before = json(&record());
        before["body"]["plain"]["tokens"].as_object_mut().unwrap().remove("extra").unwrap();
        let read = StoredTokens::from_json(before.to_string().as_bytes()).unwrap();
        assert_eq!(read.tokens(time_of_day(0)).unwrap().unwrap().extra("instance_url"), None);
        assert_eq!(json(&read), before);
    }

    #[test]
    fn whatever_a_later_version_adds_is_kept_over_a_refresh() {
        let mut added = json(&record());
        added["later"] = 1.into();
        added["body"]["plain"]["later"] = "2".into();
        added["body"]["plain"]["tokens"]["later"] = serde_json::json!({ "deep": [3] });
        let read = StoredTokens::from_json(added.to_string().as_bytes()).unwrap();

        let mut next = read.next();
        let tokens = TokenSet::bearer("next").unwrap();
        let content = next.content_mut().unwrap();
        let set = content.tokens.take().unwrap().followed_by(&tokens, time_of_day(2));
        content.tokens = Some(set);
        let written = json(&next);
        assert_eq!(written["later"], 1);
        assert_eq!(written["body"]["plain"]["later"], "2");
        assert_eq!(written["body"]["plain"]["tokens"]["later"]["deep"][0], 3);
        assert_eq!(written["body"]["plain"]["tokens"]["access_token"], "next");
        assert_ne!(written["write_id"], added["write_id"]);
    }

    #[test]
    fn what_cannot_be_read_says_why_and_shows_nothing() {
        let whole = record().to_json().unwrap();
        for length in 0..whole.len() - 2 {
            let why = unreadable(&whole[..length]);
            assert!(why.contains("cut short") || why.contains("empty"), "{length}: {why}");
        }
        assert!(unreadable(b" \n").contains("it is empty"));
        for foreign in [
            "sesame",
            "{\"refresh_token\":\"sesame\"}",
            "[1]",
            "\"sesame\"",
            "{\"version\":\"sesame\"}",
        ] {
            assert!(unreadable(foreign.as_bytes()).contains("not a record"), "{foreign}");
        }
        assert!(unreadable(b"{\"version\":1,\"write_id\":\"sesame\"}").contains("not a whole one"));

        // Of another shape altogether, perhaps.
        let later = unreadable(b"{\"version\":2,\"sesame\":\"sesame\"}");
        assert!(
            later.contains("format 2, and this one knows 1") && later.contains("upgrade"),
            "{later}"
        );
        let mut later = json(&record());
        later["version"] = 7.into();
        let error = serde_json::from_value::<StoredTokens>(later).unwrap_err();
        assert!(error.to_string().contains("format 7"), "{error}");
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let record = record();
        assert!(!format!("{record:?}").contains("sesame"));
    }

    #[test]
    fn a_fingerprint_tells_tokens_apart_within_one_record_only() {
        let (one, other) = (record(), record());
        let token = RefreshToken::new("sesame");
        let fingerprint = |record: &StoredTokens, token: &RefreshToken| {
            record.content().unwrap().fingerprint(token)
        };
        assert_eq!(fingerprint(&one, &token), fingerprint(&one.next(), &token));
        assert_ne!(fingerprint(&one, &token), fingerprint(&one, &RefreshToken::new("sesam")));
        assert_ne!(fingerprint(&one, &token), fingerprint(&other, &token));
    }

    #[test]
    fn only_so_many_tokens_are_remembered_and_the_latest_of_them() {
        let mut record = record();
        let content = record.content_mut().unwrap();
        let token = |number: usize| RefreshToken::new(format!("r{number}"));
        for number in 0..=REMEMBERED_MAX {
            content.see(&token(number));
            content.spend(&token(number));
        }
        assert_eq!((content.seen.len(), content.spent.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!content.has_seen(&token(0)) && content.has_seen(&token(1)));
        assert_eq!(content.seen.last(), Some(&content.fingerprint(&token(REMEMBERED_MAX))));
    }

    #[test]
    fn no_access_token_is_newer_than_its_record() {
        let mut edited = json(&record());
        edited["body"]["plain"]["tokens"]["access_revision"] = u64::MAX.into();
        let read = StoredTokens::from_json(edited.to_string().as_bytes()).unwrap();
        let content = read.content().unwrap();
        assert_eq!(content.tokens.as_ref().unwrap().access_revision(3), 3);
    }

    #[test]
    fn times_that_do_not_fit_are_far_away_and_no_panic() {
        let mut edited = json(&record());
        for name in
            ["expires_at_ms", "refresh_at_ms", "refresh_token_expires_at_ms", "received_at_ms"]
        {
            edited["body"]["plain"]["tokens"][name] = u64::MAX.into();
        }
        let read = StoredTokens::from_json(edited.to_string().as_bytes()).unwrap();
        let now = time_of_day(1_000_000);
        let tokens = read.tokens(now).unwrap().unwrap();
        assert!(tokens.lifetime_at(now).unwrap() > Duration::from_secs(86400 * 365));
        assert_eq!(tokens.refresh_token_expires_at(), Some(time_of_day(u64::MAX)));
    }
}
