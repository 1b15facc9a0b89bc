//! How a request finds its credentials.

use http::Request;

use crate::credentials::Credentials;
use crate::error::TokenError;

/// Finds the credentials of a request.
///
/// [`Credentials`] are the same for all requests. With the feature `pool`, `Keyed` finds those of the key that a request names.
/// `FindCredentials` is the bound of the parameter `S` of [`RefreshLayer`](crate::RefreshLayer) and [`Refresh`](crate::Refresh), which is
/// `Credentials` by default.
///
/// Sealed: this crate implements it. Use it as a bound for code that takes a layer with any credentials.
///
/// # Examples
///
/// ```
/// use tower_refresh::{FindCredentials, RefreshLayer};
///
/// fn for_the_api<S: FindCredentials>(layer: RefreshLayer<S>) -> RefreshLayer<S> {
///     layer.replay_limit(1024 * 1024)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not find the credentials of a request",
    label = "expected `Credentials`, or `Keyed` with the feature `pool`",
    note = "the parameter `S` of `RefreshLayer` and `Refresh` is not the token source: leave it out, and it is `Credentials`"
)]
pub trait FindCredentials: sealed::Find {}

impl FindCredentials for Credentials {}

impl sealed::Find for Credentials {
    type Found = ();

    fn find<B>(&self, _request: &Request<B>) -> Result<Option<()>, TokenError> {
        Ok(Some(()))
    }

    fn found<'a>(&'a self, _found: &'a ()) -> &'a Credentials {
        self
    }

    fn name(&self) -> Option<&str> {
        Some(Credentials::name(self))
    }

    fn count_untouched(&self, is_rejected: bool) {
        self.metrics().untouched(is_rejected);
    }

    fn count_not_sent(&self) {
        self.metrics().not_sent();
    }
}

pub(crate) mod sealed {
    use super::{Credentials, Request, TokenError};

    #[expect(
        unnameable_types,
        reason = "a trait without a public name cannot be implemented elsewhere"
    )]
    pub trait Find {
        /// The value that a request keeps until it ends, so that its answer is reported to the same credentials.
        ///
        /// Nothing if there is one for all, so that it costs nothing: no reference is counted.
        type Found: Send + Sync;

        /// Returns the credentials of a request, or `None` if it is to be sent without a token.
        ///
        /// # Errors
        ///
        /// If the request is not to be sent.
        fn find<B>(&self, request: &Request<B>) -> Result<Option<Self::Found>, TokenError>;

        /// Returns the credentials that `find` has found.
        fn found<'a>(&'a self, found: &'a Self::Found) -> &'a Credentials;

        /// Returns the name of the credentials for logs, if they are the same for all requests.
        fn name(&self) -> Option<&str> {
            None
        }

        /// Counts a request that is sent without a token, and whether its origin is not named and asks for one.
        fn count_untouched(&self, is_rejected: bool);

        /// Counts a request that is not sent, because it has no credentials.
        fn count_not_sent(&self);
    }
}
