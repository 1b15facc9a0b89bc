//! An API that records the headers and URIs that it receives through the layer.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_refresh::{Credentials, RefreshLayer, TokenError};

use crate::harness::{HOUR, Mint, policy};

pub struct Api {
    pub mint: Mint,
    layer: RefreshLayer,
    status: StatusCode,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
    pub uris: Arc<Mutex<Vec<Uri>>>,
}

impl Api {
    pub fn new(set_up: impl FnOnce(RefreshLayer) -> RefreshLayer) -> Self {
        let mint = Mint::new(HOUR);
        Self {
            layer: set_up(RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()))),
            mint,
            status: StatusCode::OK,
            headers: Arc::default(),
            uris: Arc::default(),
        }
    }

    pub fn rejecting(self) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, ..self }
    }

    pub async fn get(&self, uri: &str) -> Result<Response<Full<Bytes>>, BoxError> {
        self.send(Request::get(uri).body(()).unwrap()).await
    }

    pub async fn send(&self, request: Request<()>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (headers, uris, status) = (self.headers.clone(), self.uris.clone(), self.status);
        let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
            headers.lock().unwrap().push(request.headers().clone());
            uris.lock().unwrap().push(request.uri().clone());
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = status;
            async { Ok::<_, Infallible>(response) }
        });
        let client = ServiceBuilder::new().layer(self.layer.clone()).service(api);
        client.oneshot(request.map(|()| Full::default())).await
    }

    /// Returns the headers of the last request.
    pub fn headers(&self) -> HeaderMap {
        self.headers.lock().unwrap().last().unwrap().clone()
    }

    pub fn all_headers(&self) -> Vec<HeaderMap> {
        self.headers.lock().unwrap().clone()
    }

    /// Returns the `Authorization` of each request.
    pub fn sent(&self) -> Vec<Option<String>> {
        let headers = self.headers.lock().unwrap();
        let own = |headers: &HeaderMap| {
            let mut values = headers.get_all(header::AUTHORIZATION).iter();
            let value = values.next().map(|value| value.to_str().unwrap().to_owned());
            assert!(values.next().is_none());
            value
        };
        headers.iter().map(own).collect()
    }

    pub fn take_sent(&self) -> Vec<Option<String>> {
        let sent = self.sent();
        self.headers.lock().unwrap().clear();
        sent
    }
}

/// Returns the message of the error of a request that was never sent.
pub fn refused(answer: Result<Response<Full<Bytes>>, BoxError>, what: &str) -> String {
    let Err(error) = answer else { panic!("{what}: it was sent") };
    let Some(error) = error.downcast_ref::<TokenError>() else { panic!("{what}: {error}") };
    assert!(error.is_misconfigured(), "{what}: {error}");
    error.to_string()
}
