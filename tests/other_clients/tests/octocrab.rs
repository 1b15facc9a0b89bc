//! octocrab, with the layer in it.

use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use other_clients::Api;
use serde_json::{Value, json};
use tower_refresh::BoxError;

#[tokio::test]
async fn a_rejected_post_is_sent_again_with_the_same_body() -> Result<(), BoxError> {
    let api = Api::serve().await?;
    let client = client(&api)?;
    for text in ["first", "second"] {
        let note = json!({ "title": text, "body": "ü".repeat(1000) });
        // The API echoes the request.
        assert_eq!(client.post::<_, Value>("/notes", Some(&note)).await?, note);
        api.server.revoke_all_access_tokens();
    }
    assert_eq!(api.counts(), [2, 1, 2]);
    Ok(())
}

#[tokio::test]
async fn rejected_get_is_sent_again_with_a_new_token() -> Result<(), BoxError> {
    let api = Api::serve().await?;
    let client = client(&api)?;
    for _ in 0..2 {
        let answer = client._get("/notes").await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["echo-method"], "GET");
        assert_eq!(answer.into_body().collect().await?.to_bytes(), "");
        api.server.revoke_all_access_tokens();
    }
    assert_eq!(api.counts(), [2, 1, 2]);
    Ok(())
}

fn client(api: &Api) -> Result<Octocrab, BoxError> {
    Ok(OctocrabBuilder::new_empty()
        .with_service(Client::builder(TokioExecutor::new()).build_http::<OctoBody>())
        .with_layer(&api.layer()?.replay_with(copy))
        .with_layer(&BaseUriLayer::new(api.serving.origin().parse()?))
        .with_auth(AuthState::None)
        .build()?)
}

/// An empty body has no `try_clone`: a GET would not be sent again.
fn copy(body: &OctoBody) -> Option<OctoBody> {
    if http_body::Body::is_end_stream(body) { Some(OctoBody::empty()) } else { body.try_clone() }
}
