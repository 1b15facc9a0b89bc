//! Clients that are no service once they are layered, and types that do not name one.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::util::{BoxCloneService, BoxService};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_refresh::{FindCredentials, RefreshLayer, StaticToken};

type Answer = Response<Full<Bytes>>;

struct NoReplayBody;
struct NoError;

async fn upload(_: Request<NoReplayBody>) -> Result<Answer, Infallible> {
    Ok(Answer::default())
}

async fn fail(_: Request<Full<Bytes>>) -> Result<Answer, NoError> {
    Err(NoError)
}

fn layer() -> RefreshLayer {
    RefreshLayer::new(StaticToken::new("sesame".parse().unwrap()))
}

fn body_that_cannot_be_sent_again(request: Request<NoReplayBody>) {
    let client = ServiceBuilder::new().layer(layer()).service_fn(upload);
    let _ = client.clone().oneshot(request);
    // Names the cause.
    BoxCloneService::new(client);
}

fn service_that_cannot_be_cloned(http: BoxService<Request<Full<Bytes>>, Answer, BoxError>) {
    ServiceBuilder::new().layer(layer()).service(http);
}

fn error_that_cannot_be_boxed() {
    BoxCloneService::new(ServiceBuilder::new().layer(layer()).service_fn(fail));
}

fn client_of_another_request(http: reqwest::Client) {
    let client = ServiceBuilder::new().layer(layer()).service(http);
    BoxCloneService::<Request<Full<Bytes>>, Answer, _>::new(client);
}

fn origin_without_a_question_mark() {
    let layer = layer().origin("https://api.example.com");
    ServiceBuilder::new().layer(layer).service_fn(fail);
}

fn classifier_that_is_a_status() {
    layer().classifier(StatusCode::FORBIDDEN);
}

fn type_with_the_source(layer: RefreshLayer<StaticToken>) {
    fn with_an_origin<S: FindCredentials>(_: RefreshLayer<S>) {}
    with_an_origin(layer);
}

fn main() {}
