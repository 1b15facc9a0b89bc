//! One request, and what comes back.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::TokenEndpoint;
use super::sent::{WasSent, is_connect_error};
use crate::error::{BoxError, TokenError};
use crate::limit::Limit;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::request::{self, Parameters};
use crate::oauth2::response::{Answer, Context};
use crate::oauth2::scrub::{self, Secrets};
use crate::oauth2::wiped::append;

impl TokenEndpoint {
    /// Sends one request, once, and has its answer read.
    ///
    /// `more` makes the parameters that must be fresh for each attempt.
    pub(in crate::oauth2) async fn post<T>(
        &self,
        mut parameters: Parameters,
        more: impl Future<Output = Result<Parameters, TokenError>>,
        read: impl FnOnce(&Answer, Context<'_>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let dialect = self.checked_dialect()?;
        if Handle::try_current().is_err() {
            return Err(TokenError::misconfigured(
                "a token endpoint can only be asked within a tokio runtime",
            ));
        }
        let limit = self.limit(&parameters, dialect);
        let too_slow = |who: &str| format!("{who} took longer than {limit:?}");
        let mut limit = Limit::after(limit);

        // ## Not sent yet: whatever fails now is transient, or somebody's mistake.
        let more = limit.run(more).await.unwrap_or_else(|| {
            Err(TokenError::transient(too_slow("the closure for parameters")))
        })?;
        parameters.extend(&more);
        let authentication = limit
            .run(self.client_auth.authenticate())
            .await
            .unwrap_or_else(|| Err(TokenError::transient(too_slow("client authentication"))))?;
        let is_refresh = parameters.get("grant_type") == Some("refresh_token");
        let url = match dialect.refresh_path.as_deref().filter(|_| is_refresh) {
            Some(path) => &request::resolve(&self.url, path)?,
            None => &self.url,
        };
        let (mut request, secrets) = request::compose(dialect, url, &parameters, &authentication)?;
        let sent = WasSent::default();
        request.extensions_mut().insert(sent.clone());
        let ready = match limit.run(self.client.ready()).await {
            Some(Ok(ready)) => ready,
            Some(Err(error)) => {
                return Err(TokenError::transient(format!(
                    "the HTTP client is not ready: {}",
                    secrets.describe(&*error, CLIENT_ERROR_LIMIT)
                )));
            }
            None => {
                return Err(TokenError::transient(too_slow("the HTTP client's readiness")));
            }
        };

        // ## Sent: from here the refresh token may be spent.
        let context = || Context {
            place: "",
            dialect,
            client_auth: &self.client_auth,
            secrets: &secrets,
            now: self.clock.now(),
            spends: dialect.rotates && has_refresh_token(&parameters),
        };
        let response = match limit.run(ready.call(request)).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(self.failed(&*error, &sent, context())),
            None => {
                return Err(context().lost(too_slow(&format!(
                    "the answer of the token endpoint {}",
                    self.origin()
                ))));
            }
        };
        let (head, body) = response.into_parts();
        let body = match limit.run(self.collect(body, &secrets)).await {
            Some(body) => body,
            None => Err(too_slow("the token endpoint's answer")),
        };
        let answer = Answer { status: head.status, headers: head.headers, body };
        let place = answer.place(&self.origin(), &secrets);
        read(&answer, Context { place: &place, ..context() })
    }

    /// How long one request may take. With a grace window it must leave time for a second one.
    fn limit(&self, parameters: &Parameters, dialect: &Dialect) -> Duration {
        match dialect.reuse_grace.filter(|_| has_refresh_token(parameters)) {
            Some(grace) => self.timeout.min(grace / 5 * 2),
            None => self.timeout,
        }
    }

    /// The error for an error of the HTTP client.
    fn failed(
        &self,
        error: &(dyn Error + 'static),
        sent: &WasSent,
        context: Context<'_>,
    ) -> TokenError {
        let origin = self.origin();
        let shown = context.secrets.describe(error, CLIENT_ERROR_LIMIT);
        let is_ours = |error| self.not_sent.as_ref().is_some_and(|is| is(error));
        let mut chain = scrub::chain(error);
        if !sent.is_set() && chain.any(|error| is_connect_error(error) || is_ours(error)) {
            return TokenError::transient(format!(
                "the token endpoint {origin} was not reached: {shown}"
            ));
        }
        context.lost(format!("the request to the token endpoint {origin} failed: {shown}"))
    }

    /// Reads a body up to the limit, or says why not.
    async fn collect(
        &self,
        body: UnsyncBoxBody<Bytes, BoxError>,
        secrets: &Secrets,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut body = body;
        let mut collected = Zeroizing::new(Vec::with_capacity(8 * 1024));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let shown = secrets.describe(&*error, CLIENT_ERROR_LIMIT);
                format!("the token endpoint's answer was cut off: {shown}")
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > self.answer_limit.saturating_sub(collected.len()) {
                return Err(format!(
                    "the token endpoint's answer is longer than the {} bytes of `answer_limit`",
                    self.answer_limit
                ));
            }
            append(&mut collected, &data);
        }
        Ok(collected)
    }
}

/// Returns whether a request spends a refresh token: one with a parameter of that name does, whatever the grant.
fn has_refresh_token(parameters: &Parameters) -> bool {
    parameters.get("refresh_token").is_some()
}

/// How much of an error of the HTTP client is kept, in characters.
const CLIENT_ERROR_LIMIT: usize = 300;
