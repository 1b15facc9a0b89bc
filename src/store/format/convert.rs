//! The conversion between the stored form and a record of the ledger.

use std::time::Duration;

use super::{Body, Content, FORMAT, Sensitive, StoredSet, StoredTokens};
use crate::grant::record::{
    Binding, Current, Fields, History, Record, UnknownFields, milliseconds_at, time_of_day,
};
use crate::store::error::StoreError;
use crate::token::{AccessToken, Secret, TokenSet};

impl StoredTokens {
    /// Returns the record of the ledger.
    pub(in crate::store) fn to_record(&self) -> Result<Record, StoreError> {
        let content = self.content()?;
        let unknown = UnknownFields {
            record: self.other.clone(),
            content: content.other.clone(),
            tokens: content.tokens.as_ref().map(|set| set.other.clone()).unwrap_or_default(),
        };
        Ok(Record {
            write_id: self.write_id,
            epoch: self.epoch,
            login_epoch: content.login_epoch.unwrap_or(self.epoch),
            revision: self.revision,
            binding: self.binding.clone().shared(),
            current: content.tokens.as_ref().map(StoredSet::to_current).transpose()?,
            login_ms: content.session_began_ms,
            is_logged_out: content.is_forgotten,
            sent: content.intent.clone().map(Box::new),
            refused: content.denied.map(Box::new),
            history: (!content.seen.is_empty() || !content.spent.is_empty()).then(|| {
                Box::new(History {
                    firsts: content.seen.clone(),
                    superseded: content.spent.clone(),
                })
            }),
            key: content.fingerprint_key,
            is_doubted: self.is_doubted,
            unknown: (unknown != UnknownFields::default()).then(|| Box::new(unknown)),
        })
    }

    /// Returns the stored form of a record.
    pub(in crate::store) fn of(record: &Record) -> Self {
        let unknown = record.unknown.as_deref().cloned().unwrap_or_default();
        Self {
            version: FORMAT,
            write_id: record.write_id,
            epoch: record.epoch,
            revision: record.revision,
            binding: Binding::clone(&record.binding),
            body: Body::Plain(Box::new(Content {
                fingerprint_key: record.key,
                tokens: record
                    .current
                    .as_ref()
                    .map(|current| StoredSet::of(current, unknown.tokens)),
                session_began_ms: record.login_ms,
                login_epoch: Some(record.login_epoch).filter(|epoch| *epoch != record.epoch),
                is_forgotten: record.is_logged_out,
                intent: record.sent.as_deref().cloned(),
                denied: record.refused.as_deref().copied(),
                seen: record.firsts().to_vec(),
                spent: record.superseded().to_vec(),
                other: unknown.content,
            })),
            is_doubted: false,
            other: unknown.record,
        }
    }
}

impl StoredSet {
    fn of(current: &Current, other: Fields) -> Self {
        let tokens = &current.tokens;
        let sensitive = |secret: &str| Sensitive(Secret::new(secret));
        Self {
            access_token: sensitive(tokens.access_token().expose_secret()),
            received_at_ms: current.received_ms,
            expires_at_ms: current.expires_at_ms(),
            refresh_at_ms: current.refresh_at_ms(),
            refresh_token: tokens.refresh_token().map(|token| sensitive(token.expose_secret())),
            refresh_token_expires_at_ms: tokens.refresh_token_expires_at().map(milliseconds_at),
            scope: tokens.scope().map(str::to_owned),
            id_token: tokens.id_token().map(sensitive),
            extra: tokens
                .extras()
                .map(|(name, value)| (name.to_owned(), sensitive(value)))
                .collect(),
            access_revision: current.access_revision,
            other,
        }
    }

    fn to_current(&self) -> Result<Current, StoreError> {
        let access_token = AccessToken::new(self.access_token.0.expose())
            .map_err(|error| StoreError::unreadable(error.get_ref().to_string()))?;
        let mut tokens = TokenSet::new(access_token);
        if let Some(at) = self.expires_at_ms {
            tokens = tokens.with_expires_at(time_of_day(at));
        }
        if let Some(at) = self.refresh_at_ms {
            let after = at.saturating_sub(self.received_at_ms);
            tokens = tokens.with_refresh_in(Duration::from_millis(after));
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
        Ok(Current {
            tokens,
            received_ms: self.received_at_ms,
            access_revision: self.access_revision,
        })
    }
}
