//! The `Host` header must be a named origin: beside the authority of the URI, and without one.

use http::{Request, StatusCode, Version, header};

use crate::api::{Api, refused};

#[tokio::test(start_paused = true)]
async fn request_without_authority_is_judged_by_its_host_header() {
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
    let api = Api::new(|layer| layer.origin("https://api.test").unwrap());
    for (hosts, carries) in hosts {
        let mut request = Request::get("/a").body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, host.parse().unwrap());
        }
        api.send(request).await.unwrap();
        assert_eq!(api.take_sent(), [carries.then(|| "Bearer t1".to_owned())], "{hosts:?}");
    }

    // The inner client fixes the destination, so that no origin has to be named.
    let api = Api::new(|layer| layer);
    api.get("/a").await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned())]);
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

    let api = Api::new(|layer| layer.any_https_origin().origin("https://api.test").unwrap());
    api.send(request()).await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned())]);
}

// ===== beside an authority =====

/// S6: a server or a proxy on the way may route by `Host` alone.
#[tokio::test(start_paused = true)]
async fn host_that_is_not_a_named_origin_gets_no_token() {
    let foreign: [&[&str]; 21] = [
        &["evil.test"],
        &["EVIL.test."],
        &["evil.test:443"],
        // Another port, or the default port of another scheme.
        &["api.test:8443"],
        &["api.test:80"],
        &["api.test:0"],
        // Two readers may disagree about these.
        &["api.test:+443"],
        &["api.test:99999"],
        &["api.test:443:443"],
        &["api.test.."],
        &["api.test.evil.test"],
        &["api.test@evil.test"],
        &["api.test, evil.test"],
        &["https://api.test"],
        &["api.test/"],
        &["[2001:db8::1"],
        &["[2001:db8::2]"],
        &["2001:db8::1"],
        &[""],
        // A second `Host` (RFC 9112 §3.2).
        &["api.test", "evil.test"],
        &["evil.test", "api.test"],
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for hosts in foreign {
            let api = Api::new(|layer| {
                layer.origins(["https://api.test", "https://[2001:db8::1]"]).unwrap()
            })
            .rejecting();
            let answer = api.send(request("https://api.test/a", version, hosts)).await.unwrap();
            // The request and its response pass unchanged, and the 401 starts no refresh.
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{hosts:?}");
            assert_eq!(api.sent(), [None], "{version:?} {hosts:?}");
            assert_eq!(api.headers().get_all(header::HOST).iter().count(), hosts.len());
            assert_eq!(api.mint.calls(), 0, "{hosts:?}");
        }
    }
}

/// S6
#[tokio::test(start_paused = true)]
async fn token_is_attached_if_authority_and_host_are_both_named() {
    let named = ["https://api.test", "https://[2001:DB8::1]:8443", "http://127.0.0.1:8080"];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (uri, hosts) in [
            ("https://api.test/", &["api.test"] as &[&str]),
            ("https://api.test/", &["API.Test"]),
            ("https://api.test/", &["api.test."]),
            ("https://api.test/", &["api.test:443"]),
            ("https://api.test/", &["api.test:"]),
            ("https://api.test:443/", &["api.test"]),
            ("https://api.test/", &["api.test", "api.test:443"]),
            ("https://[2001:db8::1]:8443/", &["[2001:db8:0::0:1]:8443"]),
            ("http://127.0.0.1:8080/", &["127.0.0.1:8080"]),
            // Two origins that are both named, as behind a proxy.
            ("https://[2001:db8::1]:8443/", &["api.test"]),
        ] {
            let api = Api::new(|layer| layer.origins(named).unwrap());
            api.send(request(uri, version, hosts)).await.unwrap();
            assert_eq!(api.sent(), [Some("Bearer t1".to_owned())], "{uri} {hosts:?}");
        }
    }
}

/// S6: the `Host` of an https request is not named by an http origin.
#[tokio::test(start_paused = true)]
async fn host_counts_with_the_scheme_of_the_uri() {
    let named = ["https://api.test", "http://127.0.0.1", "https://both.test:80"];
    for (uri, host, carries) in [
        ("https://api.test/", "127.0.0.1", false),
        ("https://api.test/", "127.0.0.1:80", false),
        ("http://127.0.0.1/", "api.test:443", false),
        ("http://127.0.0.1/", "both.test:80", false),
        ("https://api.test/", "both.test:80", true),
    ] {
        let api = Api::new(|layer| layer.origins(named).unwrap());
        api.send(request(uri, Version::HTTP_11, &[host])).await.unwrap();
        assert_eq!(api.sent(), [carries.then(|| "Bearer t1".to_owned())], "{uri} {host}");
    }
}

/// S6
#[tokio::test(start_paused = true)]
async fn named_host_does_not_admit_a_foreign_authority() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let api = Api::new(|layer| layer.origin("https://api.test").unwrap());
        api.send(request("https://evil.test/", version, &["api.test"])).await.unwrap();
        assert_eq!(api.sent(), [None]);
    }
}

/// S6: any https origin may get the token, but a `Host` that is no host names none.
#[tokio::test(start_paused = true)]
async fn any_https_origin_admits_every_valid_host() {
    for (uri, host, carries) in [
        ("https://api.test/", "other.test:8443", true),
        ("https://api.test/", "[2001:db8::1]", true),
        ("https://api.test/", "", false),
        ("https://api.test/", "a b", false),
        ("https://api.test/", "https://api.test", false),
        ("https://api.test/", "api.test/a", false),
        ("https://api.test/", "api.test\\", false),
        ("https://api.test/", "api.test:99999", false),
        ("http://api.test/", "api.test", false),
    ] {
        let api = Api::new(|layer| layer.any_https_origin());
        api.send(request(uri, Version::HTTP_11, &[host])).await.unwrap();
        assert_eq!(api.sent(), [carries.then(|| "Bearer t1".to_owned())], "{uri} {host:?}");
    }
}

/// S6: `Host` has no userinfo (RFC 9110 §7.2).
#[tokio::test(start_paused = true)]
async fn userinfo_in_a_host_header_is_an_error_that_names_it() {
    for uri in ["https://api.test/", "/a"] {
        let api = Api::new(|layer| layer.origin("https://api.test").unwrap());
        let answer = api.send(request(uri, Version::HTTP_11, &["sesame:open@api.test"])).await;
        let message = refused(answer, uri);
        assert!(message.contains("`Host` header has userinfo"), "{message}");
        assert!(message.contains("remove it") && !message.contains("sesame"), "{message}");
        assert!(api.sent().is_empty());
    }
}

/// S6: over HTTP/2 the `Host` that the caller has set is sent beside `:authority`.
#[tokio::test(start_paused = true)]
async fn request_with_a_named_host_is_retried_with_it() {
    let api = Api::new(|layer| layer.origin("https://api.test").unwrap()).rejecting();
    api.send(request("https://api.test/", Version::HTTP_2, &["api.test:443"])).await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned()), Some("Bearer t2".to_owned())]);
    assert_eq!(api.headers()[header::HOST], "api.test:443");
}

fn request(uri: &str, version: Version, hosts: &[&str]) -> Request<()> {
    let mut request = Request::get(uri).version(version).body(()).unwrap();
    for host in hosts {
        request.headers_mut().append(header::HOST, host.parse().unwrap());
    }
    request
}
