//! Forwards one request to the API, and its response to the caller.

use std::convert::Infallible;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::{Service, ServiceExt as _};
use tower_refresh::replay::Replayable;
use tower_refresh::{BoxError, Credentials};

use crate::answer::{AnswerBody, Refusal};
use crate::connections::{Caller, Held, InFlight};
use crate::guard::Guard;
use crate::headers::{self, Passing};
use crate::status::Counters;

/// The only path that is not forwarded to the API.
const STATUS: &str = "/-/status";

/// The body of a request on its way to the API: streamed, and sent again if the token is rejected.
pub type Body = Replayable<Passing>;

/// Sends requests to the API through `client`, which attaches the token.
#[derive(Clone)]
pub struct Proxy<C> {
    client: C,
    shared: Arc<Shared>,
}

struct Shared {
    scheme: Scheme,
    authority: Authority,
    guard: Guard,
    credentials: Credentials,
    counters: Arc<Counters>,
}

impl<C> Proxy<C>
where
    C: Service<Request<Body>, Response = Response<Incoming>> + Clone,
    C::Error: Into<BoxError>,
{
    /// `origin` is the target of all requests. `credentials` are those of the client's layer.
    pub fn new(
        client: C,
        origin: &str,
        guard: Guard,
        credentials: Credentials,
    ) -> Result<Self, BoxError> {
        let origin = origin.parse::<Uri>()?.into_parts();
        let (Some(scheme), Some(authority)) = (origin.scheme, origin.authority) else {
            return Err("the API's origin must have a scheme and a host".into());
        };
        let counters = Arc::new(Counters::default());
        let events = credentials.subscribe();
        let counting = Arc::clone(&counters);
        tokio::spawn(async move { counting.count(events).await });
        let shared = Shared { scheme, authority, guard, credentials, counters };
        Ok(Self { client, shared: Arc::new(shared) })
    }

    pub fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    pub async fn answer(
        self,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Response<Held<AnswerBody>>, Infallible> {
        let shared = Arc::clone(&self.shared);
        let version = request.version();
        let (outcome, in_flight) = match shared.guard.check(&request) {
            Ok(()) => {
                let mut in_flight = caller.begin(version);
                let outcome = match request.uri().path() {
                    STATUS => shared.report(request.method()),
                    _ => self.forward(request, &mut in_flight).await,
                };
                (outcome, Some(in_flight))
            }
            Err(refusal) => (Err(refusal), None),
        };
        let mut answer = outcome.unwrap_or_else(|refusal| {
            shared.counters.refused(refusal.kind());
            refusal.into_response()
        });
        caller.take_turns(version, &mut answer);
        Ok(answer.map(|body| Held::new(body, in_flight)))
    }

    async fn forward(
        self,
        request: Request<Incoming>,
        in_flight: &mut InFlight,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let (head, body) = request.into_parts();
        let path = head.uri.into_parts().path_and_query;
        let Some(path) = path.filter(|path| path.as_str().starts_with('/')) else {
            // `OPTIONS *` is about a server, and the sidecar is not that server.
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "target",
                "the target must be a path",
            ));
        };
        // A new request, without the extensions that came with the caller's connection.
        let mut sent = Request::new(());
        *sent.method_mut() = head.method;
        *sent.headers_mut() = head.headers;
        headers::towards_api(sent.headers_mut(), head.version);
        headers::frame(sent.headers_mut(), &body);
        let mut target = http::uri::Parts::default();
        target.scheme = Some(self.shared.scheme.clone());
        target.authority = Some(self.shared.authority.clone());
        target.path_and_query = Some(path);
        *sent.uri_mut() =
            Uri::from_parts(target).map_err(|error| Refusal::failed(&error.into()))?;

        in_flight.slot().await;
        let sent = sent.map(|()| Replayable::new(headers::body_towards_api(body)));
        let answer = self.client.oneshot(sent).await;
        let answer = answer.map_err(|error| Refusal::failed(&error.into()))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "upstream",
                "the API responded with an upgrade that was not requested",
            ));
        }
        if headers::has_unknown_coding(answer.headers()) {
            let why = "the API's answer has a transfer coding other than chunked";
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, "upstream", why));
        }
        self.shared.counters.answered();
        let (head, body) = answer.into_parts();
        let mut answer = Response::new(Either::Left(headers::body_towards_caller(body)));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        *answer.version_mut() = Version::HTTP_11;
        headers::towards_caller(answer.headers_mut());
        Ok(answer)
    }
}

impl Shared {
    fn report(&self, method: &Method) -> Result<Response<AnswerBody>, Refusal> {
        if method != Method::GET {
            return Err(Refusal::method("GET"));
        }
        let api = format!("{}://{}", self.scheme, self.authority);
        Ok(self.counters.report(&api, &self.credentials.status()))
    }
}
