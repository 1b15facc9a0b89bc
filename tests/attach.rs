//! The header that carries the token: its name and its scheme.
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

mod harness;
mod origin_support;

use http::{HeaderName, Request, header};
use origin_support::Api;

#[tokio::test(start_paused = true)]
async fn another_header_carries_the_token_with_its_scheme_or_bare() {
    let name = HeaderName::from_static("x-api-token");
    for bare in [false, true] {
        let api = Api::new(|layer| {
            let layer = layer.origin("https://api.test").header(name.clone());
            if bare { layer.without_scheme() } else { layer }
        });
        // `Authorization` is then somebody else's.
        let request = Request::get("https://api.test/")
            .header(header::AUTHORIZATION, "Basic YTpi")
            .body(())
            .unwrap();
        api.send(request).await.unwrap();
        let headers = api.headers();
        let expected = if bare { "t1" } else { "Bearer t1" };
        assert_eq!(headers[&name], expected);
        assert!(headers[&name].is_sensitive());
        assert_eq!(headers[header::AUTHORIZATION], "Basic YTpi");

        // The caller's own is kept, in this header too.
        let request = Request::get("https://api.test/").header(&name, "mine").body(()).unwrap();
        api.send(request).await.unwrap();
        let headers = api.headers();
        assert_eq!(headers[&name], "mine");
        assert!(!headers.contains_key(header::AUTHORIZATION));

        // And elsewhere it goes no more than the other.
        api.get("https://evil.test/").await.unwrap();
        assert!(api.headers().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_scheme_the_token_is_renewed_and_sent_again_the_same_way() {
    let api = Api::new(|layer| layer.origin("https://api.test").without_scheme()).rejecting();
    api.get("https://api.test/").await.unwrap();
    assert_eq!(api.sent(), [Some("t1".to_owned()), Some("t2".to_owned())]);
}
