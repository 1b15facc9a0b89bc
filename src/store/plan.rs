//! Every decision about what is stored, and nothing else: no store, no lock, no source. What is known goes in, and what to do
//! next comes out.
//!
//! What always holds:
//!
//! - A refresh token that may rotate is sent only after the record says so ([`Intent`]), and the intent stays until it is
//!   known what became of it.
//! - A token set is stored only in place of its parent: the set whose refresh token was spent for it. The successor of what is
//!   stored always is, whoever brings it and whatever it holds.
//! - Revisions grow with each token set, epochs with each log-in and log-out of the application. Nothing of an older epoch is
//!   stored, and nothing of a lower revision is adopted.
//! - A refresh token that was refused, or that another took the place of, is never sent again; nor is a configured one that
//!   has had its turn.

use std::time::{Duration, SystemTime};

use super::error::StoreError;
use super::record::{
    Binding, Content, Fingerprint, Intent, StoredSet, StoredTokens, WriteId, milliseconds_at,
    time_of_day,
};
use crate::error::TokenError;
use crate::source::Cause;
use crate::token::{RefreshToken, StoredAs, TokenSet};

/// What one process knows besides what is stored.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The newest token set of the grant that went through here.
    pub(super) held: Option<Held>,
    /// What the application did itself, and is not stored yet.
    pub(super) session: Option<Session>,
    /// An intent of this process, for which nothing was sent, and which could not be taken back; and the one before it.
    pub(super) not_sent: Option<(WriteId, Option<Intent>)>,
    /// The refresh token that the token endpoint refused last.
    pub(super) denied: Option<RefreshToken>,
    /// Whether the configured refresh token has had its turn, which a store that comes back empty does not know.
    pub(super) had_turn: bool,
    /// Whether the application has logged in or out: what it was configured with is then of the past, stored or not.
    pub(super) is_configured_past: bool,
}

/// A token set that this process holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) stored_as: StoredAs,
    pub(super) tokens: TokenSet,
    pub(super) asked: SystemTime,
    pub(super) saved: Saved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// It was loaded, or a save returned.
    Yes,
    /// It came of this revision, which is the last that was stored.
    After(u64),
}

/// A log-in (with tokens) or a log-out (with none) of the application.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Tells it from those before and after it.
    pub(super) number: u64,
    pub(super) tokens: Option<TokenSet>,
    pub(super) at: SystemTime,
    pub(super) begun: Begun,
}

/// How a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The application has only just logged in or out.
    Now,
    /// It did, and that could not be stored when it happened: others may have logged in or out since.
    Late,
    /// Nobody logged in: what is configured was redeemed without the store.
    WithoutStore,
}

/// What httpdate can write.
const LAST_HTTP_DATE: Duration = Duration::from_secs(253_402_300_799);

/// What does not change.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) binding: Binding,
    pub(super) configured: Option<RefreshToken>,
    pub(super) rotates: bool,
    pub(super) reuse_grace: Option<Duration>,
    /// What messages call the store.
    pub(super) store: String,
}

/// What a fetch wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) cause: Cause,
    /// Which set the asker has.
    pub(super) has: Option<StoredAs>,
    /// What the asker has is stale only because it could not be saved at first: it need not be renewed for that.
    pub(super) is_hurried: bool,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Plan {
    /// Hand out what is stored.
    Adopt(TokenSet),
    /// Ask the source to spend the refresh token, once this is written.
    Spend(Box<Spending>),
    /// Ask the source, which spends nothing.
    Ask { previous: Option<TokenSet> },
    /// Ask the source, which has no refresh token left to spend: it may know another way.
    AskWithout,
    /// There is none to be had now.
    Refuse(TokenError),
}

/// A refresh token that is about to be sent.
#[derive(Debug)]
pub(super) struct Spending {
    /// What is to be written first.
    pub(super) intent: StoredTokens,
    /// The intent that this one takes the place of.
    pub(super) before: Option<Intent>,
    /// What the source is given; nothing if it is to send what it was configured with.
    pub(super) previous: Option<TokenSet>,
}

// ===== what must be written first =====

