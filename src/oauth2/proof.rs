//! The security tokens that a grant proves its right with, and the second request after one of them is refused.

use std::error::Error;
use std::fmt;

use super::endpoint::TokenEndpoint;
use super::request::Parameters;
use super::security_token::{Other, Proven, SecurityToken};
use super::token_request::TokenRequest;
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, Watch};
use crate::target::Target;
use crate::token::TokenSet;

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
        let target = request.target();
        let refusal = match self.send_once(request, &tokens, renewal).await {
            Err(error) if self.is_refusal(&error) => error,
            result => {
                for (proof, token) in self.all().zip(&tokens).filter(|_| result.is_ok()) {
                    proof.token.judged(token, target, false, true);
                }
                return result;
            }
        };

        // ## Refused: the answer does not name the token.
        let mut others = Vec::with_capacity(2);
        for (proof, token) in self.all().zip(&tokens) {
            others.push(proof.obtain_other(endpoint, token, target).await?);
        }
        let is_token = |other: &Other| matches!(other, Other::Token(_));
        let has_other = !matches!(others.first(), Some(Other::Nothing));
        if !others.iter().any(is_token) {
            let refused = if has_other { Self::refused_twice } else { Self::without_other };
            return Err(refused(self, refusal));
        }
        let are_other: Vec<_> = others.iter().map(is_token).collect();
        let tokens: Vec<_> = others
            .into_iter()
            .zip(tokens)
            .map(|(other, token)| if let Other::Token(other) = other { other } else { token })
            .collect();
        let result = self.send_once(request, &tokens, renewal).await;
        let is_refused = result.as_ref().is_err_and(|error| self.is_refusal(error));
        if result.is_ok() || is_refused {
            for ((proof, token), is_other) in self.all().zip(&tokens).zip(are_other) {
                proof.token.judged(token, target, is_other, !is_refused);
            }
        }
        match result {
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
        tokens: &[Proven],
        renewal: &Renewal,
    ) -> Result<TokenSet, TokenError> {
        let mut parameters = Parameters::default();
        for (proof, token) in self.all().zip(tokens) {
            parameters.push(proof.name, token.secret.expose());
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
    async fn obtain(&self, endpoint: &TokenEndpoint) -> Result<Proven, TokenError> {
        let noun = self.noun();
        let token = endpoint.within_timeout(&noun, self.token.current()).await;
        let token = token.map_err(|error| NoToken::wrap(error, format!("no {noun}")))?;
        self.check(token)
    }

    async fn obtain_other(
        &self,
        endpoint: &TokenEndpoint,
        refused: &Proven,
        by: Target,
    ) -> Result<Other, TokenError> {
        let noun = self.noun();
        let token = endpoint.within_timeout(&noun, self.token.other_than(refused, by)).await;
        let what = || format!("the {noun} was refused, and there is no newer one");
        Ok(match token.map_err(|error| NoToken::wrap(error, what()))? {
            Other::Token(token) => Other::Token(self.check(token)?),
            other => other,
        })
    }

    fn check(&self, token: Proven) -> Result<Proven, TokenError> {
        if token.secret.expose().is_empty() {
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
