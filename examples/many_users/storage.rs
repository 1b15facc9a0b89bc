//! The sessions of the backend and the tokens of its users, in memory or in PostgreSQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Config, NoTls};
use tower_refresh::BoxError;
use tower_refresh::store::PostgresStore;

use crate::backend::User;

#[derive(Clone)]
pub struct Storage {
    pub sessions: Sessions,
    /// Makes the store of each user with `for_name`. Without it, tokens are in memory.
    pub tokens: Option<PostgresStore>,
}

impl Storage {
    pub fn in_memory() -> Self {
        Self { sessions: Sessions::Memory(Arc::default()), tokens: None }
    }

    /// Uses the tables `many_users_sessions` and `many_users_tokens`, and empties them first: each run of the example has another
    /// authorization server.
    pub async fn in_postgres(url: &str) -> Result<Self, BoxError> {
        let config: Config = url.parse()?;
        // Occupied for the time of a statement, so that ten connections are enough for thousands of users.
        let database = Pool::builder(Manager::new(config.clone(), NoTls)).max_size(10).build()?;
        database.get().await?.batch_execute(SET_UP).await?;
        let tokens = PostgresStore::new(database.clone(), "of each user")?
            .table("public", "many_users_tokens")?
            .listen_with(config, NoTls);
        tokens.migrate().await?;
        Ok(Self { sessions: Sessions::Postgres(database), tokens: Some(tokens) })
    }
}

/// A random id, which is the cookie, and the user that has logged in.
///
/// A backend for production also ends sessions by their age, and stores a hash of the id.
#[derive(Clone)]
pub enum Sessions {
    Memory(Arc<Mutex<HashMap<String, User>>>),
    Postgres(Pool),
}

impl Sessions {
    pub async fn begin(&self, user: User) -> Result<String, BoxError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let id = format!("{:032x}", u128::from_ne_bytes(random));
        match self {
            Self::Memory(sessions) => drop(lock(sessions).insert(id.clone(), user)),
            Self::Postgres(database) => {
                let statement = "INSERT INTO many_users_sessions VALUES ($1, $2)";
                database.get().await?.execute(statement, &[&id, &&*user.0]).await?;
            }
        }
        Ok(id)
    }

    pub async fn user(&self, id: &str) -> Result<Option<User>, BoxError> {
        match self {
            Self::Memory(sessions) => Ok(lock(sessions).get(id).cloned()),
            Self::Postgres(database) => {
                let statement = "SELECT user_id FROM many_users_sessions WHERE id = $1";
                let row = database.get().await?.query_opt(statement, &[&id]).await?;
                Ok(row.map(|row| User(row.get::<_, &str>(0).into())))
            }
        }
    }

    pub async fn end(&self, id: &str) -> Result<(), BoxError> {
        match self {
            Self::Memory(sessions) => drop(lock(sessions).remove(id)),
            Self::Postgres(database) => {
                let statement = "DELETE FROM many_users_sessions WHERE id = $1";
                database.get().await?.execute(statement, &[&id]).await?;
            }
        }
        Ok(())
    }
}

fn lock(sessions: &Mutex<HashMap<String, User>>) -> MutexGuard<'_, HashMap<String, User>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

const SET_UP: &str = "
    DROP TABLE IF EXISTS many_users_sessions, many_users_tokens;
    CREATE TABLE many_users_sessions (id text PRIMARY KEY, user_id text NOT NULL);
";