/// What this process must write before anything else, so that the store knows what it knows.
pub(super) fn due(
    record: Option<&StoredTokens>,
    memory: &Memory,
    setup: &Setup,
) -> Result<Due, TokenError> {
    if let Some(record) = record
        && !is_bound(record, setup)?
    {
        let mut next = record.next();
        next.binding = setup.binding.clone();
        return Ok(Due::Write(next));
    }
    if let Some(session) = &memory.session {
        if let Some(record) = record {
            let content = record.content()?;
            let is_overtaken = session.begun != Begun::Now
                && content.session_began_ms > milliseconds_at(session.at);
            // Somebody logged out after what is configured had its turn.
            let is_ended = session.begun == Begun::WithoutStore
                && content.is_forgotten
                && setup.configured.as_ref().is_some_and(|token| content.has_seen(token));
            if is_overtaken || is_ended || is_spent(record, session.tokens.as_ref())? {
                return Ok(Due::Drop);
            }
        }
        return Ok(Due::Write(begin_session(record, session, setup)?));
    }
    let Some(record) = record else {
        return match &memory.held {
            // It was there, and is gone.
            Some(held) => Ok(Due::Write(restore(None, held, setup)?)),
            None => match &memory.denied {
                Some(denied) => {
                    Ok(deny(&first(setup)?, denied, setup)?.map_or(Due::Nothing, Due::Write))
                }
                None => Ok(Due::Nothing),
            },
        };
    };
    if let Some(held) = &memory.held {
        let stored = record.stored_as();
        if held.stored_as > stored {
            let is_successor =
                held.stored_as.epoch == stored.epoch && held.saved == Saved::After(stored.revision);
            return Ok(Due::Write(if is_successor {
                succeed(record, &held.tokens, held.asked, held.stored_as.revision)?
            } else {
                restore(Some(record), held, setup)?
            }));
        }
        if held.saved != Saved::Yes {
            let set = record.content()?.tokens.as_ref();
            let is_stored = held.stored_as == stored && set.is_some_and(|set| set.is(&held.tokens));
            // Or was: others have gone on from there.
            if is_stored || is_spent(record, Some(&held.tokens))? {
                return Ok(Due::Found);
            }
            // Another session, or another successor of the same set, was stored first.
            return Ok(Due::Drop);
        }
    }
    if let Some((by, before)) = &memory.not_sent
        && let Some(next) = take_back(record, *by, before.as_ref())?
    {
        return Ok(Due::Write(still_doubted(next, record, setup)?));
    }
    if let Some(denied) = &memory.denied
        && let Some(next) = deny(record, denied, setup)?
    {
        return Ok(Due::Write(next));
    }
    let content = record.content()?;
    if let Some(configured) = setup.configured.as_ref().filter(|token| !content.has_seen(token)) {
        let mut next = record.next();
        if memory.had_turn || memory.is_configured_past {
            next.content_mut()?.pass_over(configured);
            next = still_doubted(next, record, setup)?;
        } else {
            // A human has logged in again, and put the new refresh token into the configuration.
            next.epoch = next.epoch.saturating_add(1);
            let content = next.content_mut()?;
            content.end_session();
            content.see(configured);
        }
        return Ok(Due::Write(next));
    }
    if record.is_doubted
        && setup.rotates
        && content.intent.is_none()
        && sendable(record, setup)?.is_some()
    {
        return Ok(Due::Write(still_doubted(record.next(), record, setup)?));
    }
    Ok(Due::Nothing)
}

/// Writes down the doubt that a store has said of what it loaded, since it says so no more of what is saved over it.
fn still_doubted(
    mut next: StoredTokens,
    record: &StoredTokens,
    setup: &Setup,
) -> Result<StoredTokens, StoreError> {
    let token = sendable(&next, setup)?.filter(|_| record.is_doubted && setup.rotates);
    let by = next.write_id();
    let content = next.content_mut()?;
    if let (Some(token), None) = (token, &content.intent) {
        content.intent = Some(Intent::doubt(content.fingerprint(&token), by));
    }
    Ok(next)
}

/// Returns whether the store says that the configured refresh token has had its turn, or has it now.
pub(super) fn has_had_turn(
    record: Option<&StoredTokens>,
    setup: &Setup,
) -> Result<bool, TokenError> {
    Ok(match (record, &setup.configured) {
        (Some(record), Some(configured)) => {
            is_bound(record, setup)? && record.content()?.has_seen(configured)
        }
        _ => false,
    })
}

/// Returns whether another refresh token took the place of this set's.
pub(super) fn is_spent(
    record: &StoredTokens,
    tokens: Option<&TokenSet>,
) -> Result<bool, StoreError> {
    let content = record.content()?;
    let token = tokens.and_then(TokenSet::refresh_token);
    Ok(token.is_some_and(|token| content.spent.contains(&content.fingerprint(token))))
}

/// What is due before anything else.
#[derive(Debug)]
pub(super) enum Due {
    Nothing,
    /// To write this.
    Write(StoredTokens),
    /// To know that what this process holds is saved, or was: a save counted, although its answer was lost.
    Found,
    /// To forget what this process holds and has not saved: it was overtaken.
    Drop,
}

/// Returns whether a record belongs to what is configured; if not, nothing was ever obtained with it, as with a typing error
/// that has been put right.
///
/// It is an error if it belongs to something else, so that no server gets another one's refresh token.
fn is_bound(record: &StoredTokens, setup: &Setup) -> Result<bool, TokenError> {
    let (stored, ours) = (&record.binding, &setup.binding);
    if stored == ours {
        return Ok(true);
    }
    let content = record.content()?;
    let is_known = content.intent.is_some() || content.denied.is_some() || content.is_forgotten;
    if content.tokens.is_none() && !is_known {
        return Ok(false);
    }
    let describe = |binding: &Binding| {
        format!(
            "token endpoint `{}`, client `{}`, name `{}`",
            binding.token_endpoint, binding.client_id, binding.name
        )
    };
    Err(TokenError::misconfigured(format!(
        "{} has the tokens of something else ({}) than what is configured ({}); nothing of it was used or changed: configure another store, or move this one away",
        setup.store,
        describe(stored),
        describe(ours),
    )))
}

