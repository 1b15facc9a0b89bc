//! The settings of a layer, which its services and their futures share.

use std::fmt;
use std::sync::Arc;

use http::Request;

use crate::attach::Attach;
use crate::classify::Classify;
use crate::error::TokenError;
use crate::find::FindCredentials;
use crate::lock::Lock;
use crate::origin::{Carry, Origins, Unnamed};
use crate::skip::Skip;

pub(crate) struct Config<S, C, R> {
    pub(crate) find: S,
    pub(crate) origins: Origins,
    pub(crate) attach: Attach,
    pub(crate) classify: Arc<C>,
    pub(crate) retry: Arc<R>,
}

/// The part that the clones of one layered service share with their requests.
pub(crate) struct Layered<I, S, C, R> {
    pub(crate) config: Config<S, C, R>,
    /// A clone of the inner service, as it was when it was layered. A second attempt is sent through a clone of it.
    service: Lock<I>,
}

impl<I: Clone, S, C, R> Layered<I, S, C, R> {
    pub(crate) fn new(config: Config<S, C, R>, service: &I) -> Self {
        Self { config, service: Lock::new(service.clone()) }
    }

    /// Returns a service for a second attempt. It is not ready.
    pub(crate) fn service(&self) -> I {
        self.service.lock().clone()
    }
}

/// How a request is sent.
pub(crate) enum Admission<F> {
    /// With a token of the credentials that were found.
    WithToken(F),
    /// Unchanged.
    Untouched,
    /// Unchanged, because its origin is not named.
    Unnamed(Unnamed),
    /// Not at all.
    Refused(TokenError),
}

impl<S, C, R> Config<S, C, R> {
    #[cfg(feature = "pool")]
    pub(crate) fn map_find(self, map: impl FnOnce(S) -> S) -> Self {
        Self { find: map(self.find), ..self }
    }

    pub(crate) fn classifier<D: Classify>(self, classifier: D) -> Config<S, D, R> {
        let Self { find, origins, attach, retry, .. } = self;
        Config { find, origins, attach, classify: Arc::new(classifier), retry }
    }

    pub(crate) fn retry<T>(self, retry: T) -> Config<S, C, T> {
        let Self { find, origins, attach, classify, .. } = self;
        Config { find, origins, attach, classify, retry: Arc::new(retry) }
    }
}

impl<S: FindCredentials, C, R> Config<S, C, R> {
    /// Decides whether a request may carry a token, and finds its credentials. If it may, nothing is allocated.
    pub(crate) fn admit<B>(&self, request: &Request<B>) -> Admission<S::Found> {
        if request.extensions().get() == Some(&Skip::Token)
            || self.attach.carries_own(request.headers())
        {
            return Admission::Untouched;
        }
        if let Some(error) = self.attach.invalid() {
            return Admission::Refused(error.clone());
        }
        match self.origins.check(request.method(), request.uri(), request.headers()) {
            Carry::Yes => match self.find.find(request) {
                Ok(found) => found.map_or(Admission::Untouched, Admission::WithToken),
                Err(error) => Admission::Refused(error),
            },
            Carry::No => Admission::Untouched,
            Carry::Unnamed(unnamed) => Admission::Unnamed(unnamed),
            Carry::Refuse(error) => Admission::Refused(error),
        }
    }
}

impl<S: Clone, C, R> Clone for Config<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            find: self.find.clone(),
            origins: self.origins.clone(),
            attach: self.attach.clone(),
            classify: Arc::clone(&self.classify),
            retry: Arc::clone(&self.retry),
        }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for Config<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("credentials", &self.find)
            .field("origins", &self.origins)
            .field("attach", &self.attach)
            .finish_non_exhaustive()
    }
}
