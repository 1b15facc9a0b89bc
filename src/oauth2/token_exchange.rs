//! The token exchange grant.

use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::proof::{Proof, Proofs};
use super::security_token::SecurityToken;
use super::token_request::{TokenRequest, setters};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// The token exchange grant (RFC 8693): the client exchanges a token of a user, the *subject token*, for one that it may use on
/// the user's behalf, or for a token of another kind.
///
/// The [module](super#on-behalf-of-a-user) has a complete example.
///
/// # Examples
///
/// ```
/// use tower_refresh::Credentials;
/// use tower_refresh::oauth2::{TokenEndpoint, TokenExchangeGrant};
///
/// fn on_behalf_of(user: &Credentials, endpoint: TokenEndpoint) -> TokenExchangeGrant {
///     TokenExchangeGrant::new(endpoint, user.clone())
///         .audience("billing")
///         .scope("invoices:read")
/// }
/// ```
///
/// # A subject token that is not accepted
///
/// A server answers `invalid_request` to a subject or actor token that it does not accept (RFC 8693 §2.2.2). Other servers answer
/// `invalid_grant` or `invalid_token`. The sources of the tokens are then asked for other ones. With another token the request is
/// sent once more, and the second answer counts. Without one, the error is [denied](TokenError::is_denied): the user must log in.
///
/// If the other token comes from [`Credentials`](crate::Credentials), it costs a refresh of the user's tokens. An endpoint that refuses
/// it as well is treated like a resource server that rejects a token right after a refresh. For a while, its refusals for the same
/// audience, resource and scope start no further refresh, and its refusals for all audiences together start a limited number.
///
/// If the source of a token fails, its error keeps kind and code, and nothing is exchanged. For example, the error is denied if the
/// user must log in for the subject token.
///
/// A denied exchange is tried again every five minutes if requests need a token, unless the subject token is fixed. If the
/// subject token comes from [`Credentials`](crate::Credentials), it is tried again as soon as they have other tokens, for example
/// after a log-in, or as soon as a file that they read has changed.
///
/// # The issued token
///
/// [`TokenSet::extra`] with the name `issued_token_type` returns the type of the issued token.
///
/// The token type `N_A` means that the issued token is not an access token (RFC 8693 §2.2.1). That is an error unless the
/// program has asked for such a token with [`requested_token_type`](Self::requested_token_type): a
/// [`RefreshLayer`](crate::RefreshLayer) would send the token to a resource server. Use a token of another type as the
/// [`SecurityToken`] of a further grant.
///
/// # Refresh tokens
///
/// Few servers issue a refresh token (RFC 8693 §2.2.1). It is kept in the token set, for
/// [`Revocation`](super::Revocation), and not sent: the next token comes from another exchange, so that the access ends with that
/// of the user. For access that outlives the subject token, put the refresh token first:
///
/// ```
/// use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint, TokenExchangeGrant};
/// use tower_refresh::{Credentials, TokenSource as _};
///
/// fn offline(user: &Credentials, endpoint: TokenEndpoint) -> Credentials {
///     let exchange = TokenExchangeGrant::new(endpoint.clone(), user.clone()).audience("billing");
///     Credentials::new(RefreshTokenGrant::new(endpoint, "").or_else(exchange))
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[doc(alias("impersonation", "delegation", "sts"))]
pub struct TokenExchangeGrant {
    request: TokenRequest,
    proofs: Proofs,
}

impl TokenExchangeGrant {
    /// Creates a source for an endpoint and a subject token: a string, an [`AccessToken`](crate::AccessToken), the
    /// [`Credentials`](crate::Credentials) of the user, or any other [`SecurityToken`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{SecurityToken, TokenEndpoint, TokenExchangeGrant};
    ///
    /// fn exchange(endpoint: TokenEndpoint, id_token: String) -> TokenExchangeGrant {
    ///     let subject = SecurityToken::new(id_token).token_type("urn:ietf:params:oauth:token-type:id_token");
    ///     TokenExchangeGrant::new(endpoint, subject)
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint, subject: impl Into<SecurityToken>) -> Self {
        let subject = Proof {
            name: "subject_token",
            type_name: Some("subject_token_type"),
            token: subject.into(),
        };
        Self {
            request: TokenRequest::new(endpoint, "urn:ietf:params:oauth:grant-type:token-exchange"),
            proofs: Proofs::new(subject, &["invalid_request", "invalid_token"]),
        }
    }

    /// Sets the actor token: a token of the party that acts for the subject (RFC 8693 §1.1), such as the program's own.
    ///
    /// Without an actor token, the issued token does not show that another party acts.
    pub fn actor(mut self, actor: impl Into<SecurityToken>) -> Self {
        self.proofs.set_second(Proof {
            name: "actor_token",
            type_name: Some("actor_token_type"),
            token: actor.into(),
        });
        self
    }

    /// Requests a token for a service by its logical name (RFC 8693 §2.1). Can be called several times.
    ///
    /// For a service that is named by a URI, see [`resource`](Self::resource).
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.param("audience", audience)
    }

    /// Requests a type of token (RFC 8693 §2.1), such as `urn:ietf:params:oauth:token-type:jwt`. Without one, the server chooses.
    pub fn requested_token_type(self, token_type: impl Into<String>) -> Self {
        self.param("requested_token_type", token_type)
    }

    setters!();
}

impl TokenSource for TokenExchangeGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        for resource in self.request.parameters.all("resource") {
            check_resource(resource)?;
        }
        self.proofs.send(&self.request, &renewal).await
    }

    fn info(&self) -> SourceInfo {
        self.proofs.info(&self.request.endpoint)
    }
}

/// Checks that a resource is an absolute URI without a fragment (RFC 8693 §2.1, RFC 3986 §3.1).
fn check_resource(resource: &str) -> Result<(), TokenError> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let parts =
        resource.split_once(':').filter(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty());
    if parts.is_some() && !resource.contains('#') {
        return Ok(());
    }
    Err(TokenError::misconfigured(
        "the parameter `resource` must be an absolute URI without a fragment, such as `https://api.example.com`; for the name of a service use `audience`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_must_be_an_absolute_uri_without_fragment() {
        for good in ["https://api.example.com", "urn:example:api", "api://1f2e/x?a=b", "a+b-c.1:x"]
        {
            check_resource(good).unwrap();
        }
        for bad in [
            "",
            "billing",
            "/v1",
            "//api.example.com",
            "https:",
            "1a:b",
            "https://a.example/#b",
            "a b:c",
        ] {
            let error = check_resource(bad).unwrap_err();
            assert!(error.is_misconfigured(), "{bad}");
            assert!(error.to_string().contains("`audience`"), "{error}");
        }
    }
}
