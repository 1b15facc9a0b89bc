//! The facts about one grant: the current token set, and the fate of each refresh token.
//!
//! Plain data with the rules for changing it. [`plan`](super::plan) decides which change to make. Times of day are milliseconds since
//! 1970, because a store shares them with other machines.
//!
//! A configured refresh token *has its turn* once: it begins a session, or is recorded as seen without beginning one.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use crate::clock::since_epoch;
use crate::token::fingerprint::{Fingerprint, FingerprintKey, random};
use crate::token::{Expiry, RefreshToken, TokenSet};

/// The number of refresh tokens that are remembered in each list of a [`Record`].
const REMEMBERED_MAX: usize = 64;

/// All facts about one grant.
///
/// A refresh token has exactly one [`Fate`]. Revisions grow with each token set, epochs with each session.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) write_id: WriteId,
    /// The number of the session: grows with each log-in and log-out, and with each log-in by a fallback source.
    pub(crate) epoch: u64,
    /// The epoch of the last log-in or log-out by a user, rather than by a fallback source.
    pub(crate) login_epoch: u64,
    /// The number of the token set, over all epochs.
    pub(crate) revision: u64,
    pub(crate) binding: Arc<Binding>,
    pub(crate) current: Option<Current>,
    /// When the application last logged in or out, or zero if it never has. Each log-in and log-out has a later time than the last.
    pub(crate) login_ms: u64,
    /// The application has logged out, and the configured refresh token is not to be sent.
    pub(crate) is_logged_out: bool,
    /// The refresh token whose outcome is unknown.
    pub(crate) sent: Option<Box<Sent>>,
    /// The refresh token that the server has refused.
    pub(crate) refused: Option<Box<Fingerprint>>,
    /// Boxed, since some grants have no refresh token.
    pub(crate) history: Option<Box<History>>,
    pub(crate) key: FingerprintKey,
    /// A store reports that writes after this one may be lost. Never written.
    pub(crate) is_doubted: bool,
    /// Fields that a later version of the crate has added, to be written unchanged.
    #[cfg(feature = "store")]
    pub(crate) unknown: Option<Box<UnknownFields>>,
}

/// The refresh tokens of the past.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct History {
    /// The first refresh token of each session: configured ones that had their turn, the latest last, and those of log-ins.
    pub(crate) firsts: Vec<Fingerprint>,
    /// Refresh tokens that the server has replaced, the latest last. Those in `firsts` stay however many follow.
    pub(crate) superseded: Vec<Fingerprint>,
}

/// Fields of a stored record that this version does not know.
#[cfg(feature = "store")]
#[derive(Clone, Default, PartialEq)]
pub(crate) struct UnknownFields {
    pub(crate) record: Fields,
    pub(crate) content: Fields,
    pub(crate) tokens: Fields,
}

#[cfg(feature = "store")]
pub(crate) type Fields = std::collections::BTreeMap<String, serde_json::Value>;

/// The position of a token set among all of a grant: the epoch, then the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
}

/// The place of a token set in the history of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// [`Record::login_epoch`] of its session.
    pub(crate) login_epoch: u64,
}

/// The fate of a refresh token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    Unused,
    /// It was sent, or is about to be, and the outcome is unknown.
    Sent(&'a Sent),
    /// The server refused it.
    Refused,
    /// The server issued another one instead.
    Superseded,
}

/// The attempts to spend a refresh token whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "store", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Sent {
    pub(crate) token: Fingerprint,
    /// The write that recorded the last attempt.
    pub(crate) by: WriteId,
    /// Zero if the store has lost the attempts.
    #[cfg_attr(feature = "store", serde(rename = "attempt"))]
    pub(crate) attempts: u32,
    #[cfg_attr(feature = "store", serde(rename = "first_sent_ms"))]
    pub(crate) first_ms: u64,
    #[cfg_attr(feature = "store", serde(rename = "last_sent_ms"))]
    pub(crate) last_ms: u64,
}

/// The current token set, with the time of day from which its lifetimes count.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) tokens: TokenSet,
    pub(crate) received_ms: u64,
    /// The revision that the access token was issued with, if the refresh token is newer.
    pub(crate) access_revision: Option<u64>,
}

