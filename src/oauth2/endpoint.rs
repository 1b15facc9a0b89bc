//! The token endpoint, over whatever HTTP client there is.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::{BoxFuture, Either, select};
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tower_service::Service;
use zeroize::Zeroizing;

use super::client_auth::ClientAuth;
use super::dialect::Dialect;
use super::request::{self, Parameters};
use super::response::{Answer, Context};
use super::scrub::{self, Secrets};
use crate::clock::{Clock, SystemClock};
use crate::error::{BoxError, TokenError};
use crate::origin::{is_loopback, is_sound};
use crate::source::SourceInfo;

/// A token endpoint (RFC 6749 §3.2): where to ask, by which HTTP client, as whom, and in which dialect.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower_refresh::oauth2::{ClientAuth, TokenEndpoint};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let endpoint = TokenEndpoint::new(client, "http://localhost:8080/token")?
///     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET").unwrap_or_default()));
/// # Ok(())
/// # }
/// ```
///
/// Cloning it is cheap. Grants take it by value: [`RefreshTokenGrant`](super::RefreshTokenGrant),
/// [`ClientCredentialsGrant`](super::ClientCredentialsGrant), [`Grant`](super::Grant).
///
/// # The HTTP client
///
/// Any [`Service`] of requests with a [`Full`] body will do: hyper-util's client, or a tower stack with your proxies,
/// timeouts and tracing in it. It must not pass through the layer that this endpoint feeds.
///
/// # Redirect caveat
///
/// A redirect is an error here, since a refresh token is not to be carried elsewhere. A client that follows redirects by
/// itself does so below, unseen: switch that off (`reqwest::redirect::Policy::none()`).
///
/// # Retry caveat
///
/// Most refresh tokens can be spent once. A client that sends a request again after a lost answer (a `tower::retry`
/// layer, for one) makes the server believe that the token was stolen. Repetition is for the layers above, which know
/// when it is safe.
///
/// # Logging caveat
///
/// The body of a token request holds secrets, that of its answer the tokens, and `{:?}` of a [`Full`] body shows all of
/// it. A layer under this endpoint that traces or records must leave both bodies out, and also the URL if there is a
/// secret in its query. Headers of the client authentication are marked sensitive.
#[derive(Clone)]
pub struct TokenEndpoint {
    client: Arc<dyn HttpClient>,
    url: Uri,
    client_auth: ClientAuth,
    dialect: Result<Arc<Dialect>, TokenError>,
    timeout: Duration,
    answer_limit: usize,
    not_sent: Option<Arc<NotSent>>,
    clock: Arc<dyn Clock>,
}

