//! The header that carries the token: its name and its scheme.

use http::{HeaderName, Request, header};

use crate::api::{Api, refused};

#[tokio::test(start_paused = true)]
async fn another_header_carries_the_token_with_its_scheme_or_bare() {
    let name = HeaderName::from_static("x-api-token");
    for bare in [false, true] {
        let api = Api::new(|layer| {
            let layer = layer.origin("https://api.test").unwrap().header(name.clone());
            if bare { layer.without_scheme() } else { layer }
        });
        // `Authorization` then belongs to another layer.
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

        // A value that the caller has set is kept, in this header too.
        let request = Request::get("https://api.test/").header(&name, "mine").body(()).unwrap();
        api.send(request).await.unwrap();
        let headers = api.headers();
        assert_eq!(headers[&name], "mine");
        assert!(!headers.contains_key(header::AUTHORIZATION));

        // A foreign origin does not get it either.
        api.get("https://evil.test/").await.unwrap();
        assert!(api.headers().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn token_without_a_scheme_is_refreshed_and_resent_likewise() {
    let api =
        Api::new(|layer| layer.origin("https://api.test").unwrap().without_scheme()).rejecting();
    api.get("https://api.test/").await.unwrap();
    assert_eq!(api.sent(), [Some("t1".to_owned()), Some("t2".to_owned())]);
}

/// C20
#[tokio::test(start_paused = true)]
async fn token_is_sent_with_the_scheme_that_the_api_expects() {
    for scheme in ["OAuth", "Zoho-oauthtoken", "Token", "bearer", "a!#$%&'*+-.^_`|~9"] {
        for name in [header::AUTHORIZATION, HeaderName::from_static("x-api-token")] {
            let layered = name.clone();
            let api = Api::new(|layer| {
                layer.origin("https://api.test").unwrap().header(layered).scheme(scheme)
            })
            .rejecting();
            api.get("https://api.test/").await.unwrap();
            // Both attempts, the second with the new token.
            let sent = api.all_headers();
            let sent: Vec<_> = sent.iter().map(|headers| &headers[&name]).collect();
            assert_eq!(sent, [&format!("{scheme} t1"), &format!("{scheme} t2")]);
            assert!(sent.iter().all(|value| value.is_sensitive()));
        }
    }
}

/// C20
#[tokio::test(start_paused = true)]
async fn invalid_scheme_is_an_error_that_shows_how_to_write_it() {
    for scheme in [
        "OAuth ",
        " OAuth",
        "Bearer:",
        "Bearer sesame",
        "Token token=sesame",
        "sesame\r\nX: y",
        "sesame\0",
        "B\u{e4}rer",
    ] {
        let api = Api::new(|layer| layer.origin("https://api.test").unwrap().scheme(scheme));
        for uri in ["https://api.test/", "https://elsewhere.test/"] {
            let message = refused(api.get(uri).await, scheme);
            assert!(message.contains(".scheme(\"OAuth\")"), "{message}");
            assert!(!message.contains("sesame"), "{message}");
        }
        assert!(api.sent().is_empty(), "{scheme}");
        assert_eq!(api.mint.calls(), 0, "{scheme}");
    }
    let api = Api::new(|layer| layer.origin("https://api.test").unwrap().scheme(""));
    let message = refused(api.get("https://api.test/").await, "empty");
    assert!(message.contains(".without_scheme()"), "{message}");
}