fn begin_session(
    record: Option<&StoredTokens>,
    session: &Session,
    setup: &Setup,
) -> Result<StoredTokens, StoreError> {
    let mut next = follow(record, setup)?;
    next.epoch = next.epoch.saturating_add(1);
    next.revision = next.revision.saturating_add(1);
    let content = next.content_mut()?;
    let (intent, denied) = (content.intent.take(), content.denied.take());
    content.end_session();
    // What became of a refresh token does not change when somebody brings it again.
    let brought = session.tokens.as_ref().and_then(TokenSet::refresh_token);
    let brought = brought.map(|token| content.fingerprint(token));
    content.denied = denied.filter(|denied| Some(*denied) == brought);
    match intent {
        Some(intent) if Some(intent.token) == brought => content.intent = Some(intent),
        // If its flight brings a successor, there is no place for it any more.
        Some(intent) => content.spend_fingerprint(intent.token),
        None => {}
    }
    content.session_began_ms = milliseconds_at(session.at);
    content.is_forgotten = session.tokens.is_none();
    content.tokens = session.tokens.as_ref().map(|tokens| StoredSet::new(tokens, session.at));
    Ok(next)
}

/// Brings back what the store has lost. Others may have gone further than this process, so that its refresh token may be
/// spent.
fn restore(
    record: Option<&StoredTokens>,
    held: &Held,
    setup: &Setup,
) -> Result<StoredTokens, StoreError> {
    let mut next = follow(record, setup)?;
    next.epoch = held.stored_as.epoch;
    next.revision = held.stored_as.revision;
    let by = next.write_id();
    let content = next.content_mut()?;
    content.end_session();
    content.intent = held
        .tokens
        .refresh_token()
        .filter(|_| setup.rotates)
        .map(|token| Intent::doubt(content.fingerprint(token), by));
    content.tokens = Some(StoredSet::new(&held.tokens, held.asked));
    Ok(next)
}

/// Returns what is to be written after this, or at first: what is configured has its turn, or has had it.
fn follow(record: Option<&StoredTokens>, setup: &Setup) -> Result<StoredTokens, StoreError> {
    let mut next = match record {
        Some(record) => record.next(),
        None => first(setup)?,
    };
    if let Some(configured) = &setup.configured {
        next.content_mut()?.see(configured);
    }
    Ok(next)
}

/// Returns the first record of all: what is configured has its turn.
pub(super) fn first(setup: &Setup) -> Result<StoredTokens, StoreError> {
    let mut first = StoredTokens::new(setup.binding.clone());
    if let Some(configured) = &setup.configured {
        first.content_mut()?.see(configured);
    }
    Ok(first)
}

// ===== what to do for a fetch =====

/// What to do for a fetch. Nothing is [due](due).
pub(super) fn plan(
    record: Option<&StoredTokens>,
    memory: &Memory,
    wish: &Wish,
    setup: &Setup,
    now: SystemTime,
) -> Result<Plan, TokenError> {
    let Some(record) = record else {
        return match &setup.configured {
            Some(_) if memory.had_turn || memory.is_configured_past => Ok(Plan::AskWithout),
            Some(configured) if setup.rotates => spend(&first(setup)?, None, configured, None, now),
            _ => Ok(Plan::Ask { previous: None }),
        };
    };
    let content = record.content()?;
    let set = content.tokens.as_ref();
    let is_newer = wish.has.is_none_or(|has| record.access_stored_as(set) > has);
    let works = set.is_some_and(|set| works(set, now));
    if let Some(set) = set
        && works
        && (is_newer || wish.is_hurried && wish.cause == Cause::Expiring)
    {
        return Ok(Plan::Adopt(record.tokens_of(set, now)?));
    }
    if content.is_forgotten {
        return Ok(Plan::AskWithout);
    }
    let previous = match set {
        Some(set) => Some(record.tokens_of(set, now)?),
        None => None,
    };
    // What the application logged out of here is still there for others, who were not told.
    let may_send = set.is_some() || !memory.is_configured_past;
    let Some(token) = sendable(record, setup)?.filter(|_| may_send) else {
        return Ok(if setup.configured.is_some() {
            // It has had its turn: another one is being redeemed elsewhere, or somebody logged in without any.
            Plan::AskWithout
        } else {
            Plan::Ask { previous }
        });
    };
    let fingerprint = content.fingerprint(&token);
    if content.denied == Some(fingerprint) || content.spent.contains(&fingerprint) {
        return Ok(Plan::AskWithout);
    }
    if !setup.rotates {
        return Ok(Plan::Ask { previous });
    }
    let Some(open) = content.intent.as_ref().filter(|intent| intent.token == fingerprint) else {
        return spend(record, previous, &token, None, now);
    };

    let is_rejected = wish.cause == Cause::Rejected && !is_newer;
    let is_borne = setup.reuse_grace.is_some_and(|grace| is_within(grace, open.first_sent_ms, now));
    if is_borne && open.attempt == 1 {
        return spend(record, previous, &token, Some(open), now);
    }
    // While the access token works there is nothing to gain; but waiting for the end of one that has none would be waiting
    // for ever.
    let ends = set.is_some_and(|set| set.lifetime().is_some());
    if works && ends && !is_rejected {
        return Ok(Plan::Refuse(TokenError::ambiguous(format!(
            "{}; the access token is used while it works",
            open.describe()
        ))));
    }
    if is_left_alone(open, now) {
        return Ok(Plan::Refuse(TokenError::ambiguous(format!(
            "{}; it will be sent once more",
            open.describe()
        ))));
    }
    spend(record, previous, &token, Some(open), now)
}

