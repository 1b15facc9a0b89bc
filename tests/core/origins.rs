//! The token goes only to named origins, in every spelling of a URI.

use http::{Method, Request, StatusCode, Uri, header};
use tower_refresh::{RefreshLayer, StaticToken, TokenError};

use crate::api::{Api, refused};

// ===== no origin named =====

#[tokio::test(start_paused = true)]
async fn missing_origin_is_an_error_that_names_the_call_to_add() {
    for (uri, call) in [
        ("https://api.test/a", "add .origin(\"https://api.test\")"),
        ("https://api.test:8443/a?b", "add .origin(\"https://api.test:8443\")"),
        // Loopback too, or tests would pass and production not.
        ("http://127.0.0.1:8080/", "add .origin(\"http://127.0.0.1:8080\")"),
        ("http://[::1]:8080/", "add .origin(\"http://[::1]:8080\")"),
        ("http://localhost/", "add .origin(\"http://localhost\")"),
        ("https://localhost/", "add .origin(\"https://localhost\")"),
        ("http://api.test/", "add .plaintext_origin(\"http://api.test\")"),
        ("https://sesame:open@api.test/?key=sesame", "add .origin(\"https://api.test\")"),
    ] {
        let api = Api::new(|layer| layer);
        let told = refused(api.get(uri).await, uri);
        assert!(told.contains(call) && !told.contains("sesame"), "{uri}: {told}");
        assert!(api.sent().is_empty(), "{uri}");
        assert_eq!(api.mint.calls(), 0, "{uri}");
        // Every later request fails likewise.
        assert_eq!(refused(api.get(uri).await, uri), told);
    }
}

// ===== plaintext =====

#[tokio::test(start_paused = true)]
async fn plaintext_origin_off_this_machine_must_be_named_as_one() {
    for origin in [
        "http://api.test",
        "http://api.test:8080",
        "http://localhost.evil.test",
        "http://evil.localhost",
        "http://localhost4",
        "http://127.0.0.1.evil.test",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://10.0.0.1",
        // Some resolvers take these for loopback, and others ask the network.
        "http://localhost.",
        "http://127.0.0.1.",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://[::2]",
        "http://[::]",
        "http://[::ffff:127.0.0.1]",
    ] {
        let error = layer().origin(origin).unwrap_err().to_string();
        let call = format!(".plaintext_origin(\"{origin}\")");
        assert!(error.contains(&call), "{origin}: {error}");

        let api = Api::new(|layer| layer.plaintext_origin(origin).unwrap());
        api.get(&format!("{origin}/")).await.unwrap();
        assert_eq!(api.sent(), [Some("Bearer t1".to_owned())], "{origin}");
    }
    for origin in [
        "http://127.0.0.1",
        "http://127.0.0.1:8080",
        "http://127.255.255.254:1",
        "http://[::1]:8080",
        "http://[0:0:0:0:0:0:0:1]",
        "http://localhost",
        "http://LocalHost:8080",
    ] {
        let api = Api::new(|layer| layer.origin(origin).unwrap());
        api.get(&format!("{origin}/")).await.unwrap();
        assert_eq!(api.sent(), [Some("Bearer t1".to_owned())], "{origin}");
    }
}

#[tokio::test(start_paused = true)]
async fn plaintext_origin_allows_plaintext_for_itself_only() {
    let api = Api::new(|layer| {
        layer.origin("https://api.test").unwrap().plaintext_origin("http://files.test").unwrap()
    });
    api.get("http://api.test/").await.unwrap();
    api.get("http://localhost/").await.unwrap();
    api.get("https://files.test/").await.unwrap();
    assert_eq!(api.take_sent(), [None, None, None]);
    api.get("http://files.test/").await.unwrap();
    assert_eq!(api.sent(), [Some("Bearer t1".to_owned())]);
    for origin in ["http://api.test", "http://files.test:8080"] {
        assert!(layer().plaintext_origin("http://files.test").unwrap().origin(origin).is_err());
    }
}

// ===== foreign origins =====

