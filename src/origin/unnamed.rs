//! Requests to origins that were not named, and their log lines.

use std::sync::Arc;

use http::Uri;
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

/// A request to an origin that was not named: its place among those that were asked, unless there are too many.
///
/// A number, because each request moves and drops the type that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unnamed(Option<u8>);

/// The origins of requests that no name gives. The clones of a layer share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<Lock<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Those that were not named, and whether that was reported.
    unnamed: Vec<(Arc<str>, bool)>,
    /// Those of rejected requests, by the number of their origin.
    rejected: Vec<(u32, Arc<str>)>,
}

#[cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, reason = "the macros expand to nothing")
)]
impl Origins {
    /// Notes a request to an origin that is not named.
    #[cold]
    pub(super) fn unnamed(
        &self,
        scheme: Option<&Scheme>,
        authority: &str,
        part: &'static str,
    ) -> Unnamed {
        let origin = shown_origin(scheme.map_or("", Scheme::as_str), authority);
        trace::debug!(
            target: target::ORIGIN,
            origin,
            part,
            "no token attached: the origin of the request is not named"
        );
        let origin = origin.unwrap_or_default();
        let unnamed = &mut self.asked.0.lock().unnamed;
        let place = unnamed.iter().position(|(known, _)| **known == *origin).or_else(|| {
            (unnamed.len() < MOST).then(|| {
                unnamed.push((origin.into(), false));
                unnamed.len() - 1
            })
        });
        Unnamed(place.and_then(|place| u8::try_from(place).ok()))
    }

    /// Reports the first response of an unnamed origin that asks for a token.
    #[cold]
    pub(crate) fn answered<B>(
        &self,
        Unnamed(place): Unnamed,
        credentials: Option<&str>,
        response: &Response<B>,
    ) {
        let Some(place) = place.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
            return;
        };
        let Some((origin, was_reported)) =
            self.asked.0.lock().unnamed.get_mut(usize::from(place)).map(|(origin, is_reported)| {
                (Arc::clone(origin), std::mem::replace(is_reported, true))
            })
        else {
            return;
        };
        let rejection = Rejection::new(response, None);
        trace::change!(
            !was_reported, warning,
            target: target::ORIGIN,
            credentials,
            origin = &*origin,
            named = self.shown(),
            status = response.status().as_u16(),
            challenge.error = rejection.error(),
            "request without a token answered with 401: its origin is not named; add `.origin(..)` to the layer if it may have the token"
        );
    }

    /// Notes the origin of a request that is sent again, for the log.
    pub(crate) fn note(&self, target: Target, uri: &Uri) {
        if self.of_target(target).is_none()
            && let Some(authority) = uri.authority()
            && let Some(origin) =
                shown_origin(uri.scheme_str().unwrap_or_default(), authority.as_str())
        {
            let rejected = &mut self.asked.0.lock().rejected;
            if rejected.len() < MOST {
                rejected.push((target.origin(), origin.into()));
            }
        }
    }

    /// Returns the origin of a target, if it is written as it was named, or was noted.
    pub(crate) fn of_target(&self, target: Target) -> Option<Arc<str>> {
        let origins = self.named.iter().map(super::named::Origin::written);
        let mut named = origins.filter(|(scheme, host)| target.is_at(scheme, host));
        if let Some((scheme, host)) = named.next() {
            return Some(format!("{scheme}://{host}").into());
        }
        let asked = self.asked.0.lock();
        let noted = asked.rejected.iter().find(|(number, _)| *number == target.origin());
        noted.map(|(_, origin)| Arc::clone(origin))
    }

    /// Returns the named origins.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only logs show them"))]
    fn shown(&self) -> String {
        let origins = self.named.iter().map(super::named::Origin::written);
        let named = origins.map(|(scheme, host)| format!("{scheme}://{host}"));
        named.chain(self.any_https.then(|| "https://*".into())).collect::<Vec<_>>().join(", ")
    }
}

/// Returns an origin to be shown: without userinfo, and without the scheme if that is empty. Returns `None` for an invalid authority.
pub(crate) fn shown_origin(scheme: &str, authority: &str) -> Option<String> {
    let host = shown(authority)?;
    Some(if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") })
}

/// The number of origins of each sort that a layer keeps for its log. The URLs of requests may come from others.
const MOST: usize = 64;