/// The owner of a record: the token endpoint, the client, and the name of the credentials.
///
/// A record with another binding is never used, so that an edited configuration cannot send the refresh token of one server to
/// another.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "store")]
/// # fn example() {
/// use tower_refresh::store::{Binding, StoredTokens};
///
/// fn is_of_billing(record: &StoredTokens) -> bool {
///     let binding: &Binding = record.binding();
///     binding.name == "billing"
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "store", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[cfg_attr(not(feature = "store"), allow(unreachable_pub, reason = "public with a store"))]
pub struct Binding {
    /// The origin of the token endpoint, such as `https://as.example.com`. Empty if the source does not report it.
    #[cfg_attr(feature = "store", serde(default))]
    pub token_endpoint: String,
    /// The client id. Empty if the source does not report it.
    #[cfg_attr(feature = "store", serde(default))]
    pub client_id: String,
    /// The name of the credentials.
    #[cfg_attr(feature = "store", serde(default))]
    pub name: String,
}

impl Binding {
    /// Returns it for the records of a grant. Most credentials without a store have the empty one, and share it.
    pub(crate) fn shared(self) -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Binding>> = LazyLock::new(Arc::default);

        match self == **EMPTY {
            true => Arc::clone(&EMPTY),
            false => Arc::new(self),
        }
    }
}

impl Record {
    /// Creates the first record of a grant.
    pub(crate) fn new(binding: Arc<Binding>) -> Self {
        Self {
            write_id: WriteId::random(),
            epoch: 1,
            login_epoch: 1,
            revision: 0,
            binding,
            current: None,
            login_ms: 0,
            is_logged_out: false,
            sent: None,
            refused: None,
            history: None,
            key: FingerprintKey::random(),
            is_doubted: false,
            #[cfg(feature = "store")]
            unknown: None,
        }
    }

