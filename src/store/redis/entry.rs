//! The entry of one grant in Redis.
//!
//! It is one hash under one key:
//!
//! | Field | Content |
//! |---|---|
//! | `record` | the record, as JSON |
//! | `write_id` | the write id of the record |
//! | `run` | the run of the server in which the record was written |
//! | `owner` | the owner token of the lock's holder |
//! | `lease_until_ms` | the end of the lease, by the server's clock |
//! | `lease_ms` | the length of the lease when it was taken or renewed |
//! | `fence` | how often the lock was taken |
//!
//! Each change is one script, so that nothing comes between its parts. The scripts are sent each time (`EVAL`): they are short,
//! a server that has lost its script cache is no special case, and one permission is enough.

use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;

use super::connection::Connector;
use crate::store::lease::{Acquired, Leased};
use crate::store::{StoreError, StoredTokens, WriteId};

/// The entry of one grant, with the limits of its store.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) connector: Arc<Connector>,
    pub(super) key: String,
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
}

/// The fields that belong to the record.
pub(super) struct Loaded {
    pub(super) record: Option<Vec<u8>>,
    pub(super) write_id: Option<String>,
    /// True if the server has restarted or changed its role since the record was written.
    pub(super) is_of_another_run: bool,
}

impl Entry {
    /// Takes the lock, unless another owner holds it.
    pub(super) async fn acquire(&self, owner: WriteId) -> Result<Acquired, StoreError> {
        let (is_taken, number) = self.run(ACQUIRE, &self.lease_of(owner), self.timeout).await?;
        Ok(if is_taken {
            Acquired::Taken(number)
        } else {
            Acquired::HeldFor(Duration::from_millis(number))
        })
    }

    pub(super) async fn load(&self) -> Result<Loaded, StoreError> {
        let (record, write_id, written, answering): (_, _, Option<String>, String) =
            self.run::<_, &str>(LOAD, &[], self.timeout).await?;
        Ok(Loaded { record, write_id, is_of_another_run: written != Some(answering) })
    }

    /// Saves a record if the stored one has the write id `replaces`. Returns `saved`, `conflict` or `unreadable`.
    pub(super) async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<String, StoreError> {
        let write_id = record.write_id().to_string();
        let replaces = replaces.map(|replaces| replaces.to_string()).unwrap_or_default();
        let json = record.to_json()?;
        let has_open_intent = if record.has_open_intent() { "1" } else { "0" };
        let arguments: [&[u8]; 4] =
            [write_id.as_bytes(), replaces.as_bytes(), &json, has_open_intent.as_bytes()];
        self.run(SAVE, &arguments, self.timeout).await
    }

    /// Returns the name that messages use for the entry.
    pub(super) fn describe(&self) -> String {
        format!("the key `{}` of {}", self.key, self.connector.place())
    }

    fn lease_of(&self, owner: WriteId) -> [String; 2] {
        [owner.to_string(), self.lease.as_millis().to_string()]
    }

    async fn run<T: FromRedisValue, A: AsRef<[u8]>>(
        &self,
        script: &str,
        arguments: &[A],
        within: Duration,
    ) -> Result<T, StoreError> {
        self.connector.run(script, &self.key, arguments, within).await
    }
}

impl Leased for Entry {
    fn lease(&self) -> Duration {
        self.lease
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn renew(&self, owner: WriteId, within: Duration) -> Result<bool, StoreError> {
        self.run(RENEW, &self.lease_of(owner), within).await
    }

    async fn release(&self, owner: WriteId) -> Result<bool, StoreError> {
        self.run(RELEASE, &[owner.to_string()], self.timeout).await
    }
}

macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("scripts/prelude.lua"), include_str!(concat!("scripts/", $file)))
    };
}

const ACQUIRE: &str = script!("acquire.lua");
const RENEW: &str = script!("renew.lua");
const RELEASE: &str = script!("release.lua");
const LOAD: &str = script!("load.lua");
const SAVE: &str = script!("save.lua");
