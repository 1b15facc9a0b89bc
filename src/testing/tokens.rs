//! The tokens of a server. Pure: `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The handling of used refresh tokens (RFC 6749 §6, RFC 9700 §4.14.2).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::testing::{AuthorizationServer, Rotation};
///
/// let server = AuthorizationServer::builder().rotation(Rotation::Grace(Duration::from_secs(10))).build();
/// ```
#[doc(alias = "reuse")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotation {
    /// Each use spends the refresh token and returns its successor. Using a spent token revokes the whole family: the newest
    /// refresh token and every valid access token.
    #[default]
    Strict,
    /// As [`Strict`](Self::Strict), but for this time after its first use, a spent refresh token returns the same successor and
    /// another access token.
    Grace(Duration),
    /// The refresh token stays valid, and the answer has none.
    Never,
}

/// The settings.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) rotation: Rotation,
    pub(super) access_token_lifetime: Duration,
    pub(super) refresh_token_lifetime: Option<Duration>,
    pub(super) revokes_previous: bool,
    pub(super) scope: Option<String>,
}

/// All tokens issued so far.
pub(super) struct Tokens {
    rules: Rules,
    /// The first is for `client_credentials`. Each log-in adds one.
    families: Vec<Family>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    random: RandomState,
    pub(super) reuses: u64,
    pub(super) answered_again: u64,
    pub(super) families_revoked: u64,
}

struct Family {
    revoked: bool,
    scope: Option<String>,
    /// The tokens that may still be valid.
    access: Vec<String>,
}

/// An access token.
pub(super) struct Access {
    pub(super) number: u64,
    pub(super) family: usize,
    /// The audiences and resources that it was requested for, separated by spaces.
    pub(super) audience: String,
    expires_at: Duration,
    revoked: bool,
}

struct Refresh {
    number: u64,
    family: usize,
    expires_at: Option<Duration>,
    spent: Option<Spent>,
    uses: u64,
}

struct Spent {
    at: Duration,
    successor: String,
}

/// The tokens of a grant.
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) scope: Option<String>,
}

/// The reason why a grant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Unknown,
    Expired,
    Revoked,
    /// The token was spent. Its family is now revoked.
    Reused,
    /// The requested scope exceeds the granted one.
    Scope,
}

impl Tokens {
    pub(super) fn new(rules: Rules) -> Self {
        let scope = rules.scope.clone();
        Self {
            rules,
            families: vec![Family::new(scope)],
            access: HashMap::new(),
            refresh: HashMap::new(),
            random: RandomState::new(),
            reuses: 0,
            answered_again: 0,
            families_revoked: 0,
        }
    }

    /// Logs a user in with the scope of the server: a new family with its first refresh token.
    pub(super) fn log_in(&mut self, now: Duration) -> Granted {
        self.begin_family(now, self.rules.scope.clone())
    }

    /// Logs a user in with the scope that the client requests.
    pub(super) fn log_in_for(
        &mut self,
        now: Duration,
        scope: Option<&str>,
    ) -> Result<Granted, Denied> {
        let scope = narrow(self.rules.scope.as_deref(), scope)?;
        Ok(self.begin_family(now, scope))
    }

    fn begin_family(&mut self, now: Duration, scope: Option<String>) -> Granted {
        let family = self.families.len();
        self.families.push(Family::new(scope.clone()));
        let refresh_token = self.add_refresh_token(now, family);
        self.grant(now, family, Some(refresh_token), scope)
    }

    /// Issues an access token for the client itself, and no refresh token (RFC 6749 §4.4.3).
    pub(super) fn for_client(
        &mut self,
        now: Duration,
        scope: Option<&str>,
    ) -> Result<Granted, Denied> {
        let scope = narrow(self.rules.scope.as_deref(), scope)?;
        Ok(self.grant(now, 0, None, scope))
    }

    /// Issues a further access token to the user of a valid one, and no refresh token (RFC 8693 §2.2.1).
    pub(super) fn exchange(
        &mut self,
        now: Duration,
        subject: &str,
        audience: String,
        scope: Option<&str>,
    ) -> Result<Granted, Denied> {
        let subject = self.access.get(subject).ok_or(Denied::Unknown)?;
        if subject.revoked {
            return Err(Denied::Revoked);
        }
        if now >= subject.expires_at {
            return Err(Denied::Expired);
        }
        let family = subject.family;
        let scope = narrow(self.families[family].scope.as_deref(), scope)?;
        let access_token = self.add_access_token(now, family, audience);
        Ok(Granted { access_token, refresh_token: None, scope })
    }

    /// Uses a refresh token.
    pub(super) fn refresh(
        &mut self,
        now: Duration,
        token: &str,
        scope: Option<&str>,
    ) -> Result<Granted, Denied> {
        let Some(used) = self.refresh.get_mut(token) else {
            return Err(Denied::Unknown);
        };
        used.uses += 1;
        let number = used.family;
        let family = &self.families[number];

        if let Some(spent) = &used.spent {
            let again = match self.rules.rotation {
                Rotation::Grace(window) => now.saturating_sub(spent.at) < window,
                Rotation::Strict | Rotation::Never => false,
            };
            if !again {
                self.reuses += 1;
                if !family.revoked {
                    self.families_revoked += 1;
                    self.revoke_family(number);
                }
                return Err(Denied::Reused);
            }
            if family.revoked {
                return Err(Denied::Revoked);
            }
            let scope = narrow(family.scope.as_deref(), scope)?;
            let successor = spent.successor.clone();
            self.answered_again += 1;
            return Ok(self.grant(now, number, Some(successor), scope));
        }

        if family.revoked {
            return Err(Denied::Revoked);
        }
        if used.expires_at.is_some_and(|at| now >= at) {
            return Err(Denied::Expired);
        }
        // A request for too much spends no token.
        let scope = narrow(family.scope.as_deref(), scope)?;
        if self.rules.rotation == Rotation::Never {
            return Ok(self.grant(now, number, None, scope));
        }
        let successor = self.add_refresh_token(now, number);
        if let Some(used) = self.refresh.get_mut(token) {
            used.spent = Some(Spent { at: now, successor: successor.clone() });
        }
        Ok(self.grant(now, number, Some(successor), scope))
    }

