//! A token endpoint whose answers a test gives one by one.
#![allow(clippy::disallowed_types, reason = "a lock between a test and its server")]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::oneshot;
use tower::BoxError;
use tower_refresh::oauth2::{ClientAuth, Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::ManualClock;

pub(crate) type Answer = (u16, String);

/// Answers of which the last one is still to come, or of which one is lost.
pub(crate) enum Reply {
    Answer(Answer),
    /// The request was sent, and the connection ends.
    Lost,
    Later(oneshot::Receiver<Answer>),
}

/// The token set with this number, with a lifetime in seconds.
pub(crate) fn issued(number: u32, lifetime: u64) -> Answer {
    let json = format!(
        r#"{{"access_token":"access-{number}","refresh_token":"refresh-{number}","expires_in":{lifetime}}}"#
    );
    (200, json)
}

pub(crate) fn refused() -> Answer {
    (400, r#"{"error":"invalid_grant"}"#.to_owned())
}

#[derive(Clone, Default)]
pub(crate) struct Scripted {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    sent: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub(crate) fn answers(&self, answer: Answer) {
        self.replies.lock().unwrap().push_back(Reply::Answer(answer));
    }

    pub(crate) fn loses_an_answer(&self) {
        self.replies.lock().unwrap().push_back(Reply::Lost);
    }

    pub(crate) fn answers_later(&self) -> oneshot::Sender<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.replies.lock().unwrap().push_back(Reply::Later(receiver));
        sender
    }

    /// Returns the refresh tokens that were sent.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn grant(&self, clock: &ManualClock, refresh_token: &str) -> RefreshTokenGrant {
        let server = self.clone();
        let http = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                let token = String::from_utf8(body.to_vec())?
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("refresh_token=").map(str::to_owned));
                server.sent.lock().unwrap().extend(token);
                let reply = server.replies.lock().unwrap().pop_front();
                let (status, body) = match reply.expect("no request is expected") {
                    Reply::Answer(answer) => answer,
                    Reply::Lost => {
                        return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                    }
                    Reply::Later(answer) => answer.await?,
                };
                let mut response = Response::new(Full::<Bytes>::from(body));
                *response.status_mut() = StatusCode::from_u16(status)?;
                Ok::<_, BoxError>(response)
            }
        });
        let dialect: Dialect =
            serde_json::from_str(r#"{"fields":{"extra":{"instance_url":"/instance_url"}}}"#)
                .unwrap();
        let endpoint = TokenEndpoint::new(http, "https://auth.example.com/token")
            .unwrap()
            .client_auth(ClientAuth::basic("compass", "fake-secret"))
            .dialect(dialect)
            .clock(clock.clone());
        RefreshTokenGrant::new(endpoint, refresh_token)
    }
}
