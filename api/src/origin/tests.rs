use super::*;

const ALLOWED: &str = "https://app.example.org";

/// What a Carga answers to a request with these headers.
fn answer(on_loopback: bool, host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> String {
    let sender = Sender {
        host,
        origin,
        fetch_site,
    };
    let server = Server {
        on_loopback,
        uses_tls: false,
    };
    answer_of(server, sender)
}

fn answer_of(server: Server, sender: Sender<'_>) -> String {
    let allowed: AllowedOrigins = ALLOWED.parse().unwrap();
    match sender.check(&allowed, server) {
        Ok(()) => "accepted".to_owned(),
        Err((status, refusal)) => format!("{} {}", status.as_u16(), refusal.failure.code),
    }
}

fn on_loopback(host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> String {
    answer(true, host, origin, fetch_site)
}

#[test]
fn a_request_without_headers_of_a_browser_is_accepted() {
    assert_eq!(on_loopback("127.0.0.1:8080", None, None), "accepted");
}

#[test]
fn a_request_from_a_page_of_another_origin_is_refused() {
    let host = "localhost:8080";
    for origin in [
        "https://evil.example",
        "null",
        "",
        "?",
        "http://localhost:3000",
        "localhost:8080",
    ] {
        let answer = on_loopback(host, Some(origin), None);
        assert_eq!(answer, "403 cross_origin", "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        for origin in [None, Some("http://localhost:8080")] {
            let answer = on_loopback(host, origin, Some(site));
            assert_eq!(answer, "403 cross_origin", "{origin:?} {site}");
        }
    }
}

#[test]
fn a_request_from_a_page_of_this_server_is_accepted() {
    for site in [None, Some("same-origin"), Some("none")] {
        for origin in [None, Some("http://localhost:8080")] {
            let answer = on_loopback("localhost:8080", origin, site);
            assert_eq!(answer, "accepted", "{origin:?} {site:?}");
        }
    }
    for host in [
        "carga.example.org",
        "Carga.example.org",
        "carga.example.org:443",
    ] {
        let answer = answer(false, host, Some("https://carga.example.org"), None);
        assert_eq!(answer, "accepted", "{host}");
    }
}

#[test]
fn a_server_with_tls_has_no_page_without_tls() {
    for (uses_tls, scheme, expected) in [
        (true, "https", "accepted"),
        (true, "http", "403 cross_origin"),
        (false, "https", "accepted"),
        (false, "http", "accepted"),
    ] {
        let server = Server {
            on_loopback: false,
            uses_tls,
        };
        let origin = format!("{scheme}://carga.example.org:8443");
        let sender = Sender {
            host: "carga.example.org:8443",
            origin: Some(&origin),
            fetch_site: None,
        };
        assert_eq!(answer_of(server, sender), expected, "{uses_tls} {scheme}");
    }
}

#[test]
fn an_allowed_origin_is_accepted_from_another_site_but_not_under_a_wrong_host() {
    let (origin, site) = (Some(ALLOWED), Some("cross-site"));
    assert_eq!(on_loopback("localhost", origin, site), "accepted");
    assert_eq!(on_loopback("evil.example", origin, site), "421 wrong_host");
}

#[test]
fn on_loopback_the_host_must_be_localhost_or_an_address() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "localhost.:8080",
        "127.0.0.1",
        "192.0.2.1:80",
        "[::1]",
        "[::1]:80",
    ] {
        assert_eq!(on_loopback(host, None, None), "accepted", "{host}");
    }
    for host in [
        "",
        "?",
        "evil.example:8080",
        "localhost.evil.example",
        "localhost..",
        "127.0.0.1.evil.example",
    ] {
        assert_eq!(on_loopback(host, None, None), "421 wrong_host", "{host}");
        assert_eq!(answer(false, host, None, None), "accepted", "{host}");
    }
}

#[test]
fn only_localhost_and_names_below_it_are_localhost() {
    let names_localhost = |host: &str| {
        let request = Request::builder().header("host", host);
        names_localhost(&request.body(axum::body::Body::empty()).unwrap())
    };
    for host in [
        "localhost",
        "LocalHost:8443",
        "carga.localhost",
        "localhost.:8443",
    ] {
        assert!(names_localhost(host), "{host}");
    }
    for host in ["127.0.0.1", "carga.example.org", "localhost.example", ""] {
        assert!(!names_localhost(host), "{host}");
    }
}