    /// Returns a copy of this record for the next write, with a write id of its own.
    pub(crate) fn next(&self) -> Self {
        Self { write_id: WriteId::random(), is_doubted: false, ..self.clone() }
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, revision: self.revision }
    }

    pub(crate) fn place(&self) -> Place {
        Place { position: self.position(), login_epoch: self.login_epoch }
    }

    /// Returns the place of the set of another record in this one, which has it or has had it.
    pub(crate) fn place_of(&self, other: &Self) -> Place {
        let mut place = self.place();
        if !self.has_set_of(other) {
            place.position.revision = 0;
        }
        place
    }

    /// Returns whether both have the same token set, or the same reason for having none.
    pub(crate) fn has_set_of(&self, other: &Self) -> bool {
        match (&self.current, &other.current) {
            (Some(current), Some(other)) => current.is(other),
            (None, None) => self.is_logged_out == other.is_logged_out,
            _ => false,
        }
    }

    /// Returns the position that the access token was issued with.
    pub(crate) fn access_position(&self) -> Position {
        let access = self.current.as_ref().and_then(|current| current.access_revision);
        // An edited record could otherwise look newer than itself, and would be handed out repeatedly.
        Position {
            revision: access.map_or(self.revision, |access| access.min(self.revision)),
            ..self.position()
        }
    }

    pub(crate) fn refresh_token(&self) -> Option<&RefreshToken> {
        self.current.as_ref()?.tokens.refresh_token()
    }

    pub(crate) fn fate(&self, token: &RefreshToken) -> Fate<'_> {
        let token = self.key.of(token);
        if self.refused.as_deref() == Some(&token) {
            return Fate::Refused;
        }
        if self.superseded().contains(&token) {
            return Fate::Superseded;
        }
        match &self.sent {
            Some(sent) if sent.token == token => Fate::Sent(sent),
            _ => Fate::Unused,
        }
    }

    /// Returns whether this configured refresh token has had its turn, or has it now.
    pub(crate) fn has_seen(&self, configured: &RefreshToken) -> bool {
        let token = self.key.of(configured);
        self.firsts().contains(&token)
            || self.superseded().contains(&token)
            || self.refresh_token().is_some_and(|current| self.key.of(current) == token)
    }

    /// Returns whether this is the configured refresh token whose turn came last.
    pub(crate) fn is_latest_configured(&self, configured: &RefreshToken) -> bool {
        self.firsts().last() == Some(&self.key.of(configured))
    }

    pub(crate) fn firsts(&self) -> &[Fingerprint] {
        self.history.as_deref().map_or(&[], |history| &history.firsts)
    }

    pub(crate) fn superseded(&self) -> &[Fingerprint] {
        self.history.as_deref().map_or(&[], |history| &history.superseded)
    }

    // ===== changes =====

    fn history_mut(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    /// Records that a configured refresh token has its turn.
    pub(crate) fn see(&mut self, configured: &RefreshToken) {
        let configured = self.key.of(configured);
        remember(&mut self.history_mut().firsts, configured, &[]);
    }

    /// Records a first refresh token that is not the configured one, or has had its turn without being sent.
    pub(crate) fn see_before_latest(&mut self, token: &RefreshToken) {
        self.add_first(self.key.of(token));
    }

    fn add_first(&mut self, token: Fingerprint) {
        let firsts = &mut self.history_mut().firsts;
        match firsts.pop() {
            Some(latest) if latest != token => {
                remember(firsts, token, &[]);
                firsts.push(latest);
            }
            _ => firsts.push(token),
        }
    }

    /// Records that the server has replaced this refresh token.
    pub(crate) fn supersede(&mut self, token: Fingerprint) {
        let History { firsts, superseded } = self.history_mut();
        remember(superseded, token, firsts);
    }

    /// Records that the server has issued a refresh token again, as some do.
    pub(crate) fn reissue(&mut self, token: Fingerprint) {
        if self.superseded().contains(&token) {
            self.history_mut().superseded.retain(|superseded| *superseded != token);
        }
    }

    /// Adds the fates of earlier refresh tokens from another record.
    pub(crate) fn know(&mut self, other: &Self) {
        if self.key != other.key {
            // Fingerprints with another key cannot be compared.
            return;
        }
        for first in other.firsts() {
            if !self.firsts().contains(first) {
                self.add_first(*first);
            }
        }
        let current = self.refresh_token().map(|token| self.key.of(token));
        for token in other.superseded() {
            if Some(*token) != current && !self.superseded().contains(token) {
                self.supersede(*token);
            }
        }
    }

    /// Records an attempt to spend a refresh token.
    pub(crate) fn send(&mut self, token: &RefreshToken, now: SystemTime) {
        let now_ms = milliseconds_at(now);
        let token = self.key.of(token);
        let before = self.sent.take().filter(|sent| sent.token == token);
        self.sent = Some(Box::new(Sent {
            token,
            by: self.write_id,
            attempts: before.as_ref().map_or(0, |sent| sent.attempts).saturating_add(1),
            first_ms: before.filter(|sent| sent.attempts > 0).map_or(now_ms, |sent| sent.first_ms),
            last_ms: now_ms,
        }));
    }

    /// Records that the attempts to spend a refresh token may be lost.
    pub(crate) fn doubt(&mut self, token: &RefreshToken) {
        let token = self.key.of(token);
        let by = self.write_id;
        self.sent = Some(Box::new(Sent { token, by, attempts: 0, first_ms: 0, last_ms: 0 }));
    }

    /// Returns the record with the successor of its token set, for which its refresh token was spent.
    pub(crate) fn succeed(&self, current: Current, revision: u64) -> Self {
        let mut next = self.next();
        if let Some(issued) = current.tokens.refresh_token().map(|token| next.key.of(token)) {
            if let Some(spent) = self.last_refresh_token().filter(|spent| *spent != issued) {
                next.supersede(spent);
            }
            next.reissue(issued);
        }
        next.revision = revision;
        next.sent = None;
        next.refused = None;
        next.is_logged_out = false;
        next.current = Some(current);
        next
    }

    /// Returns the record with the refresh token of these tokens. The access token stays, if there is one.
    pub(crate) fn replace_refresh_token(&self, alone: Current) -> Self {
        let current = match (&self.current, alone.tokens.refresh_token()) {
            (Some(last), Some(successor)) => Current {
                tokens: last
                    .tokens
                    .clone()
                    .with_refresh_token(successor.clone())
                    .without_refresh_token_expiry(),
                access_revision: last.access_revision.or(Some(self.revision)),
                ..last.clone()
            },
            _ => alone,
        };
        self.succeed(current, self.revision.saturating_add(1))
    }

    /// Returns the refresh token of the current set, or at first the configured one.
    fn last_refresh_token(&self) -> Option<Fingerprint> {
        match &self.current {
            Some(current) => current.tokens.refresh_token().map(|token| self.key.of(token)),
            None if self.revision == 0 => self.firsts().last().copied(),
            None => self.sent.as_ref().map(|sent| sent.token),
        }
    }

    /// Returns the record after the server has refused this refresh token.
    pub(crate) fn refuse(&self, token: &RefreshToken) -> Self {
        let mut next = self.next();
        next.sent = None;
        next.refused = Some(Box::new(next.key.of(token)));
        next
    }

    /// Ends the session. Its facts do not hold for the next one.
    pub(crate) fn end_session(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.login_epoch = self.epoch;
        self.current = None;
        self.is_logged_out = false;
        // These may be spent, so that they must not be sent if a log-in brings them back.
        let sent = self.sent.take().map(|sent| sent.token);
        for token in sent.into_iter().chain(self.refused.take().map(|refused| *refused)) {
            self.supersede(token);
        }
    }
}