/// Returns the refresh token that would be sent next: that of the stored set, or at first the configured one.
fn sendable(record: &StoredTokens, setup: &Setup) -> Result<Option<RefreshToken>, StoreError> {
    let content = record.content()?;
    Ok(match &content.tokens {
        Some(set) => set.refresh_token(),
        None => setup.configured.clone().filter(|configured| {
            content.seen.last() == Some(&content.fingerprint(configured)) && !content.is_forgotten
        }),
    })
}

fn spend(
    record: &StoredTokens,
    previous: Option<TokenSet>,
    token: &RefreshToken,
    open: Option<&Intent>,
    now: SystemTime,
) -> Result<Plan, TokenError> {
    let mut intent = record.next();
    let by = intent.write_id();
    let now_ms = milliseconds_at(now);
    let content = intent.content_mut()?;
    content.intent = Some(Intent {
        token: content.fingerprint(token),
        by,
        attempt: open.map_or(0, |open| open.attempt).saturating_add(1),
        first_sent_ms: open
            .filter(|open| open.attempt > 0)
            .map_or(now_ms, |open| open.first_sent_ms),
        last_sent_ms: now_ms,
    });
    Ok(Plan::Spend(Box::new(Spending { intent, before: open.cloned(), previous })))
}

/// Returns whether an access token may still be used; like the credentials, a little less long than it says.
fn works(set: &StoredSet, now: SystemTime) -> bool {
    match (set.left(now), set.lifetime()) {
        (Some(left), Some(lifetime)) => left > LEEWAY.min(lifetime / 8),
        _ => true,
    }
}

/// A little more than the default of the policy: where the credentials have used a token up, so has the store.
const LEEWAY: Duration = Duration::from_secs(12);

/// Returns whether a refresh token whose fate is unknown was sent too short a while ago to be sent once more.
fn is_left_alone(open: &Intent, now: SystemTime) -> bool {
    let sent = Duration::from_millis(open.last_sent_ms);
    let now = Duration::from_millis(milliseconds_at(now));
    // A clock that was further ahead than that was wrong, and nobody waits until it is right.
    sent <= now + LONGEST_PAUSE && now.saturating_sub(sent) < pause_after(open.attempt)
}

/// How long after so many attempts a refresh token whose fate is unknown is left alone, by all who share it.
fn pause_after(attempts: u32) -> Duration {
    match attempts {
        // The first attempt of all, and the one that follows when the access token is used up.
        0 | 1 => Duration::ZERO,
        more @ 2.. => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_PAUSE),
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Returns whether a window is open for certain, by the clock of whoever looks and by that of whoever wrote it down.
fn is_within(window: Duration, began_ms: u64, now: SystemTime) -> bool {
    let margin = SKEW.min(window / 2);
    let began = Duration::from_millis(began_ms);
    let now = Duration::from_millis(milliseconds_at(now));
    began <= now + margin && now.saturating_sub(began) + margin < window
}

/// By how much the clocks of two machines are taken to differ at most.
const SKEW: Duration = Duration::from_secs(5);

// ===== what became of it =====

/// Returns the record with the successor of what is stored.
pub(super) fn succeed(
    record: &StoredTokens,
    tokens: &TokenSet,
    asked: SystemTime,
    revision: u64,
) -> Result<StoredTokens, StoreError> {
    let mut next = record.next();
    next.revision = revision;
    let content = next.content_mut()?;
    if let Some(spent) = content.tokens.as_ref().and_then(StoredSet::refresh_token)
        && tokens
            .refresh_token()
            .is_some_and(|token| token.expose_secret() != spent.expose_secret())
    {
        content.spend(&spent);
    }
    if let Some(issued) = tokens.refresh_token() {
        // Some servers issue one again, and they must know.
        let issued = content.fingerprint(issued);
        content.spent.retain(|spent| *spent != issued);
    }
    content.intent = None;
    content.denied = None;
    content.is_forgotten = false;
    content.tokens = Some(match content.tokens.take() {
        Some(last) => last.followed_by(tokens, asked),
        None => StoredSet::new(tokens, asked),
    });
    Ok(next)
}

/// Whether a set that came of one revision may still be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Succession {
    /// It is the successor of what is stored, or the store has lost what it is the successor of.
    Write,
    /// A log-in or a log-out came in between: it is of no session.
    Ended,
    /// Another successor is stored already.
    Forked,
}

