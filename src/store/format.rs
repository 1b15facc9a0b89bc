//! The stored form of a record: the format that stores read and write.
//!
//! The ledger decides with a [`Record`]; this file converts. The names of the fields are those of format 1.

mod convert;

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "testing")]
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::error::StoreError;
use crate::grant::record::{Binding, Sent, WriteId};
#[cfg(any(test, feature = "testing"))]
use crate::grant::record::{Current, Record};
use crate::token::Secret;
#[cfg(any(test, feature = "testing"))]
use crate::token::TokenSet;
use crate::token::fingerprint::{Fingerprint, FingerprintKey};

/// The format that this version of the crate writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The record of a [`TokenStore`](super::TokenStore): the token set of one grant, and what is known about its refresh token.
///
/// It is plain serde data for formats that describe themselves, such as JSON. A store that keeps bytes uses
/// [`to_json`](Self::to_json) and [`from_json`](Self::from_json), which has the clearer errors.
///
/// # Versions
///
/// A record contains the number of its format. One that is newer than this version of the crate is
/// [unreadable](StoreError::unreadable) and is left unchanged. Unknown fields in a known format are kept.
///
/// # Secrets
///
/// It contains the tokens in the clear, unless it is under an `EncryptedStore`. `Debug` shows none of them.
///
/// # Examples
///
/// A store that keeps bytes:
///
/// ```
/// use tower_refresh::store::{StoreError, StoredTokens};
///
/// fn write(record: &StoredTokens, row: &mut Vec<u8>) -> Result<(), StoreError> {
///     row.clear();
///     row.extend_from_slice(&record.to_json()?);
///     Ok(())
/// }
///
/// fn read(row: &[u8]) -> Result<StoredTokens, StoreError> {
///     StoredTokens::from_json(row)
/// }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredTokens {
    #[serde(deserialize_with = "known_format")]
    version: u32,
    write_id: WriteId,
    /// Counts the sessions.
    pub(super) epoch: u64,
    /// Counts the token sets, over all epochs.
    pub(super) revision: u64,
    pub(super) binding: Binding,
    pub(super) body: Body,
    /// True if the store reports that its last writes may be lost. Never written.
    #[serde(skip)]
    pub(super) is_doubted: bool,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// The secret part of a record.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    Plain(Box<Content>),
    Sealed(Box<SealedContent>),
}

/// The whole record, encrypted. The clear fields beside it are authenticated (`encrypted/mod.rs`).
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

/// The stored facts about a grant, in the clear.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Content {
    /// The key of the fingerprints, which reveal nothing without the record.
    pub(super) fingerprint_key: FingerprintKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<StoredSet>,
    /// When the application last logged in or out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) session_began_ms: u64,
    /// The epoch of the last log-in or log-out by the application, if a fallback source has logged in since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login_epoch: Option<u64>,
    /// The application has logged out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_forgotten: bool,
    /// The refresh token whose outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) intent: Option<Sent>,
    /// The refresh token that the token endpoint refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) denied: Option<Fingerprint>,
    /// The first refresh token of each session: configured ones that had their turn, the latest last, and those of log-ins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) seen: Vec<Fingerprint>,
    /// The refresh tokens that the server has replaced, the latest last. They are not sent again.
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
    /// The revision that the access token was issued with, if the refresh token is newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_revision: Option<u64>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

impl StoredTokens {
    /// Returns the id of the write that made it, which no other write has.
    pub fn write_id(&self) -> WriteId {
        self.write_id
    }

    /// Returns the number of the session. Each log-in and log-out begins a new one, as does a log-in by a fallback source, and a
    /// different configured refresh token.
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

    /// Marks a record that was loaded: what was written after it may be lost, because the store has restarted or failed over.
    ///
    /// Its refresh token then counts as one that may be spent: the access token is used until it expires before anything is
    /// sent. A store that cannot lose a confirmed save does not use this.
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
    /// [Unreadable](StoreError::unreadable) if the JSON is empty, cut short, not a record, or written by a later version of this
    /// crate. The error contains nothing of the JSON.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoredTokens;
    ///
    /// assert!(StoredTokens::from_json(b"{}").unwrap_err().is_unreadable());
    /// ```
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
                "it is a record of tower-refresh, and is not a whole one ({})",
                place(&error)
            ))
        })
    }

    /// Makes a record as a test of a store needs one, to follow this one or to be the first.
    #[cfg(feature = "testing")]
    pub(crate) fn example(after: Option<&Self>, tokens: &TokenSet, has_open_intent: bool) -> Self {
        let after = after.and_then(|after| after.to_record().ok());
        let mut record =
            after.map_or_else(|| Record::new(Binding::default().shared()), |after| after.next());
        record.revision += 1;
        record.current = Some(Current::new(tokens.clone(), SystemTime::UNIX_EPOCH));
        record.sent = None;
        if let Some(token) = tokens.refresh_token().filter(|_| has_open_intent) {
            record.send(token, SystemTime::UNIX_EPOCH);
        }
        Self::of(&record)
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
            // They may be secret.
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
    WriteId(*bytes).to_string()
}

