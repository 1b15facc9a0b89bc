//! Requests to origins that were not named, and their log lines.

use std::sync::Arc;

use http::uri::Scheme;
use http::{Response, StatusCode};

use super::{Origins, shown};
use crate::classify::Rejection;
use crate::lock::Lock;
use crate::target::Target;
#[cfg_attr(
    not(feature = "tracing"),
    allow(unused_imports, reason = "the macros expand to nothing")
)]
use crate::trace::{self, target};

/// A request to an origin that was not named.
#[derive(Debug)]
pub(crate) struct Unnamed {
    origin: Box<str>,
}

/// The unnamed origins that were reported. The clones of a layer share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reported(Arc<Lock<Vec<Box<str>>>>);

#[cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, reason = "the macros expand to nothing")
)]
impl Unnamed {
    pub(super) fn new(scheme: Option<&Scheme>, authority: &str, part: &'static str) -> Self {
        let origin = shown_origin(scheme.map_or("", Scheme::as_str), authority);
        trace::debug!(
            target: target::ORIGIN,
            origin,
            part,
            "no token attached: the origin of the request is not named"
        );
        Self { origin: origin.unwrap_or_default().into() }
    }

    /// Reports the first response of an origin that asks for a token.
    pub(crate) fn answered<B>(
        &self,
        origins: &Origins,
        credentials: Option<&str>,
        response: &Response<B>,
    ) {
        if response.status() != StatusCode::UNAUTHORIZED {
            return;
        }
        let rejection = Rejection::new(response, None);
        trace::change!(
            origins.reported.is_news(&self.origin), warning,
            target: target::ORIGIN,
            credentials,
            origin = &*self.origin,
            named = origins.shown(),
            status = response.status().as_u16(),
            challenge.error = rejection.error(),
            "request without a token answered with 401: its origin is not named; add `.origin(..)` to the layer if it may have the token"
        );
    }
}

impl Origins {
    /// Returns the origin of a target, if it is written as it was named.
    pub(crate) fn of_target(&self, target: Target) -> Option<String> {
        let origins = self.named.iter().map(super::named::Origin::written);
        let mut named = origins.filter(|(scheme, host)| target.is_at(scheme, host));
        named.next().map(|(scheme, host)| format!("{scheme}://{host}"))
    }

    /// Returns the named origins.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only logs show them"))]
    fn shown(&self) -> String {
        let origins = self.named.iter().map(super::named::Origin::written);
        let named = origins.map(|(scheme, host)| format!("{scheme}://{host}"));
        named.chain(self.any_https.then(|| "https://*".into())).collect::<Vec<_>>().join(", ")
    }
}

impl Reported {
    /// Returns whether an origin was not reported yet.
    fn is_news(&self, origin: &str) -> bool {
        let mut reported = self.0.lock();
        let is_news = reported.len() < MOST && !reported.iter().any(|it| **it == *origin);
        if is_news {
            reported.push(origin.into());
        }
        is_news
    }
}

/// Returns an origin to be shown: without userinfo, and without the scheme if that is empty. Returns `None` for an invalid authority.
pub(crate) fn shown_origin(scheme: &str, authority: &str) -> Option<String> {
    let host = shown(authority)?;
    Some(if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") })
}

/// The number of origins that a layer reports. The URLs of requests may come from others.
const MOST: usize = 64;
