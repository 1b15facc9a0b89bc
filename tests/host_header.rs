//! The `Host` header counts beside the authority of the URI, and instead of it where the URI has none.
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

mod harness;
mod origin_support;

use http::{Request, header};
use origin_support::{Api, refused};

#[tokio::test(start_paused = true)]
async fn a_request_without_authority_carries_the_token_unless_its_host_header_is_another() {
    let hosts: [(&[&str], bool); 11] = [
        (&[], true),
        (&["api.test"], true),
        (&["API.test."], true),
        (&["api.test:443"], true),
        (&["evil.test"], false),
        (&["api.test:8443"], false),
        (&["api.test.evil.test"], false),
        (&["api.test, evil.test"], false),
        (&["api.test", "evil.test"], false),
        (&["evil.test", "api.test"], false),
        (&[""], false),
    ];
    let api = Api::new(|layer| layer.origin("https://api.test"));
    for (hosts, carries) in hosts {
        let mut request = Request::get("/a").body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, host.parse().unwrap());
        }
        api.send(request).await.unwrap();
        assert_eq!(api.take_sent(), [carries.then(|| "Bearer t1".to_owned())], "{hosts:?}");
    }

    // Whoever connected the client below chose where it goes: no origin needs to be named for that.
    let api = Api::new(|layer| layer);
    api.get("/a").await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_host_header_neither_lends_its_name_to_another_authority_nor_takes_it_from_one() {
    let api = Api::new(|layer| layer.origin("https://api.test"));
    for (uri, host, carries) in
        [("https://evil.test/", "api.test", false), ("https://api.test/", "api.test", true)]
    {
        let request = Request::get(uri).header(header::HOST, host).body(()).unwrap();
        api.send(request).await.unwrap();
        assert_eq!(api.take_sent(), [carries.then(|| "Bearer t1".to_owned())], "{uri} {host}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_named_origin_a_host_header_names_one_just_as_well() {
    let api = Api::new(|layer| layer);
    let request = Request::get("/a").header(header::HOST, "api.test").body(()).unwrap();
    let told = refused(api.send(request).await, "Host");
    assert!(told.contains("add .origin(\"https://api.test\")"), "{told}");
    assert!(api.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn any_https_origin_does_not_pass_over_a_host_header_in_silence() {
    let request = || Request::get("/a").header(header::HOST, "api.test").body(()).unwrap();
    let api = Api::new(|layer| layer.any_https_origin());
    let told = refused(api.send(request()).await, "Host");
    assert!(told.contains("add .origin(\"https://api.test\")"), "{told}");
    assert!(api.sent().is_empty());

    let api = Api::new(|layer| layer.any_https_origin().origin("https://api.test"));
    api.send(request()).await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned())]);
}
