//! google-cloud-auth: user credentials with a token endpoint of our own.

use google_cloud_auth::credentials::{CacheableResource, Credentials, user_account};
use http::{Extensions, StatusCode};
use serde_json::json;

use crate::api::{self, Api, request};
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct Google {
    credentials: Credentials,
    api: Api,
}

impl Peer for Google {
    const ABOUT: About = About {
        name: "google-cloud-auth",
        packages: &["google-cloud-auth"],
        manifest: r#"google-cloud-auth = "=""#,
        fetches: Fetches::Task,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let user = json!({
            "type": "authorized_user",
            "client_id": "benches",
            "client_secret": "secret",
            "refresh_token": "a-refresh-token",
        });
        let credentials = user_account::Builder::new(user).with_token_uri(url).build()?;
        Ok(Self { credentials, api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = request(headers);
        match self.credentials.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => request.headers_mut().extend(data),
            CacheableResource::NotModified => return Err("no entity tag was sent".into()),
        }
        api::send(&mut self.api, request).await
    }
}