#[tokio::test(start_paused = true)]
async fn a_foreign_origin_is_left_alone_however_it_is_spelled() {
    let mut parsed = 0;
    for uri in [
        // userinfo
        "https://api.test@evil.test/",
        "https://api.test:443@evil.test/",
        "https://user:password@evil.test/",
        "https://api.test%40evil.test/",
        "https://evil.test%2f@evil.test/",
        "https://evil.test\\@api.test/",
        // port
        "https://api.test:8443/",
        "https://api.test:80/",
        "https://api.test:0/",
        "https://api.test:65979/",
        "https://api.test:+443/",
        "https://api.test:443:443/",
        // scheme
        "http://api.test/",
        "http://api.test:443/",
        "wss://api.test/",
        "ftp://api.test:443/",
        // case
        "HTTPS://EVIL.TEST/",
        // suffix and prefix
        "https://api.test.evil.test/",
        "https://api.test-evil.test/",
        "https://evilapi.test/",
        "https://sub.api.test/",
        "https://test/",
        "https://api.tes/",
        // trailing dots
        "https://api.test../",
        "https://api.test.evil.test./",
        "https://./",
        // IPv6
        "https://[2001:db8::2]/",
        "https://[2001:db8::1]:8443/",
        "https://[::ffff:192.0.2.1]/",
        "https://[2001:db8::1%25eth0]/",
        "https://2001:db8::1/",
        // IPv4 in other spellings is another name
        "https://192.0.2.01/",
        "https://3221225985/",
        // percent
        "https://api%2Etest/",
        "https://%61pi.test/",
        "https://api.test%00.evil.test/",
        // IDN
        "https://\u{430}pi.test/",
        "https://api\u{3002}test/",
        "https://xn--pi-7ia.test/",
    ] {
        let Ok(target) = uri.parse::<Uri>() else {
            continue;
        };
        parsed += 1;
        let api = Api::new(|layer| {
            layer
                .origins(["https://api.test", "https://[2001:db8::1]", "https://192.0.2.1"])
                .unwrap()
        })
        .rejecting();
        let answer = api.get(uri).await.unwrap();
        // The request and its response are unchanged, and a 401 from a foreign origin starts no refresh.
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{uri}");
        assert_eq!(api.sent(), [None], "{uri}");
        assert_eq!(*api.uris.lock().unwrap(), [target], "{uri}");
        assert_eq!(api.mint.calls(), 0, "{uri}");
    }
    assert!(parsed >= 25, "{parsed}");
}