    fn grant(
        &mut self,
        now: Duration,
        family: usize,
        refresh_token: Option<String>,
        scope: Option<String>,
    ) -> Granted {
        if self.rules.revokes_previous {
            self.revoke_access_tokens_of(family);
        }
        let access_token = self.add_access_token(now, family, String::new());
        Granted { access_token, refresh_token, scope }
    }

    fn add_access_token(&mut self, now: Duration, family: usize, audience: String) -> String {
        let number = self.access_tokens_issued() + 1;
        let token = self.random_token("at", number);
        let access = Access {
            number,
            family,
            audience,
            expires_at: now.saturating_add(self.rules.access_token_lifetime),
            revoked: false,
        };
        self.access.insert(token.clone(), access);
        self.families[family].access.push(token.clone());
        token
    }

    fn add_refresh_token(&mut self, now: Duration, family: usize) -> String {
        let number = self.refresh.len() as u64 + 1;
        let token = self.random_token("rt", number);
        let refresh = Refresh {
            number,
            family,
            expires_at: self
                .rules
                .refresh_token_lifetime
                .map(|lifetime| now.saturating_add(lifetime)),
            spent: None,
            uses: 0,
        };
        self.refresh.insert(token.clone(), refresh);
        token
    }

    /// Returns a token with a number, for readable logs, and a random part, which cannot be guessed.
    fn random_token(&self, kind: &str, number: u64) -> String {
        let first = self.random.hash_one((kind, number, 1));
        let second = self.random.hash_one((kind, number, 2));
        format!("{kind}-{number}-{first:016x}{second:016x}")
    }

    /// Returns a valid access token.
    pub(super) fn live(&self, now: Duration, access_token: &str) -> Option<&Access> {
        self.issued(access_token).filter(|access| !access.revoked && now < access.expires_at)
    }

    pub(super) fn issued(&self, access_token: &str) -> Option<&Access> {
        self.access.get(access_token)
    }

    /// Returns whether this refresh token is valid and unspent.
    pub(super) fn is_unspent(&self, now: Duration, refresh_token: &str) -> bool {
        self.refresh.get(refresh_token).is_some_and(|refresh| {
            refresh.spent.is_none()
                && !self.families[refresh.family].revoked
                && refresh.expires_at.is_none_or(|at| now < at)
        })
    }

    pub(super) fn revoke_access_token(&mut self, access_token: &str) -> bool {
        match self.access.get_mut(access_token) {
            Some(access) => !std::mem::replace(&mut access.revoked, true),
            None => false,
        }
    }

    pub(super) fn revoke_all_access_tokens(&mut self) {
        for family in 0..self.families.len() {
            self.revoke_access_tokens_of(family);
        }
    }

    /// Revokes the family of a refresh token (RFC 7009 §2.1).
    pub(super) fn revoke_refresh_token(&mut self, refresh_token: &str) -> bool {
        let Some(family) = self.refresh.get(refresh_token).map(|found| found.family) else {
            return false;
        };
        let was_alive = !self.families[family].revoked;
        self.revoke_family(family);
        was_alive
    }

    fn revoke_family(&mut self, family: usize) {
        self.families[family].revoked = true;
        self.revoke_access_tokens_of(family);
    }

    fn revoke_access_tokens_of(&mut self, family: usize) {
        for token in std::mem::take(&mut self.families[family].access) {
            self.revoke_access_token(&token);
        }
    }

    pub(super) fn access_tokens_issued(&self) -> u64 {
        self.access.len() as u64
    }

    pub(super) fn uses_of(&self, refresh_token: &str) -> u64 {
        self.refresh.get(refresh_token).map_or(0, |refresh| refresh.uses)
    }

    pub(super) fn uses(&self) -> BTreeMap<u64, u64> {
        self.refresh.values().map(|refresh| (refresh.number, refresh.uses)).collect()
    }
}

impl Family {
    fn new(scope: Option<String>) -> Self {
        Self { revoked: false, scope, access: Vec::new() }
    }
}

/// Returns the scope of a request for `asked` if at most `granted` is allowed (RFC 6749 §3.3, §6).
fn narrow(granted: Option<&str>, asked: Option<&str>) -> Result<Option<String>, Denied> {
    let Some(asked) = asked else {
        return Ok(granted.map(str::to_owned));
    };
    let Some(granted) = granted else {
        return Ok(Some(asked.to_owned()));
    };
    let within = asked.split(' ').all(|word| granted.split(' ').any(|other| other == word));
    match within {
        true => Ok(Some(asked.to_owned())),
        false => Err(Denied::Scope),
    }
}
