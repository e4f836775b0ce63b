//! Logs at start who may use the API.

use std::net::IpAddr;

use axum::http::Uri;
use carga_common::access::{KeyRecord, KeyState, Scope};
use carga_common::error::PortResult;
use carga_common::settings::{Authentication, JwtKeys, SecretUrl, Settings};
use carga_common::store::{KeyPosition, KeyStore, Store};
use jiff::Timestamp;

/// How many keys are read at once.
const PAGE: u32 = 100;

/// How many pages are read. A server with more keys than these needs no hint how to make one.
const MAX_PAGES: usize = 20;

/// Logs at start who may use the API, and how to make a key that may make further keys.
pub(crate) async fn announce(
    settings: &Settings,
    authentication: &Authentication,
    store: &dyn Store,
) {
    if matches!(authentication, Authentication::On(_)) && is_in_the_clear(settings) {
        tracing::warn!(
            "keys and files are sent to this address without encryption; set CARGA_TLS_CERT and CARGA_TLS_KEY, or let a proxy with TLS receive all requests"
        );
    }
    if matches!(authentication, Authentication::On(_)) {
        for warning in warnings_of_jwts(settings) {
            tracing::warn!("{warning}");
        }
    }
    match authentication {
        Authentication::Off => warnings(settings)
            .into_iter()
            .for_each(|warning| tracing::warn!("authentication is off, {warning}")),
        Authentication::On(Some(_)) => {
            tracing::info!("every request needs an API key; CARGA_ADMIN_KEY is one");
        }
        Authentication::On(None) => match has_active_admin(store).await {
            Ok(false) => tracing::warn!(
                "every request needs an API key, and no key with scope `admin` is active; make one with `carga keys create --admin` (with Docker Compose: `docker compose run --rm carga keys create --admin`), or set CARGA_ADMIN_KEY"
            ),
            Ok(true) => tracing::info!("every request needs an API key"),
            Err(error) => tracing::warn!(error = error.chain(), "cannot look for API keys"),
        },
    }
}

/// Whether other machines can reach the server without TLS, unless a proxy adds it.
fn is_in_the_clear(settings: &Settings) -> bool {
    is_for_others(settings) && settings.intake.tls.is_none()
}

fn is_for_others(settings: &Settings) -> bool {
    !settings.intake.listen.ip().to_canonical().is_loopback()
}

/// The warnings about the settings for JWTs.
fn warnings_of_jwts(settings: &Settings) -> Vec<&'static str> {
    let Some(jwt) = &settings.access.jwt else {
        return Vec::new();
    };
    let warnings = [
        (
            matches!(&jwt.keys, JwtKeys::Url(url) if is_in_the_clear_elsewhere(url)),
            "CARGA_JWT_JWKS is an http: URL of another machine, so anyone who can change the answer in transit can sign JWTs with any scope; use an https: URL or a file",
        ),
        (
            jwt.issuer.is_none(),
            "CARGA_JWT_ISSUER is not set, so a JWT may have any `iss`; set it to that of the issuer",
        ),
        (
            jwt.audience.is_none(),
            "CARGA_JWT_AUDIENCE is not set, so a JWT without `aud` may have been made for another service; set it, and let the issuer make JWTs for Carga with this `aud`",
        ),
    ];
    due(warnings)
}

/// Whether a document is read without TLS from another machine.
fn is_in_the_clear_elsewhere(url: &SecretUrl) -> bool {
    let uri = url.expose().parse::<Uri>();
    let is_here = uri.is_ok_and(|uri| uri.host().is_some_and(is_loopback_host));
    url.scheme() == "http" && !is_here
}

fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The warnings that apply.
fn due<const N: usize>(warnings: [(bool, &'static str); N]) -> Vec<&'static str> {
    let due = warnings.into_iter().filter(|(is_due, _)| *is_due);
    due.map(|(_, warning)| warning).collect()
}

/// The warnings for a server whose requests need no key.
fn warnings(settings: &Settings) -> Vec<&'static str> {
    let is_for_others = is_for_others(settings);
    let has_origins = !settings.intake.allowed_origins.is_empty();
    let warnings = [
        (
            settings.access.admin_key.is_some(),
            "so CARGA_ADMIN_KEY has no effect; set CARGA_AUTH=on to require keys",
        ),
        (
            settings.access.jwt.is_some(),
            "so CARGA_JWT_SECRET and CARGA_JWT_JWKS have no effect; set CARGA_AUTH=on to require keys or JWTs",
        ),
        (
            is_for_others,
            "so every client that reaches this address may read, change and delete everything; set CARGA_AUTH=on to require keys",
        ),
        (
            has_origins && !is_for_others,
            "and CARGA_ALLOWED_ORIGINS is set: if a proxy forwards requests of other machines, their senders may read, change and delete everything; set CARGA_AUTH=on to require keys",
        ),
        (
            has_origins && is_for_others,
            "and the pages of the origins in CARGA_ALLOWED_ORIGINS may read, change and delete everything through the browser of every visitor; set CARGA_AUTH=on to require keys",
        ),
    ];
    due(warnings)
}

/// Whether a key with scope `admin` may be used now. The oldest keys are read first, and the first
/// key is usually such a key.
async fn has_active_admin(store: &dyn KeyStore) -> PortResult<bool> {
    let now = Timestamp::now();
    let is_admin =
        |key: &KeyRecord| key.scopes.contain(Scope::Admin) && key.state(now) == KeyState::Active;
    let mut after: Option<KeyPosition> = None;
    for _ in 0..MAX_PAGES {
        let page = store.keys(None, after.as_ref(), PAGE).await?;
        if page.iter().any(is_admin) {
            return Ok(true);
        }
        let Some(last) = page.last() else {
            return Ok(false);
        };
        after = Some(KeyPosition::from(last));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use carga_common::settings::Mode;
    use jiff::SignedDuration;

    use super::super::keys::tests::Fixed;
    use super::*;

    const ADMIN: &str = "an-admin-key-of-more-than-32-characters";

    fn read(settings: &[(&str, &str)]) -> Settings {
        let read = Settings::read(Mode::Embedded, &|name| {
            let mut found = settings.iter().filter(|(setting, _)| *setting == name);
            found.next().map(|(_, value)| (*value).to_owned())
        });
        read.unwrap()
    }

    /// Words of the warnings with these settings.
    fn expect_warnings(settings: &[(&str, &str)], expected: &[&str]) {
        let warnings = warnings(&read(settings));
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, word) in warnings.iter().zip(expected) {
            assert!(warning.contains(word), "{warning}");
        }
    }

    #[test]
    fn every_danger_of_requests_without_keys_has_its_warning() {
        let off = ("CARGA_AUTH", "off");
        let admin = ("CARGA_ADMIN_KEY", ADMIN);
        let origins = ("CARGA_ALLOWED_ORIGINS", "https://app.example.org");
        let effect = "CARGA_ADMIN_KEY has no effect";
        let everybody = "every client that reaches this address";
        expect_warnings(&[off], &[]);
        expect_warnings(&[off, admin], &[effect]);
        let jwt = ("CARGA_JWT_JWKS", "/etc/carga/jwks.json");
        expect_warnings(&[off, jwt], &["CARGA_JWT_JWKS have no effect"]);
        expect_warnings(&[off, origins], &["proxy"]);
        for listen in ["0.0.0.0:0", "[::]:0"] {
            let listen = ("CARGA_LISTEN", listen);
            expect_warnings(&[off, listen], &[everybody]);
            expect_warnings(&[off, listen, admin], &[effect, everybody]);
            expect_warnings(&[off, listen, origins], &[everybody, "pages"]);
        }
    }

    #[test]
    fn requests_are_in_the_clear_without_tls_on_an_address_that_is_not_loopback() {
        let listen = ("CARGA_LISTEN", "0.0.0.0:0");
        let certificate = ("CARGA_TLS_CERT", "cert.pem");
        let key = ("CARGA_TLS_KEY", "key.pem");
        assert!(is_in_the_clear(&read(&[listen])));
        assert!(!is_in_the_clear(&read(&[listen, certificate, key])));
        assert!(!is_in_the_clear(&read(&[])));
    }

    #[test]
    fn jwts_of_an_unknown_issuer_audience_or_source_are_announced() {
        let warnings = |settings: &[(&str, &str)]| warnings_of_jwts(&read(settings)).join("\n");
        let expect = |settings: &[(&str, &str)], expected: &[&str]| {
            let warnings = warnings(settings);
            assert_eq!(warnings.lines().count(), expected.len(), "{warnings}");
            for expected in expected {
                assert!(warnings.contains(expected), "{warnings}");
            }
        };
        let (issuer, audience) = (("CARGA_JWT_ISSUER", "x"), ("CARGA_JWT_AUDIENCE", "x"));
        let jwks = |url: &'static str| ("CARGA_JWT_JWKS", url);
        expect(&[], &[]);
        let file = jwks("/etc/jwks.json");
        expect(&[file], &["CARGA_JWT_ISSUER", "CARGA_JWT_AUDIENCE"]);
        expect(&[file, issuer], &["CARGA_JWT_AUDIENCE"]);
        expect(&[file, issuer, audience], &[]);
        for url in ["http://id.example.org/jwks", "http://192.0.2.1:8080/jwks"] {
            expect(&[jwks(url), issuer, audience], &["CARGA_JWT_JWKS"]);
        }
        for url in [
            "https://id.example.org/jwks",
            "http://localhost:8080/jwks",
            "http://127.0.0.1/jwks",
            "http://[::1]:8080/jwks",
        ] {
            expect(&[jwks(url), issuer, audience], &[]);
        }
    }

    #[tokio::test]
    async fn only_an_active_key_with_scope_admin_may_make_keys() {
        let mut store = Fixed::default();
        assert!(!has_active_admin(&store).await.unwrap());
        store.add(|_| ());
        store.add(|key| {
            key.scopes = "admin".parse().unwrap();
            key.revoked_at = Some(Timestamp::now());
        });
        store.add(|key| {
            key.scopes = "admin".parse().unwrap();
            key.expires_at = Some(Timestamp::now() - SignedDuration::from_secs(1));
        });
        assert!(!has_active_admin(&store).await.unwrap());
        for _ in 0..2 * PAGE {
            store.add(|_| ());
        }
        store.add(|key| key.scopes = "admin".parse().unwrap());
        assert!(has_active_admin(&store).await.unwrap());
    }
}
