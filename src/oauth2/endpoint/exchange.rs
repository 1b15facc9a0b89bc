//! One token request and its answer.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

use super::TokenEndpoint;
use super::body::Reading;
use super::sent::{Sending, causes, is_of_hyper_util};
use crate::error::TokenError;
use crate::limit::Limit;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::request::{self, Parameters};
use crate::oauth2::response::{self, Answer, Context};
use crate::source::FetchedFor;

impl TokenEndpoint {
    /// Sends one request once, and reads its answer with `read`.
    ///
    /// `more` returns the parameters that must be fresh for each request. `fetched_for` identifies the credentials that wait for
    /// the answer.
    pub(in crate::oauth2) async fn post<T>(
        &self,
        mut parameters: Parameters,
        more: impl Future<Output = Result<Parameters, TokenError>>,
        fetched_for: Option<FetchedFor>,
        read: impl FnOnce(&Answer, Context<'_>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let dialect = self.checked_dialect()?;
        if Handle::try_current().is_err() {
            return Err(TokenError::misconfigured(
                "a token request needs a tokio runtime: call from within one",
            ));
        }
        let limit = self.limit(&parameters, dialect);
        let too_slow =
            |what: &str| format!("{what} took longer than {limit:?} (`TokenEndpoint::timeout`)");
        let mut limit = Limit::after(limit);

        // ## Not sent yet: an error leaves the refresh token unspent.
        let more = limit
            .run(more)
            .await
            .unwrap_or_else(|| Err(TokenError::transient(too_slow("the closure for parameters"))));
        parameters.extend(&more.map_err(TokenError::into_unsent)?);
        let authentication = limit
            .run(self.client_auth.authenticate())
            .await
            .unwrap_or_else(|| Err(TokenError::transient(too_slow("client authentication"))))
            .map_err(TokenError::into_unsent)?;
        let is_refresh = parameters.get("grant_type") == Some("refresh_token");
        let url = match dialect.refresh_path.as_deref().filter(|_| is_refresh) {
            Some(path) => &request::resolve(&self.url, path)?,
            None => &self.url,
        };
        let (mut request, secrets) = request::compose(dialect, url, &parameters, &authentication)?;
        let mut sending = Sending::of(&mut request);
        if let Some(fetched_for) = fetched_for {
            request.extensions_mut().insert(fetched_for);
        }
        let origin = self.origin();
        let context = || Context {
            place: "",
            endpoint: &origin,
            reported: &self.reported,
            dialect,
            client_auth: &self.client_auth,
            secrets: &secrets,
            now: self.clock.now(),
            spends: dialect.rotates && has_refresh_token(&parameters, dialect),
            requested_token_type: parameters.get("requested_token_type"),
        };
        let call = match limit.run(self.client.ready()).await {
            Some(Ok(call)) => call,
            Some(Err(error)) => {
                return Err(refused_beneath(&*error, context()).unwrap_or_else(|| {
                    let shown = secrets.describe(&*error);
                    TokenError::unsent(format!(
                        "the HTTP client for the token endpoint {origin} is not ready: {shown}"
                    ))
                }));
            }
            None => {
                return Err(TokenError::unsent(too_slow("the HTTP client's readiness")));
            }
        };
        if limit.is_over() {
            // No time is left for the answer, which may contain the only copy of the next refresh token.
            return Err(TokenError::unsent(too_slow("the preparation of the token request")));
        }

        // ## Sent: from here the refresh token may be spent.
        let late = too_slow(&format!("the answer of the token endpoint {origin}"));
        let mut response = call(request);
        let response = match limit.run(&mut response).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                let was_dropped = sending.was_dropped_unsent().await;
                return Err(self.failed(&*error, was_dropped, &sending, context()));
            }
            None => {
                let is_connecting = self.client.is_hyper_util && sending.is_connecting();
                drop(response);
                if is_connecting || sending.was_dropped_unsent().await {
                    return Err(TokenError::unsent(format!(
                        "the token endpoint {origin} was not reached: {late}"
                    )));
                }
                return Err(context().lost(late));
            }
        };
        let (head, body) = response.into_parts();
        let mut reading = Reading::new(self.answer_limit);
        let is_answer = |body: &[u8]| response::is_answer(body, head.status, dialect);
        let end = limit.run(reading.read(body, is_answer, &secrets)).await;
        let end = end.unwrap_or_else(|| Err(too_slow("").trim_start().to_owned()));
        let body = reading
            .finish(end, &head.headers, dialect, &secrets)
            .map_err(|why| format!("the answer {why}"));
        let answer = Answer { status: head.status, headers: head.headers, body };
        let place = answer.place(&origin, &secrets);
        let context = Context { place: &place, ..context() };
        read(&answer, context).map_err(|error| match &answer.body {
            _ if sending.was_redirected() => {
                let why = format!(
                    "the HTTP client followed a redirect of the token endpoint {origin}, and did not find tokens there; configure the URL that it redirects to, and a client that follows no redirects"
                );
                // The new URL may have the query, and the refresh token in it, so that it was sent twice.
                let is_unknown = error.is_ambiguous() && dialect.uses_query();
                if is_unknown { error.wrapped_as(why) } else { TokenError::misconfigured(why) }
            }
            // The error was derived from the status alone.
            Err(why) if !error.get_ref().to_string().contains(why) => {
                let message = format!("{}; {why}", error.get_ref());
                error.wrapped_as(message)
            }
            _ => error,
        })
    }

    /// Awaits the source of a token that a request needs.
    pub(in crate::oauth2) async fn within_timeout<T>(
        &self,
        what: &str,
        source: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        let limit = self.timeout;
        Limit::after(limit).run(source).await.unwrap_or_else(|| {
            Err(TokenError::unsent(format!(
                "the source of the {what} took longer than {limit:?} (`TokenEndpoint::timeout`)"
            )))
        })
    }

    /// Returns the time limit of one request. With a grace period, there must be time for a second request.
    fn limit(&self, parameters: &Parameters, dialect: &Dialect) -> Duration {
        match dialect.reuse_grace.filter(|_| has_refresh_token(parameters, dialect)) {
            Some(grace) => self.timeout.min(grace / 5 * 2),
            None => self.timeout,
        }
    }

    /// Returns the error for an error of the HTTP client.
    fn failed(
        &self,
        error: &(dyn Error + 'static),
        was_dropped: bool,
        sending: &Sending,
        context: Context<'_>,
    ) -> TokenError {
        if !sending.was_sent()
            && !sending.may_be_a_repetition()
            && let Some(refused) = refused_beneath(error, context)
        {
            return refused;
        }
        let origin = self.origin();
        let shown = context.secrets.describe(error);
        if was_dropped || sending.is_unsent(error, self.is_unsent.as_deref()) {
            if has_no_tls(error) {
                return TokenError::misconfigured(format!(
                    "the HTTP client cannot use TLS, which the token endpoint {origin} needs: use a connector for https, such as hyper-rustls, or a TLS feature of reqwest: {shown}"
                ))
                .into_unsent();
            }
            return TokenError::unsent(format!(
                "the token endpoint {origin} was not reached: {shown}"
            ));
        }
        let is_known = sending.is_watched() || is_of_hyper_util(error) || self.is_unsent.is_some();
        let hint = if context.spends && !is_known { HINT } else { "" };
        context.lost(format!("the request to the token endpoint {origin} failed: {shown}{hint}"))
    }
}

