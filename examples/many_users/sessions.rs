//! The sessions of the backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_refresh::BoxError;

use crate::backend::User;

/// The sessions in memory: a random id, which is the cookie, and the user that has logged in.
///
/// A backend for production also ends sessions by their age.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, User>>>);

impl Sessions {
    pub fn begin(&self, user: User) -> Result<String, BoxError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let id = format!("{:032x}", u128::from_ne_bytes(random));
        self.lock().insert(id.clone(), user);
        Ok(id)
    }

    pub fn user(&self, id: &str) -> Option<User> {
        self.lock().get(id).cloned()
    }

    pub fn end(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, User>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
