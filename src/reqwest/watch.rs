//! What a token endpoint must know about a request that reqwest sends.

use http::Extensions;

/// Reports on one token request. Without the feature `oauth2` there are no token requests, and this type has no values.
#[derive(Clone)]
pub(super) struct Watch {
    #[cfg(feature = "oauth2")]
    inner: crate::oauth2::Watch,
    #[cfg(not(feature = "oauth2"))]
    inner: std::convert::Infallible,
}

#[cfg(feature = "oauth2")]
impl Watch {
    /// Returns a `Watch` if the request is a token request.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let inner = extensions.get().map(crate::oauth2::WasSent::watch)?;
        Some(Self { inner })
    }

    /// Reports that reqwest has begun to send the request.
    pub(super) fn sending(&self) {
        self.inner.sending();
    }

    /// Reports that the response is that to another request, because reqwest has followed a redirect.
    pub(super) fn redirected(&self) {
        self.inner.redirected();
    }
}

#[cfg(not(feature = "oauth2"))]
impl Watch {
    pub(super) fn of(_: &Extensions) -> Option<Self> {
        None
    }

    pub(super) fn sending(&self) {
        match self.inner {}
    }

    pub(super) fn redirected(&self) {
        match self.inner {}
    }
}