#[tokio::test(start_paused = true)]
async fn a_named_origin_is_itself_however_it_is_spelled() {
    for (origin, uri) in [
        ("https://api.test", "https://api.test"),
        ("https://api.test", "https://api.test/a/b?c=https://evil.test"),
        ("https://api.test", "HTTPS://API.Test/"),
        ("https://api.test", "https://api.test:443/"),
        ("https://api.test", "https://api.test:/"),
        ("https://api.test", "https://api.test./"),
        ("HTTPS://Api.Test.:443/", "https://api.test/"),
        ("https://[2001:DB8:0::1]", "https://[2001:db8::0:1]:443/"),
        ("http://localhost:80", "http://LOCALHOST/"),
    ] {
        let api = Api::new(|layer| layer.origin(origin).unwrap());
        api.get(uri).await.unwrap();
        assert_eq!(api.sent(), [Some("Bearer t1".to_owned())], "{origin} {uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn userinfo_before_a_named_host_is_refused_and_not_shown() {
    for any in [false, true] {
        let api = Api::new(|layer| match any {
            false => layer.origin("https://api.test").unwrap(),
            true => layer.any_https_origin(),
        });
        for uri in ["https://sesame:open@api.test/", "https://evil.test@sesame@api.test/"] {
            if uri.parse::<Uri>().is_err() {
                continue;
            }
            let told = refused(api.get(uri).await, uri);
            assert!(told.contains("remove it") && !told.contains("sesame"), "{told}");
        }
        assert!(api.sent().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn each_origin_is_named_and_any_https_origin_excludes_http() {
    let all = ["https://api.test", "https://files.test:8443", "http://127.0.0.1:8080"];
    for api in [
        Api::new(|layer| layer.origins(all).unwrap()),
        Api::new(|layer| all.iter().fold(layer, |layer, origin| layer.origin(origin).unwrap())),
    ] {
        for (uri, carries) in [
            ("https://api.test/", true),
            ("https://files.test:8443/", true),
            ("http://127.0.0.1:8080/", true),
            ("https://files.test/", false),
            ("https://api.test:8443/", false),
            ("https://127.0.0.1:8080/", false),
            ("http://127.0.0.1:8081/", false),
        ] {
            api.get(uri).await.unwrap();
            assert_eq!(api.take_sent(), [carries.then(|| "Bearer t1".to_owned())], "{uri}");
        }
    }

    let api = Api::new(|layer| layer.any_https_origin().origin("http://127.0.0.1:8080").unwrap());
    for (uri, carries) in [
        ("https://api.test/", true),
        ("https://anything.test:8443/", true),
        ("https://[2001:db8::1]/", true),
        ("http://127.0.0.1:8080/", true),
        ("http://127.0.0.1:8081/", false),
        ("http://api.test/", false),
        ("http://api.test:443/", false),
        ("wss://api.test/", false),
    ] {
        api.get(uri).await.unwrap();
        assert_eq!(api.take_sent(), [carries.then(|| "Bearer t1".to_owned())], "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_origin_is_an_error_where_it_is_named() {
    for (origin, what) in [
        ("api.test", "write .origin(\"https://api.test\")"),
        ("https://api.test/v1", "write .origin(\"https://api.test\")"),
        ("https://api.test?key=sesame", "write .origin(\"https://api.test\")"),
        ("https://sesame:open@api.test", "write .origin(\"https://api.test\")"),
        ("wss://api.test", "write .origin(\"https://api.test\")"),
        ("https://*.test", "without a wildcard"),
        ("https://api.test:99999", "write .origin(\"https://api.test:8443\")"),
        ("", "no host"),
    ] {
        for error in [
            layer().origin(origin).unwrap_err(),
            layer().origins(["https://good.test", origin, "wrong"]).unwrap_err(),
        ] {
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(what) && !shown.contains("sesame"), "{origin}: {shown}");
        }
    }
}

// ===== requests that never carry the token =====

#[tokio::test(start_paused = true)]
async fn connect_and_trace_never_carry_the_token() {
    for (method, uri) in [
        (Method::TRACE, "https://api.test/"),
        (Method::TRACE, "/"),
        (Method::CONNECT, "https://api.test/"),
        (Method::CONNECT, "api.test:443"),
        (Method::CONNECT, "/"),
    ] {
        let api = Api::new(|layer| layer.origin("https://api.test").unwrap()).rejecting();
        let request = Request::builder().method(method.clone()).uri(uri).body(()).unwrap();
        assert_eq!(api.send(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.sent(), [None], "{method} {uri}");
        assert_eq!(api.mint.calls(), 0, "{method} {uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_header_is_kept_and_its_401_costs_nothing() {
    let api = Api::new(|layer| layer.origin("https://api.test").unwrap()).rejecting();
    for own in ["Basic YTpi", "Bearer mine", "Bearer t1", ""] {
        let request =
            Request::get("https://api.test/").header(header::AUTHORIZATION, own).body(()).unwrap();
        let answer = api.send(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{own}");
        assert!(answer.extensions().get::<TokenError>().is_none(), "{own}");
        assert_eq!(api.take_sent(), [Some(own.to_owned())]);
        assert_eq!(api.mint.calls(), 0, "{own}");
    }

    // Even while no origin is named: it is not our request.
    let api = Api::new(|layer| layer);
    let request = Request::get("https://api.test/")
        .header(header::AUTHORIZATION, "Basic YTpi")
        .body(())
        .unwrap();
    api.send(request).await.unwrap();
    assert_eq!(api.sent(), [Some("Basic YTpi".to_owned())]);
}

fn layer() -> RefreshLayer {
    RefreshLayer::new(StaticToken::new("sesame".parse().unwrap()))
}
