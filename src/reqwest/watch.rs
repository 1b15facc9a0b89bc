//! Watches a request that reqwest sends, for the token endpoint.

use http::Extensions;

#[cfg(feature = "oauth2")]
pub(super) use crate::oauth2::Watch;

/// Returns the watch of a token request, and `None` for any other request.
#[cfg(feature = "oauth2")]
pub(super) fn watch(extensions: &Extensions) -> Option<Watch> {
    extensions.get().map(crate::oauth2::WasSent::watch)
}

/// Without the feature `oauth2` there are no token requests, and this type has no values.
#[cfg(not(feature = "oauth2"))]
#[derive(Clone)]
pub(super) enum Watch {}

#[cfg(not(feature = "oauth2"))]
impl Watch {
    pub(super) fn sending(&self) {
        match *self {}
    }

    pub(super) fn redirected(&self) {
        match *self {}
    }
}

#[cfg(not(feature = "oauth2"))]
pub(super) fn watch(_: &Extensions) -> Option<Watch> {
    None
}