fn remember(list: &mut Vec<Fingerprint>, token: Fingerprint, kept: &[Fingerprint]) {
    list.retain(|known| *known != token);
    list.push(token);
    let mut evictable = list.iter().filter(|known| !kept.contains(known));
    if evictable.clone().count() > REMEMBERED_MAX
        && let Some(oldest) = evictable.next().copied()
    {
        list.retain(|known| *known != oldest);
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("write_id", &self.write_id)
            .field("position", &self.position())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl Current {
    /// Records a token set that was asked for at this time of day.
    pub(crate) fn new(tokens: TokenSet, asked: SystemTime) -> Self {
        Self { tokens, received_ms: milliseconds(since_epoch(asked)), access_revision: None }
    }

    /// Returns the time of day at which the access token expires.
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        self.tokens.expiry().map(|expiry| match expiry {
            Expiry::In(lifetime) => self.received_ms.saturating_add(milliseconds(lifetime)),
            Expiry::At(at) => milliseconds(at),
        })
    }

    /// Returns the time of day at which the server wants the token set to be refreshed.
    pub(crate) fn refresh_at_ms(&self) -> Option<u64> {
        let after = self.tokens.refresh_in().map(milliseconds);
        after.map(|after| self.received_ms.saturating_add(after))
    }

    /// Returns the token set with the lifetimes that are left at this time of day.
    pub(crate) fn tokens_at(&self, now: SystemTime) -> TokenSet {
        let mut tokens = self.tokens.clone();
        if let Some(at) = self.expires_at_ms() {
            tokens = tokens.with_expires_at(time_of_day(at));
        }
        if let Some(at) = self.refresh_at_ms() {
            tokens =
                tokens.with_refresh_in(Duration::from_millis(at).saturating_sub(since_epoch(now)));
        }
        tokens
    }

    /// Returns whether both are the same tokens.
    pub(crate) fn is(&self, other: &Self) -> bool {
        fn secrets(tokens: &TokenSet) -> (&str, Option<&str>) {
            let refresh_token = tokens.refresh_token().map(RefreshToken::expose_secret);
            (tokens.access_token().expose_secret(), refresh_token)
        }
        secrets(&self.tokens) == secrets(&other.tokens)
    }

    /// Returns the time until the access token expires, if that is known.
    pub(crate) fn left(&self, now: SystemTime) -> Option<Duration> {
        Some(Duration::from_millis(self.expires_at_ms()?).saturating_sub(since_epoch(now)))
    }

    /// Returns the lifetime that the access token was issued with, if that is known.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.expires_at_ms()?.saturating_sub(self.received_ms)))
    }
}

// ===== times and ids =====

fn milliseconds(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn milliseconds_at(at: SystemTime) -> u64 {
    milliseconds(since_epoch(at))
}

/// Returns a time of day, or a very late one for a number that does not fit.
pub(crate) fn time_of_day(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(milliseconds))
        .unwrap_or(SystemTime::UNIX_EPOCH + FAR_AWAY)
}

const FAR_AWAY: Duration = Duration::from_secs(1000 * 365 * 86400);

/// The id of one write, which no other write has.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "store")]
/// # fn example() {
/// use tower_refresh::store::{StoreError, StoredTokens, WriteId};
///
/// /// The condition of a save.
/// fn compare(stored: Option<&StoredTokens>, replaces: Option<WriteId>) -> Result<(), StoreError> {
///     match stored.map(StoredTokens::write_id) == replaces {
///         true => Ok(()),
///         false => Err(StoreError::conflict()),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "store"), allow(unreachable_pub, reason = "public with a store"))]
pub struct WriteId(pub(crate) [u8; 16]);

impl WriteId {
    pub(crate) fn random() -> Self {
        Self(random())
    }

    #[cfg(feature = "encrypted-store")]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({self})")
    }
}
