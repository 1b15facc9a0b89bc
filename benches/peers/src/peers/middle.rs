//! middle: a task refreshes the token, and an `Authorizer` returns the header, as its own `HttpClient` over reqwest uses it.

use std::sync::Arc;

use ::middle::{Authorizer, BasicClientCredentialAuthorizer};
use http::StatusCode;
use http::header::AUTHORIZATION;

use crate::api::{self, Api, request};
use crate::peer::{About, BoxError, Fetches, Peer, Scenario};

#[derive(Clone)]
pub struct Middle {
    authorizer: BasicClientCredentialAuthorizer,
    api: Api,
}

impl Peer for Middle {
    const ABOUT: About = About {
        name: "middle",
        packages: &["middle"],
        manifest: r#"middle = "=""#,
        fetches: Fetches::Constructor,
        skips: &[(Scenario::Dropped, "no request waits for a token")],
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let builder =
            BasicClientCredentialAuthorizer::basic_builder("benches", "secret", url.parse()?);
        Ok(Self { authorizer: builder.build().await?, api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = request(headers);
        let header = self.authorizer.authorization_header()?;
        request.headers_mut().insert(AUTHORIZATION, Arc::unwrap_or_clone(header));
        api::send(&mut self.api, request).await
    }
}
