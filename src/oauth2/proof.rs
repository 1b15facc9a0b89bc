//! The security tokens that a grant proves its right with, and the second request after one of them is refused.

use std::error::Error;
use std::fmt;

use super::endpoint::TokenEndpoint;
use super::request::Parameters;
use super::security_token::SecurityToken;
use super::token_request::TokenRequest;
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, Watch};
use crate::token::{Secret, TokenSet};

/// The security tokens of a grant.
#[derive(Clone, Debug)]
pub(super) struct Proofs {
    first: Proof,
    second: Option<Proof>,
    /// The error codes that may mean that a token is not accepted, besides those that deny the grant.
    refusals: &'static [&'static str],
}

/// A security token, and the parameters that it is sent in.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) name: &'static str,
    pub(super) type_name: Option<&'static str>,
    pub(super) token: SecurityToken,
}

impl Proofs {
    pub(super) fn new(first: Proof, refusals: &'static [&'static str]) -> Self {
        Self { first, second: None, refusals }
    }

    pub(super) fn set_second(&mut self, second: Proof) {
        self.second = Some(second);
    }

    /// Sends the request of the grant. If a token is refused, the request is sent once more with another one.
    pub(super) async fn send(
        &self,
        request: &TokenRequest,
        renewal: &Renewal,
    ) -> Result<TokenSet, TokenError> {
        let endpoint = &request.endpoint;
        let mut tokens = Vec::with_capacity(2);
        for proof in self.all() {
            tokens.push(proof.obtain(endpoint).await?);
        }
        let refusal = match self.send_once(request, &tokens, renewal).await {
            Err(error) if self.is_refusal(&error) => error,
            result => return result,
        };

        // ## Refused: the answer does not name the token.
        let mut others = Vec::with_capacity(2);
        for (proof, token) in self.all().zip(&tokens) {
            others.push(proof.obtain_other(endpoint, token).await?);
        }
        let has_other = others.first().is_some_and(Option::is_some);
        if others.iter().all(Option::is_none) {
            return Err(self.without_other(refusal));
        }
        let tokens: Vec<_> =
            others.into_iter().zip(tokens).map(|(other, token)| other.unwrap_or(token)).collect();
        match self.send_once(request, &tokens, renewal).await {
            Err(error) if self.is_refusal(&error) && !has_other => Err(self.without_other(error)),
            Err(error) if self.is_refusal(&error) => Err(self.refused_twice(error)),
            result => result,
        }
    }

    /// Returns the facts about a source that sends these tokens.
    pub(super) fn info(&self, endpoint: &TokenEndpoint) -> SourceInfo {
        // A fixed token stays refused.
        let info = endpoint.info().rotates(false).sending_no_refresh_token();
        let info = info.fresh_proof(!self.first.token.is_fixed());
        let watches: Vec<_> = self.all().filter_map(|proof| proof.token.watch()).collect();
        if watches.is_empty() {
            return info;
        }
        info.watched(Watch::new(move || watches.iter().any(Watch::has_changed)))
    }

    fn all(&self) -> impl Iterator<Item = &Proof> {
        std::iter::once(&self.first).chain(&self.second)
    }

    async fn send_once(
        &self,
        request: &TokenRequest,
        tokens: &[Secret],
        renewal: &Renewal,
    ) -> Result<TokenSet, TokenError> {
        let mut parameters = Parameters::default();
        for (proof, token) in self.all().zip(tokens) {
            parameters.push(proof.name, token.expose());
            if let Some(type_name) = proof.type_name {
                parameters.push(type_name, proof.token.type_uri());
            }
        }
        request.send_with(parameters, renewal).await
    }

    /// Returns whether a token may be at fault. A conditional denial asks for something else of the user.
    fn is_refusal(&self, error: &TokenError) -> bool {
        let is_listed = error.code().is_some_and(|code| self.refusals.contains(&code));
        let is_denial = error.is_denied() && !error.is_conditional_denial();
        !error.is_unsent() && (is_denial || error.is_misconfigured() && is_listed)
    }

    /// Returns the error for a token that its source cannot replace: only the user can.
    fn without_other(&self, refusal: TokenError) -> TokenError {
        let noun = self.first.noun();
        let message = format!(
            "{}; the {noun} may have expired, and its source has no other one",
            refusal.get_ref()
        );
        refusal.wrapped_as(message).into_denied()
    }

    fn refused_twice(&self, refusal: TokenError) -> TokenError {
        let noun = self.first.noun();
        let message = format!("{}; another {noun} was refused before", refusal.get_ref());
        refusal.wrapped_as(message)
    }
}

impl Proof {
    async fn obtain(&self, endpoint: &TokenEndpoint) -> Result<Secret, TokenError> {
        let noun = self.noun();
        let token = endpoint.within_timeout(&noun, self.token.current()).await;
        let token = token.map_err(|error| NoToken::wrap(error, format!("no {noun}")))?;
        self.check(token)
    }

    async fn obtain_other(
        &self,
        endpoint: &TokenEndpoint,
        refused: &Secret,
    ) -> Result<Option<Secret>, TokenError> {
        let noun = self.noun();
        let token = endpoint.within_timeout(&noun, self.token.other_than(refused)).await;
        let what = || format!("the {noun} was refused, and there is no newer one");
        token
            .map_err(|error| NoToken::wrap(error, what()))?
            .map(|token| self.check(token))
            .transpose()
    }

    fn check(&self, token: Secret) -> Result<Secret, TokenError> {
        if token.expose().is_empty() {
            return Err(TokenError::misconfigured(format!(
                "the {} is empty: if the user must log in, its closure must return `TokenError::denied`",
                self.noun()
            )));
        }
        Ok(token)
    }

    fn noun(&self) -> String {
        self.name.replace('_', " ")
    }
}

/// The error of the source of a token, with the use of that token.
#[derive(Debug)]
struct NoToken {
    what: String,
    error: TokenError,
}

impl NoToken {
    /// Kind, code and all else are those of the source's error.
    fn wrap(error: TokenError, what: String) -> TokenError {
        error.clone().wrapped_as(Self { what, error }).of_other_source()
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error.get_ref())
    }
}

impl Error for NoToken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