/// Returns whether hyper-util's `HttpConnector`, which reqwest uses without a TLS feature, has refused an `https` URL.
///
/// The type of its error is private, so that only the text identifies it.
fn has_no_tls(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| error.to_string() == "invalid URL, scheme is not http")
}

/// Returns the error of an inner layer that refused to send the request, such as a `RefreshLayer` without a token.
fn refused_beneath(error: &(dyn Error + 'static), context: Context<'_>) -> Option<TokenError> {
    let refused = causes(error).find_map(|error| error.downcast_ref::<TokenError>())?;
    let shown = context.secrets.describe(refused.get_ref());
    Some(
        refused
            .clone()
            .wrapped_as(format!("the token request was not sent: {shown}"))
            .into_unsent(),
    )
}

/// Returns whether a request spends a refresh token: whether it has that parameter, under its name in the RFC or at the
/// server. The grant type does not matter.
fn has_refresh_token(parameters: &Parameters, dialect: &Dialect) -> bool {
    ["refresh_token", dialect.parameter_name("refresh_token")]
        .iter()
        .any(|name| parameters.get(name).is_some())
}

const HINT: &str = "; to recognise errors of connecting, which leave the refresh token unspent, enable the feature `hyper-util` for hyper-util's client, use `ReqwestService` for reqwest, or set `TokenEndpoint::is_unsent`";