pub(super) fn succession(record: Option<&StoredTokens>, of: StoredAs) -> Succession {
    match record {
        None => Succession::Write,
        Some(record) if record.epoch > of.epoch => Succession::Ended,
        Some(record) if record.stored_as() > of => Succession::Forked,
        Some(_) => Succession::Write,
    }
}

/// Returns the record after an answer that is of no use but for the refresh token in it.
pub(super) fn replace_refresh_token(
    record: &StoredTokens,
    successor: &RefreshToken,
    now: SystemTime,
) -> Result<StoredTokens, StoreError> {
    let mut next = record.next();
    next.revision = next.revision.saturating_add(1);
    let content = next.content_mut()?;
    content.intent = None;
    content.denied = None;
    if let Some(spent) = content.tokens.as_ref().and_then(StoredSet::refresh_token) {
        content.spend(&spent);
    }
    match &mut content.tokens {
        Some(set) => set.set_refresh_token(successor, record.revision),
        None => content.tokens = Some(StoredSet::without_access(successor, now)?),
    }
    Ok(next)
}

/// Returns the record after the token endpoint refused this refresh token; none if it is no longer the one to send, or if
/// that is known.
fn deny(
    record: &StoredTokens,
    denied: &RefreshToken,
    setup: &Setup,
) -> Result<Option<StoredTokens>, StoreError> {
    let fingerprint = record.content()?.fingerprint(denied);
    let is_to_be_sent = sendable(record, setup)?
        .is_some_and(|token| token.expose_secret() == denied.expose_secret());
    if !is_to_be_sent || record.content()?.denied == Some(fingerprint) {
        return Ok(None);
    }
    let mut next = record.next();
    let content = next.content_mut()?;
    content.intent = None;
    content.denied = Some(fingerprint);
    Ok(Some(next))
}

/// Returns the record after it became known that an attempt did not count; none if the intent is not its.
fn take_back(
    record: &StoredTokens,
    by: WriteId,
    before: Option<&Intent>,
) -> Result<Option<StoredTokens>, StoreError> {
    if record.content()?.intent.as_ref().is_none_or(|intent| intent.by != by) {
        return Ok(None);
    }
    let mut next = record.next();
    next.content_mut()?.intent = before.cloned();
    Ok(Some(next))
}

// ===== impl StoredTokens, Content, Intent =====

impl StoredTokens {
    pub(super) fn stored_as(&self) -> StoredAs {
        StoredAs { epoch: self.epoch, revision: self.revision }
    }

    /// Returns which of all sets the access token came with.
    fn access_stored_as(&self, set: Option<&StoredSet>) -> StoredAs {
        let revision = set.map_or(self.revision, |set| set.access_revision(self.revision));
        StoredAs { revision, ..self.stored_as() }
    }

    /// Returns a set of this record, which remembers that it is.
    fn tokens_of(&self, set: &StoredSet, now: SystemTime) -> Result<TokenSet, StoreError> {
        Ok(set.tokens(now)?.to_builder().stored_as(self.stored_as()).build())
    }

    /// Returns the stored set, if there is one.
    pub(super) fn tokens(&self, now: SystemTime) -> Result<Option<TokenSet>, StoreError> {
        match &self.content()?.tokens {
            Some(set) => self.tokens_of(set, now).map(Some),
            None => Ok(None),
        }
    }
}

impl Content {
    /// Nothing that is known of the last session holds for the next.
    fn end_session(&mut self) {
        self.tokens = None;
        self.is_forgotten = false;
        self.intent = None;
        self.denied = None;
    }
}

impl Intent {
    /// What was written about a refresh token may be lost.
    fn doubt(token: Fingerprint, by: WriteId) -> Self {
        Self { token, by, attempt: 0, first_sent_ms: 0, last_sent_ms: 0 }
    }

