//! kube, with the layer in it.

use http::Request;
use kube::client::{Body, Client, ClientBuilder};
use other_clients::Api;
use serde_json::{Value, json};
use tower::buffer::BufferLayer;
use tower_refresh::BoxError;

#[tokio::test]
async fn a_rejected_post_is_sent_again_with_the_same_body() -> Result<(), BoxError> {
    let api = Api::serve().await?;
    let client = client(&api)?;
    for text in ["first", "second"] {
        let pod = json!({ "kind": "Pod", "metadata": { "name": text, "x": "ü".repeat(1000) } });
        let request = Request::post("/api/v1/pods").body(serde_json::to_vec(&pod)?)?;
        // The API echoes the request.
        assert_eq!(client.request::<Value>(request).await?, pod);
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
        let answer = client.send(Request::get("/api/v1/pods").body(Body::empty())?).await?;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["echo-method"], "GET");
        assert_eq!(answer.into_body().collect_bytes().await?, "");
        api.server.revoke_all_access_tokens();
    }
    assert_eq!(api.counts(), [2, 1, 2]);
    Ok(())
}

#[tokio::test]
async fn many_rejected_requests_at_once_cost_one_refresh() -> Result<(), BoxError> {
    let api = Api::serve().await?;
    let client = client(&api)?;
    client.request_text(Request::get("/").body(Vec::new())?).await?;
    api.server.revoke_all_access_tokens();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..50 {
        let client = client.clone();
        requests.spawn(async move {
            let pod = json!({ "number": number });
            let request =
                Request::post("/delay/20").body(serde_json::to_vec(&pod).unwrap()).unwrap();
            assert_eq!(client.request::<Value>(request).await.unwrap(), pod);
        });
    }
    while let Some(request) = requests.join_next().await {
        request?;
    }
    assert_eq!(api.server.counters().token_requests, 2);
    Ok(())
}

/// kube's own service is not `Clone`, so that a buffer goes beneath the layer.
fn client(api: &Api) -> Result<Client, BoxError> {
    let config = kube::Config::new(api.serving.origin().parse()?);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(1024))
        .with_layer(&api.layer()?.replay_with(Body::try_clone))
        .build())
}
