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

/// Returns whether the stored session is that of the current configuration, which no application logged in to or out of: what
/// is redeemed without the store belongs to it.
fn is_of_configured(record: Option<&StoredTokens>, setup: &Setup) -> Result<bool, StoreError> {
    let Some(record) = record else { return Ok(true) };
    let content = record.content()?;
    let configured = setup.configured.as_ref().map(|token| content.fingerprint(token));
    Ok(content.session_began_ms == 0 && content.seen.last() == configured.as_ref())
}

fn begin_session(
    record: Option<&StoredTokens>,
    session: &Session,
    setup: &Setup,
) -> Result<StoredTokens, StoreError> {
    let goes_on = session.begun == Begun::WithoutStore && is_of_configured(record, setup)?;
    let mut next = follow(record, setup)?;
    if !goes_on {
        next.epoch = next.epoch.saturating_add(1);
    }
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
    if !goes_on {
        content.session_began_ms = milliseconds_at(session.at);
    }
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
            "{}; it may be sent once more at {}",
            open.describe(),
            http_date(open.left_alone_until_ms())
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

fn http_date(ms: u64) -> String {
    httpdate::fmt_http_date(time_of_day(ms).min(SystemTime::UNIX_EPOCH + LAST_HTTP_DATE))
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
        Ok(set.tokens(now)?.with_stored_as(self.stored_as()))
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
    /// Returns until when the refresh token is left alone.
    fn left_alone_until_ms(&self) -> u64 {
        let pause = pause_after(self.attempt).as_millis();
        self.last_sent_ms.saturating_add(pause.try_into().unwrap_or(u64::MAX))
    }

    /// What was written about a refresh token may be lost.
    fn doubt(token: Fingerprint, by: WriteId) -> Self {
        Self { token, by, attempt: 0, first_sent_ms: 0, last_sent_ms: 0 }
    }

    /// Returns what is known, as the beginning of a message.
    pub(super) fn describe(&self) -> String {
        let at = http_date;
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
mod tests;