    /// Returns what is known, as the beginning of a message.
    pub(super) fn describe(&self) -> String {
        let at = |ms| {
            httpdate::fmt_http_date(time_of_day(ms).min(SystemTime::UNIX_EPOCH + LAST_HTTP_DATE))
        };
        match self.attempt {
            0 => "the store has lost what was written last, so that the refresh token may be spent"
                .into(),
            1 => format!(
                "the refresh token was sent at {}, and nobody knows what became of it",
                at(self.first_sent_ms)
            ),
            times => format!(
                "the refresh token was sent {times} times, first at {}, last at {}, and nobody knows what became of it",
                at(self.first_sent_ms),
                at(self.last_sent_ms)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn set(name: &str) -> TokenSet {
        TokenSet::bearer(name)
            .unwrap()
            .expires_in(HOUR)
            .refresh_token(format!("refresh-{name}"))
            .build()
    }

    fn setup() -> Setup {
        Setup {
            binding: Binding::default(),
            configured: Some(RefreshToken::new("configured")),
            rotates: true,
            reuse_grace: None,
            store: "the store".into(),
        }
    }

    /// A record after so many renewals.
    fn record(revision: u64) -> StoredTokens {
        (1..=revision).fold(first(&setup()).unwrap(), |record, revision| {
            succeed(&record, &set(&format!("t{revision}")), start(), revision).unwrap()
        })
    }

    fn with_intent(record: &StoredTokens, attempt: u32, sent: SystemTime) -> StoredTokens {
        let mut next = record.next();
        let by = next.write_id();
        let content = next.content_mut().unwrap();
        let token = content.tokens.as_ref().and_then(StoredSet::refresh_token).unwrap();
        let token = content.fingerprint(&token);
        let sent = milliseconds_at(sent);
        content.intent =
            Some(Intent { token, by, attempt, first_sent_ms: sent, last_sent_ms: sent });
        next
    }

    fn held(revision: u64, saved: Saved) -> Memory {
        let stored_as = StoredAs { epoch: 1, revision };
        let tokens = set(&format!("t{revision}"));
        let held = Held { stored_as, tokens, asked: start(), saved };
        Memory { held: Some(held), ..Memory::default() }
    }

    fn wish(cause: Cause, has: u64) -> Wish {
        let has = Some(StoredAs { epoch: 1, revision: has }).filter(|_| cause != Cause::Missing);
        Wish { cause, has, is_hurried: false }
    }

    /// What is to be done, in a word; and with which access token.
    fn planned(record: &StoredTokens, wish: &Wish, setup: &Setup, now: SystemTime) -> String {
        let access = |tokens: &TokenSet| tokens.access_token().expose_secret().to_owned();
        match plan(Some(record), &Memory::default(), wish, setup, now).unwrap() {
            Plan::Adopt(tokens) => format!("adopt {}", access(&tokens)),
            Plan::Spend(spending) => format!("spend {}", access(&spending.previous.unwrap())),
            Plan::Ask { .. } => "ask".into(),
            Plan::AskWithout => "ask without".into(),
            Plan::Refuse(error) if error.is_ambiguous() => "ambiguous".into(),
            Plan::Refuse(error) => panic!("{error}"),
        }
    }

    const CAUSES: [Cause; 5] =
        [Cause::Missing, Cause::Expiring, Cause::Expired, Cause::Rejected, Cause::Forced];

    #[test]
    fn only_what_is_newer_and_works_is_adopted() {
        let record = record(3);
        for cause in CAUSES {
            let planned = |has, now| planned(&record, &wish(cause, has), &setup(), now);
            assert_eq!(planned(2, start()), "adopt t3", "{cause:?}");
            assert_eq!(planned(2, start() + HOUR), "spend t3", "{cause:?}");
            let same = if cause == Cause::Missing { "adopt t3" } else { "spend t3" };
            assert_eq!(planned(3, start()), same, "{cause:?}");
            assert_eq!(planned(4, start()), same, "{cause:?}");
        }
    }

    #[test]
    fn a_refresh_token_of_unknown_fate_waits_for_the_end_of_the_access_token() {
        let record = with_intent(&record(3), 1, start());
        for cause in CAUSES {
            let expected = match cause {
                Cause::Missing => "adopt t3",
                Cause::Rejected => "spend t3",
                _ => "ambiguous",
            };
            assert_eq!(planned(&record, &wish(cause, 3), &setup(), start()), expected, "{cause:?}");
            let ended = planned(&record, &wish(cause, 3), &setup(), start() + HOUR);
            assert_eq!(ended, "spend t3", "{cause:?}");
        }
    }

    #[test]
    fn attempts_are_further_and_further_apart() {
        for (attempt, pause) in [(0, 0), (1, 0), (2, 60), (3, 120), (5, 480), (6, 900), (99, 900)] {
            let sent = start() + HOUR;
            let record = with_intent(&record(3), attempt, sent);
            let after = |seconds| {
                let now = sent + Duration::from_secs(seconds);
                planned(&record, &wish(Cause::Expired, 3), &setup(), now)
            };
            assert_eq!(after(pause), "spend t3", "{attempt}");
            if pause > 0 {
                assert_eq!(after(pause - 1), "ambiguous", "{attempt}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_locks_nobody_out() {
        let day = Duration::from_secs(86400);
        let now = start() + day;
        for sent in [now + day, now + day * 365, time_of_day(u64::MAX)] {
            let record = with_intent(&record(3), 4, sent);
            let found = planned(&record, &wish(Cause::Expired, 3), &setup(), now);
            assert_eq!(found, "spend t3", "{sent:?}");
        }
    }

    #[test]
    fn a_rejected_token_whose_refresh_token_was_replaced_is_not_waited_for() {
        let replaced =
            replace_refresh_token(&record(3), &RefreshToken::new("successor"), start()).unwrap();
        let record = with_intent(&replaced, 1, start());
        assert_eq!(record.revision(), 4);
        let found = planned(&record, &wish(Cause::Rejected, 3), &setup(), start());
        assert_eq!(found, "spend t3");
    }

    #[test]
    fn a_grace_window_is_used_where_it_is_open_by_either_clock() {
        let setup = Setup { reuse_grace: Some(Duration::from_secs(10)), ..setup() };
        let sent = start() + Duration::from_secs(100);
        let record = with_intent(&record(3), 1, sent);
        // By a clock that shows so many seconds after what was written down.
        for (seconds, expected) in [
            (-60, "ambiguous"),
            (-6, "ambiguous"),
            (-5, "spend t3"),
            (0, "spend t3"),
            (4, "spend t3"),
            (5, "ambiguous"),
            (10, "ambiguous"),
        ] {
            let now = start() + Duration::from_secs(100_u64.saturating_add_signed(seconds));
            let found = planned(&record, &wish(Cause::Forced, 3), &setup, now);
            assert_eq!(found, expected, "{seconds}");
        }
        let record = with_intent(&record, 2, sent);
        assert_eq!(planned(&record, &wish(Cause::Forced, 3), &setup, sent), "ambiguous");
    }

    fn log_in(tokens: Option<TokenSet>, at: SystemTime, begun: Begun) -> Memory {
        let session = Session { number: 1, tokens, at, begun };
        Memory { session: Some(session), ..Memory::default() }
    }

    fn written(record: &StoredTokens, memory: &Memory) -> StoredTokens {
        match due(Some(record), memory, &setup()).unwrap() {
            Due::Write(next) => next,
            due => panic!("{due:?}"),
        }
    }

    #[test]
    fn a_log_in_is_stored_although_the_clock_went_back_and_a_late_one_only_if_it_is_the_later() {
        let noon = start() + HOUR;
        let record = written(&record(3), &log_in(Some(set("noon")), noon, Begun::Now));
        assert_eq!(record.stored_as(), StoredAs { epoch: 2, revision: 4 });
        for (begun, at, is_stored) in [
            (Begun::Now, start(), true),
            (Begun::Late, start(), false),
            (Begun::WithoutStore, start(), false),
            (Begun::Late, noon + HOUR, true),
            // Nobody logged out: it may have come of an attempt that was killed.
            (Begun::WithoutStore, noon + HOUR, true),
        ] {
            let memory = log_in(Some(set("other")), at, begun);
            let due = due(Some(&record), &memory, &setup()).unwrap();
            assert_eq!(matches!(due, Due::Write(_)), is_stored, "{begun:?}");
        }
    }

    #[test]
    fn what_was_redeemed_without_the_store_ends_no_log_out_unless_it_was_configured_after_it() {
        let record = written(&record(3), &log_in(None, start(), Begun::Now));
        let memory = log_in(Some(set("other")), start() + HOUR, Begun::WithoutStore);
        assert!(matches!(due(Some(&record), &memory, &setup()).unwrap(), Due::Drop));
        let later = Setup { configured: Some(RefreshToken::new("later")), ..setup() };
        assert!(matches!(due(Some(&record), &memory, &later).unwrap(), Due::Write(_)));
    }

    #[test]
    fn a_log_in_keeps_what_is_known_of_the_token_that_it_brings_and_spends_what_is_in_flight() {
        let sent = with_intent(&record(3), 1, start());
        let again = written(&sent, &log_in(Some(set("t3")), start(), Begun::Now));
        assert!(again.has_open_intent());
        let other = written(&sent, &log_in(Some(set("other")), start(), Begun::Now));
        assert!(!other.has_open_intent());
        assert!(is_spent(&other, Some(&set("t3"))).unwrap());

        let denied = RefreshToken::new("refresh-t3");
        let refused = deny(&record(3), &denied, &setup()).unwrap().unwrap();
        for (name, is_known) in [("t3", true), ("other", false)] {
            let next = written(&refused, &log_in(Some(set(name)), start(), Begun::Now));
            assert_eq!(next.content().unwrap().denied.is_some(), is_known, "{name}");
        }
    }

    #[test]
    fn a_refresh_token_that_the_server_issues_again_is_sent_again() {
        let again = succeed(&record(2), &set("t1"), start(), 3).unwrap();
        let expired = start() + HOUR;
        let plan = planned(&again, &wish(Cause::Expired, 3), &setup(), expired);
        assert_eq!(plan, "spend t1");
    }

    #[test]
    fn a_successor_ends_the_log_out_and_the_intent_and_spends_its_parent() {
        let record = with_intent(&record(3), 1, start());
        for next in [
            succeed(&record, &set("t4"), start(), 4).unwrap(),
            replace_refresh_token(&record, &RefreshToken::new("refresh-t4"), start()).unwrap(),
        ] {
            assert!(!next.has_open_intent());
            assert!(is_spent(&next, Some(&set("t3"))).unwrap());
            assert!(!is_spent(&next, Some(&set("t4"))).unwrap());
        }
        let same = succeed(&record, &set("t3"), start(), 4).unwrap();
        assert!(!is_spent(&same, Some(&set("t3"))).unwrap());

        let logged_out = written(&record, &log_in(None, start(), Begun::Now));
        assert!(logged_out.content().unwrap().is_forgotten);
        let another_way = succeed(&logged_out, &set("t5"), start(), 6).unwrap();
        assert!(!another_way.content().unwrap().is_forgotten);
    }

    #[test]
    fn an_intent_is_about_its_own_token_and_taken_back_by_its_own_writer() {
        let sent = with_intent(&record(3), 1, start());
        let intent = sent.content().unwrap().intent.clone().unwrap();
        assert!(take_back(&sent, WriteId::random(), None).unwrap().is_none());
        let before = Intent { attempt: 7, ..intent.clone() };
        let back = take_back(&sent, intent.by, Some(&before)).unwrap().unwrap();
        assert_eq!(back.content().unwrap().intent, Some(before));

        let mut other = record(3).next();
        let other_token = other.content().unwrap().fingerprint(&RefreshToken::new("other"));
        other.content_mut().unwrap().intent = Some(Intent { token: other_token, ..intent });
        assert_eq!(planned(&other, &wish(Cause::Forced, 3), &setup(), start()), "spend t3");
    }

    #[test]
    fn what_was_unsaved_is_handed_out_again_only_to_whoever_has_it_renewed_early() {
        for cause in CAUSES {
            let wish = Wish { is_hurried: true, ..wish(cause, 3) };
            let expected = match cause {
                Cause::Missing | Cause::Expiring => "adopt t3",
                _ => "spend t3",
            };
            assert_eq!(planned(&record(3), &wish, &setup(), start()), expected, "{cause:?}");
        }
    }

    #[test]
    fn nobody_waits_for_the_end_of_an_access_token_that_has_none() {
        let endless = TokenSet::bearer("endless").unwrap().refresh_token("refresh").build();
        let record = succeed(&record(3), &endless, start(), 4).unwrap();
        let record = with_intent(&record, 1, start());
        let found = planned(&record, &wish(Cause::Forced, 4), &setup(), start());
        assert_eq!(found, "spend endless");
    }

    #[test]
    fn what_is_brought_back_is_in_doubt_only_where_a_token_may_rotate() {
        for rotates in [true, false] {
            let setup = Setup { rotates, ..setup() };
            let due = due(Some(&record(2)), &held(3, Saved::Yes), &setup).unwrap();
            let Due::Write(next) = due else { panic!("{due:?}") };
            assert_eq!(next.has_open_intent(), rotates);
        }
    }

    #[test]
    fn a_doubt_is_written_down_once_and_only_where_a_token_may_rotate() {
        let doubted = record(3).doubted();
        let in_doubt = written(&doubted, &Memory::default());
        assert!(in_doubt.has_open_intent());
        let sent = with_intent(&record(3), 2, start()).doubted();
        assert!(matches!(due(Some(&sent), &Memory::default(), &setup()).unwrap(), Due::Nothing));
        let setup = Setup { rotates: false, ..setup() };
        assert!(matches!(due(Some(&doubted), &Memory::default(), &setup).unwrap(), Due::Nothing));
    }

    #[test]
    fn what_is_held_is_stored_unless_it_was_overtaken() {
        for (stored, held_as, saved, expected) in [
            (3, 3, Saved::Yes, "nothing"),
            (4, 3, Saved::Yes, "nothing"),
            (2, 3, Saved::Yes, "write 3, in doubt"),
            (2, 3, Saved::After(2), "write 3"),
            (2, 4, Saved::After(2), "write 4"),
            (1, 3, Saved::After(2), "write 3, in doubt"),
            // Its save counted, and its answer was lost. Others may have gone on from there.
            (3, 3, Saved::After(2), "found"),
            (4, 3, Saved::After(2), "found"),
        ] {
            let due = due(Some(&record(stored)), &held(held_as, saved), &setup()).unwrap();
            let due = match due {
                Due::Nothing => "nothing".into(),
                Due::Found => "found".into(),
                Due::Drop => "drop".into(),
                Due::Write(next) => {
                    let doubt = if next.has_open_intent() { ", in doubt" } else { "" };
                    format!("write {}{doubt}", next.revision())
                }
            };
            assert_eq!(due, expected, "{stored} {held_as} {saved:?}");
        }
        // Another successor of the same set.
        let mut memory = held(3, Saved::After(2));
        memory.held.as_mut().unwrap().tokens = set("other");
        for stored in [3, 4] {
            assert!(matches!(due(Some(&record(stored)), &memory, &setup()).unwrap(), Due::Drop));
        }
    }
}