type NotSent = dyn Fn(&(dyn Error + 'static)) -> bool + Send + Sync;

/// Goes with each token request in its extensions. A client of ours that may make a second request of one, after a redirect
/// for example, sets it when the body is asked for, and makes no second request with that body.
#[derive(Clone, Default)]
pub(crate) struct WasSent(Arc<AtomicBool>);

impl WasSent {
    #[cfg(feature = "reqwest")]
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl TokenEndpoint {
    /// Makes a token endpoint of an HTTP client and a URL.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error if the URL is not `https` (`http` will do for `localhost` and
    /// loopback addresses), or contains a user name or a fragment (RFC 6749 §3.2).
    pub fn new<S, B>(http_client: S, url: impl AsRef<str>) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Ok(Self {
            client: Arc::new(Shared::new(http_client)),
            url: parse_url(url.as_ref())?,
            client_auth: ClientAuth::default(),
            dialect: Ok(Arc::default()),
            timeout: DEFAULT_TIMEOUT,
            answer_limit: DEFAULT_ANSWER_LIMIT,
            not_sent: None,
            clock: Arc::new(SystemClock),
        })
    }

    /// Returns this endpoint with another URL, such as that of the revocation endpoint.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn at(&self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        Ok(Self { url: parse_url(url.as_ref())?, ..self.clone() })
    }

    /// Sets how the client identifies itself; by default it does not.
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// Sets how the endpoint departs from RFC 6749; by default it does not.
    ///
    /// If the dialect is [not valid](Dialect::validate), nothing is sent, and every request fails with the error that
    /// names the field.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect.validate().map(|()| Arc::new(dialect));
        self
    }

    /// Sets how long one request may take, the answer's body included; 120 s by default.
    ///
    /// It is longer than callers wait, on purpose: the late answer is the only copy of the next refresh token. With a
    /// dialect that names a [`reuse_grace`](Dialect::reuse_grace), a refresh takes less than half of that, so that there
    /// is time to ask again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many bytes of an answer are read before it counts as unreadable; 256 KiB by default.
    #[must_use]
    pub fn answer_limit(mut self, bytes: usize) -> Self {
        self.answer_limit = bytes;
        self
    }

    /// Recognises errors of the HTTP client that mean that nothing was sent, so that asking again is harmless.
    ///
    /// It is asked about the error and each of its causes. Without it, and besides it, these are recognised: an error of
    /// `poll_ready`, and an [`io::Error`] that says that the connection was refused, that host or network is unreachable,
    /// or that there is no local address. All else may have been sent.
    ///
    /// All of that holds for a client that sends a request once. With one that follows redirects or tries again, the
    /// connection that failed may be the second, and the refresh token be spent.
    ///
    /// ```
    /// use hyper_util::client::legacy;
    /// # use tower_refresh::oauth2::TokenEndpoint;
    ///
    /// # fn example(endpoint: TokenEndpoint) -> TokenEndpoint {
    /// endpoint.not_sent(|error| {
    ///     error
    ///         .downcast_ref::<legacy::Error>()
    ///         .is_some_and(legacy::Error::is_connect)
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn not_sent<F>(mut self, predicate: F) -> Self
    where
        F: Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static,
    {
        self.not_sent = Some(Arc::new(predicate));
        self
    }

    /// Sets the clock by which refresh tokens and absolute times of expiry are judged; the operating system's by default.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    pub(super) fn now(&self) -> crate::clock::Now {
        self.clock.now()
    }

    /// What a store must know of a source that asks here.
    pub(super) fn info(&self) -> SourceInfo {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority =
            self.url.authority().map_or("", |authority| authority.as_str()).to_ascii_lowercase();
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(&authority);
        let mut info = SourceInfo::new().token_endpoint(format!("{scheme}://{host}"));
        if let Some(id) = self.client_auth.client_id() {
            info = info.client_id(id);
        }
        match &self.dialect {
            Ok(dialect) => info.rotates(dialect.rotates).reuse_grace(dialect.reuse_grace),
            Err(_) => info,
        }
    }

    pub(super) fn checked_dialect(&self) -> Result<&Dialect, TokenError> {
        self.dialect.as_deref().map_err(TokenError::clone)
    }

    /// Sends one request, once, and has its answer read.
    ///
    /// `more` makes the parameters that must be fresh for each attempt.
    pub(super) async fn post<T>(
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
        let mut sleep = pin!(tokio::time::sleep(limit));
        let too_slow = |who: &str| format!("{who} took longer than {limit:?}");

        // ## Not sent yet: whatever fails now is transient, or somebody's mistake.
        let more = within(more, sleep.as_mut()).await.unwrap_or_else(|| {
            Err(TokenError::transient(too_slow("the closure for parameters")))
        })?;
        parameters.extend(&more);
        let authentication = within(self.client_auth.authenticate(), sleep.as_mut())
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
        let ready = match within(self.client.ready(), sleep.as_mut()).await {
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
            dialect,
            secrets: &secrets,
            now: self.clock.now(),
            spends: dialect.rotates && has_refresh_token(&parameters),
        };
        let response = match within(ready.call(request), sleep.as_mut()).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(self.failed(&*error, &sent, context())),
            None => return Err(context().lost(too_slow("the token endpoint's answer"))),
        };
        let (head, body) = response.into_parts();
        let body = match within(self.collect(body, &secrets), sleep.as_mut()).await {
            Some(body) => body,
            None => Err(too_slow("the token endpoint's answer")),
        };
        let answer = Answer { status: head.status, headers: head.headers, body };
        read(&answer, context())
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
        let shown = context.secrets.describe(error, CLIENT_ERROR_LIMIT);
        let is_ours = |error| self.not_sent.as_ref().is_some_and(|is| is(error));
        let mut chain = scrub::chain(error);
        if !sent.is_set() && chain.any(|error| is_connect_error(error) || is_ours(error)) {
            return TokenError::transient(format!("the token endpoint was not reached: {shown}"));
        }
        context.lost(format!("the request to the token endpoint failed: {shown}"))
    }

    /// Reads a body up to the limit, or says why not.
    async fn collect(
        &self,
        body: UnsyncBoxBody<Bytes, BoxError>,
        secrets: &Secrets,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut body = body;
        // To grow would leave a copy behind in memory; what a token endpoint answers fits.
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
            collected.extend_from_slice(&data);
        }
        Ok(collected)
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("url", &without_query(&self.url))
            .field("client_auth", &self.client_auth)
            .field("dialect", &self.dialect)
            .field("timeout", &self.timeout)
            .field("answer_limit", &self.answer_limit)
            .finish_non_exhaustive()
    }
}

/// Returns whether a request spends a refresh token: one with a parameter of that name does, whatever the grant.
fn has_refresh_token(parameters: &Parameters) -> bool {
    parameters.get("refresh_token").is_some()
}

/// An HTTP client of any type.
trait HttpClient: Send + Sync {
    fn ready(&self) -> BoxFuture<'static, Result<Box<dyn Ready>, BoxError>>;
}

/// An HTTP client that is ready for one request: in two steps, because a request is lost only in the second.
trait Ready: Send {
    fn call(
        self: Box<Self>,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>>;
}

/// A client that may not be `Sync` (`BoxCloneService` is not), shared all the same: it is cloned and never called.
struct Shared<S> {
    #[expect(
        clippy::disallowed_types,
        reason = "held to clone the client, once for each token request, and for nothing else"
    )]
    client: std::sync::Mutex<S>,
}