fn unhex(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
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
    use std::time::Duration;

    use super::*;
    use crate::grant::record::{Fate, time_of_day};
    use crate::token::RefreshToken;

    fn record() -> StoredTokens {
        let mut record =
            Record::new(Binding { name: "compass".into(), ..Binding::default() }.shared());
        let tokens = TokenSet::bearer("sesame-access")
            .unwrap()
            .with_expires_in(Duration::from_secs(60))
            .with_refresh_token("sesame-refresh")
            .with_refresh_token_expires_at(time_of_day(5_000_000))
            .with_scope("a b")
            .with_id_token("sesame-id")
            .with_extra("instance_url", "https://sesame-host");
        record.current = Some(Current::new(tokens, time_of_day(1_000_000)));
        StoredTokens::of(&record)
    }

    fn tokens_at(stored: &StoredTokens, milliseconds: u64) -> TokenSet {
        stored.to_record().unwrap().current.unwrap().tokens_at(time_of_day(milliseconds))
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
    fn record_is_read_unchanged() {
        let record = record();
        let read = StoredTokens::from_json(&record.to_json().unwrap()).unwrap();
        assert_eq!(json(&read), json(&record));
        let tokens = tokens_at(&read, 1_000_000);
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
    fn record_without_extra_fields_is_read_and_written_without() {
        let mut before = json(&record());
        before["body"]["plain"]["tokens"].as_object_mut().unwrap().remove("extra").unwrap();
        let read = StoredTokens::from_json(before.to_string().as_bytes()).unwrap();
        assert_eq!(tokens_at(&read, 0).extra("instance_url"), None);
        assert_eq!(json(&read), before);
    }

    #[test]
    fn fields_of_a_later_version_are_kept_over_a_refresh() {
        let mut added = json(&record());
        added["later"] = 1.into();
        added["body"]["plain"]["later"] = "2".into();
        added["body"]["plain"]["tokens"]["later"] = serde_json::json!({ "deep": [3] });
        let read = StoredTokens::from_json(added.to_string().as_bytes()).unwrap();

        let tokens = TokenSet::bearer("next").unwrap();
        let next = read.to_record().unwrap().succeed(Current::new(tokens, time_of_day(2)), 2);
        let next = StoredTokens::of(&next);
        let written = json(&next);
        assert_eq!(written["later"], 1);
        assert_eq!(written["body"]["plain"]["later"], "2");
        assert_eq!(written["body"]["plain"]["tokens"]["later"]["deep"][0], 3);
        assert_eq!(written["body"]["plain"]["tokens"]["access_token"], "next");
        assert_ne!(written["write_id"], added["write_id"]);
    }

    #[test]
    fn unreadable_record_is_reported_without_its_content() {
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

        // Its other fields may have any shape.
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
    fn debug_shows_no_secret() {
        let record = record();
        assert!(!format!("{record:?}").contains("sesame"));
    }

    #[test]
    fn every_fact_of_a_record_is_written_and_read() {
        let mut record = record().to_record().unwrap();
        let configured = RefreshToken::new("configured");
        (record.epoch, record.login_epoch, record.revision) = (7, 5, 9);
        (record.login_ms, record.is_logged_out) = (1_234, true);
        record.see(&configured);
        record.supersede(record.key.of(&RefreshToken::new("spent")));
        record.refused = Some(Box::new(record.key.of(&RefreshToken::new("refused"))));
        record.send(&RefreshToken::new("sesame-refresh"), time_of_day(3_000));
        let json = StoredTokens::of(&record).to_json().unwrap();
        let read = StoredTokens::from_json(&json).unwrap().to_record().unwrap();
        assert_eq!(read.position(), record.position());
        assert_eq!((read.login_epoch, read.login_ms, read.is_logged_out), (5, 1_234, true));
        assert!(read.has_seen(&configured) && read.is_latest_configured(&configured));
        assert_eq!(read.fate(&RefreshToken::new("spent")), Fate::Superseded);
        assert_eq!(read.fate(&RefreshToken::new("refused")), Fate::Refused);
        let sent = record.sent.as_ref().unwrap();
        assert_eq!((sent.attempts, sent.first_ms, sent.last_ms), (1, 3_000, 3_000));
        assert_eq!(read.fate(&RefreshToken::new("sesame-refresh")), Fate::Sent(sent));
        assert_eq!(StoredTokens::of(&read).to_json().unwrap(), json);
    }

    #[test]
    fn login_epoch_is_written_only_after_a_login_by_a_fallback_source() {
        let mut record = record().to_record().unwrap();
        let epoch_of = |record: &Record| {
            json(&StoredTokens::of(record))["body"]["plain"].get("login_epoch").cloned()
        };
        assert_eq!(epoch_of(&record), None);
        record.epoch += 1;
        assert_eq!(epoch_of(&record), Some(1.into()));
        record.end_session();
        assert_eq!(epoch_of(&record), None);
        assert_eq!(StoredTokens::of(&record).to_record().unwrap().login_epoch, 3);
    }

    #[test]
    fn doubt_of_a_store_is_read_and_not_written() {
        let doubted = record().doubted();
        assert!(doubted.to_record().unwrap().is_doubted);
        let read = StoredTokens::from_json(&doubted.to_json().unwrap()).unwrap();
        assert!(!read.to_record().unwrap().is_doubted);
    }

    #[test]
    fn access_token_is_not_newer_than_its_record() {
        let mut edited = json(&record());
        edited["body"]["plain"]["tokens"]["access_revision"] = u64::MAX.into();
        let read = StoredTokens::from_json(edited.to_string().as_bytes()).unwrap();
        let record = read.to_record().unwrap();
        assert_eq!(record.access_position(), record.position());
    }

    #[test]
    fn times_that_do_not_fit_are_far_away() {
        let mut edited = json(&record());
        for name in
            ["expires_at_ms", "refresh_at_ms", "refresh_token_expires_at_ms", "received_at_ms"]
        {
            edited["body"]["plain"]["tokens"][name] = u64::MAX.into();
        }
        let read = StoredTokens::from_json(edited.to_string().as_bytes()).unwrap();
        let now = time_of_day(1_000_000);
        let tokens = tokens_at(&read, 1_000_000);
        assert!(tokens.lifetime_at(now).unwrap() > Duration::from_secs(86400 * 365));
        assert_eq!(tokens.refresh_token_expires_at(), Some(time_of_day(u64::MAX)));
    }
}