impl<S> Shared<S> {
    #[expect(clippy::disallowed_types, reason = "see the field")]
    fn new(client: S) -> Self {
        Self { client: std::sync::Mutex::new(client) }
    }
}

impl<S, B> HttpClient for Shared<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn ready(&self) -> BoxFuture<'static, Result<Box<dyn Ready>, BoxError>> {
        // A clone that panicked left the client as it was.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            poll_fn(|cx| client.poll_ready(cx)).await.map_err(Into::into)?;
            Ok(Box::new(ReadyClient(client)) as Box<dyn Ready>)
        })
    }
}

struct ReadyClient<S>(S);

impl<S, B> Ready for ReadyClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(
        mut self: Box<Self>,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>> {
        Box::pin(async move {
            let response = self.0.call(request).await.map_err(Into::into)?;
            Ok(response.map(|body| {
                body.map_frame(|frame| {
                    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
                })
                .map_err(Into::into)
                .boxed_unsync()
            }))
        })
    }
}

/// Waits for a future as long as the limit allows.
async fn within<F: Future>(future: F, limit: Pin<&mut Sleep>) -> Option<F::Output> {
    match select(pin!(future), limit).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn is_connect_error(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};

    let Some(error) = error.downcast_ref::<io::Error>() else {
        return false;
    };
    // An error inside an `io::Error` is not its source, but that one's source is.
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<io::Error>());
    [Some(error), inside].into_iter().flatten().any(|error| {
        matches!(
            error.kind(),
            ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
        )
    })
}

fn parse_url(url: &str) -> Result<Uri, TokenError> {
    let wrong = |why: &str| {
        // Without the URL: its query may be somebody's secret.
        Err(TokenError::misconfigured(format!("the URL of the token endpoint {why}")))
    };
    if url.contains('#') {
        return wrong("must not have a fragment");
    }
    if url.trim() != url {
        return wrong("must not have whitespace around it");
    }
    if !url.is_ascii() {
        return wrong(
            "must be ASCII: write an internationalized host in the form that begins with `xn--`, and percent-encode the path",
        );
    }
    let parsed: Uri = match url.parse() {
        Ok(parsed) => parsed,
        Err(error) => return wrong(&format!("cannot be parsed: {error}")),
    };
    let Some(authority) = parsed.authority() else {
        return wrong("must be absolute, as in `https://as.example.com/token`");
    };
    if authority.as_str().contains('@') {
        return wrong("must not have a user name in it; use `client_auth`");
    }
    if !is_sound(authority.as_str()) {
        return wrong("must have a host, and a port that is a number up to 65535, if any");
    }
    match parsed.scheme_str() {
        Some("https") => Ok(parsed),
        Some("http") if is_loopback(authority.as_str()) => Ok(parsed),
        Some("http") => {
            wrong("must be https; plain http is for `localhost` and loopback addresses")
        }
        _ => wrong("must be https"),
    }
}

fn without_query(url: &Uri) -> String {
    format!(
        "{}://{}{}",
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |authority| authority.as_str()),
        url.path()
    )
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

const DEFAULT_ANSWER_LIMIT: usize = 256 * 1024;

/// How much of an error of the HTTP client is kept, in characters.
const CLIENT_ERROR_LIMIT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_will_do() {
        for good in [
            "https://as.example.com/token",
            "https://as.example.com",
            "https://as.example.com/token?tenant=a",
            "http://localhost:8080/token",
            "http://LOCALHOST/token",
            "http://127.0.0.1/token",
            "http://127.8.9.1/token",
            "http://[::1]:80/token",
        ] {
            parse_url(good).unwrap();
        }
        for bad in [
            "http://as.example.com/sesame",
            "http://localhost.example.com/sesame",
            "http://sub.localhost/sesame",
            "http://localhost./sesame",
            "http://127.0.0.1./sesame",
            "http://127.1/sesame",
            "http://127.0.0.1.example.com/sesame",
            "http://[2001:db8::1]/sesame",
            "ftp://localhost/sesame",
            "https://user:sesame@as.example.com/",
            "http://localhost@as.example.com/sesame",
            "https://as.example.com/sesame#part",
            "https://as.example.com:sesame/",
            "https://as.example.com:+443/sesame",
            "https://as.example.com:65536/sesame",
            "http://127.0.0.1:port/sesame",
            "https://[::1]443/sesame",
            "https://:443/sesame",
            "https://as.example.com/ses ame",
            "https://as.example.com/sesame\n",
            "https://s\u{e4}sesame.example/token",
            "https://as.example.com/s\u{e4}sesame",
            "https://[fe80::1%25eth0]/sesame",
            "/sesame",
            "sesame",
            "",
        ] {
            let error = parse_url(bad).unwrap_err();
            assert!(error.is_misconfigured(), "{bad}");
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }
}
