//! Refuses requests from web pages of other origins.
//!
//! On loopback, Carga usually requires no key, and a form or an empty POST needs no CORS preflight.
//! Without this layer, any web page could import files into a Carga on its visitor's machine and
//! undo uploads there. Browsers set the headers that are checked here, and a page cannot change
//! them. Other programs, such as curl, send neither `Origin` nor `Sec-Fetch-Site`.

use std::net::IpAddr;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::uri::Authority;
use carga_common::settings::{AllowedOrigins, IntakeSettings};
use carga_intake::refusal::Refusal;

use crate::problem::ApiError;
use crate::routes;

/// Refuses the request of a page of another origin.
pub(crate) fn check(request: &Request, settings: &IntakeSettings) -> Result<(), ApiError> {
    // Probes may use any name as host, and a link on any page may lead to the documentation, which
    // is the same for everybody.
    let path = request.extensions().get::<MatchedPath>();
    if path.is_some_and(|path| routes::is_public(path.as_str())) {
        return Ok(());
    }
    let server = Server {
        on_loopback: settings.listen.ip().to_canonical().is_loopback(),
        uses_tls: settings.tls.is_some(),
    };
    let checked = Sender::of(request).check(&settings.allowed_origins, server);
    checked.map_err(|(status, refusal)| {
        tracing::warn!(%refusal, "refused a request");
        ApiError::new(status, refusal)
    })
}

/// Whether the request names this server `localhost`, or a name below it.
pub(crate) fn names_localhost(request: &Request) -> bool {
    let host = Sender::of(request).host.parse::<Authority>();
    host.is_ok_and(|host| is_localhost(host.host()))
}

/// What the check knows about this server.
#[derive(Debug, Clone, Copy)]
struct Server {
    on_loopback: bool,
    uses_tls: bool,
}

/// The headers that show where a request comes from and which server it is for.
#[derive(Debug, Clone, Copy)]
struct Sender<'a> {
    host: &'a str,
    origin: Option<&'a str>,
    fetch_site: Option<&'a str>,
}

impl<'a> Sender<'a> {
    fn of(request: &'a Request) -> Self {
        let text = |name: &str| {
            let value = request.headers().get(name)?;
            // A value that is not ASCII is replaced by `?`, which matches no host and no origin.
            Some(value.to_str().unwrap_or("?"))
        };
        Self {
            // A request line with a whole URL overrides `Host` (RFC 9112, 3.2.2).
            host: match request.uri().authority() {
                Some(authority) => authority.as_str(),
                None => text("host").unwrap_or_default(),
            },
            origin: text("origin"),
            fetch_site: text("sec-fetch-site"),
        }
    }

    fn check(self, allowed: &AllowedOrigins, server: Server) -> Result<(), (StatusCode, Refusal)> {
        // The owner of evil.example can let that name point to 127.0.0.1 (DNS rebinding). Browsers
        // then treat Carga as part of that site, and only `Host` shows the difference.
        let is_ours = is_localhost_or_address(self.host) || allowed.has_host(self.host);
        if server.on_loopback && !is_ours {
            let refusal = Refusal::malformed("wrong_host", wrong_host(self.host));
            return Err((StatusCode::MISDIRECTED_REQUEST, refusal));
        }
        let message = match (self.origin, self.fetch_site) {
            (Some(origin), _) if allowed.contains(origin) => return Ok(()),
            (Some(origin), _) if !is_origin_of(origin, self.host, server) => foreign_origin(origin),
            // Even if `Origin` is missing or is our own: the page can still be foreign.
            (_, Some(site @ ("cross-site" | "same-site"))) => foreign_site(site),
            _ => return Ok(()),
        };
        let refusal = Refusal::malformed("cross_origin", message);
        Err((StatusCode::FORBIDDEN, refusal))
    }
}

fn is_localhost_or_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    is_localhost(name) || in_brackets.unwrap_or(name).parse::<IpAddr>().is_ok()
}

/// Browsers resolve all names below `localhost` to this machine themselves. A name may end with the
/// dot of the root.
fn is_localhost(name: &str) -> bool {
    const LOCALHOST: &[u8] = b"localhost";
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let at = name.len().saturating_sub(LOCALHOST.len());
    let (above, last) = name.split_at(at);
    last.eq_ignore_ascii_case(LOCALHOST) && above.last().is_none_or(|byte| *byte == b'.')
}

/// Whether `origin` is the origin of the server that the request names as `host`. A page without
/// TLS is not from a server with TLS: an attacker on the network may have sent it under the same
/// name.
fn is_origin_of(origin: &str, host: &str, server: Server) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    // Browsers leave out the default port, and some proxies add it.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let is_possible = !server.uses_tls || scheme == "https";
    is_possible && !host.is_empty() && authority.eq_ignore_ascii_case(host)
}

// The messages cut long values, because they are logged.

fn wrong_host(host: &str) -> String {
    format!(
        "`{host:.200}` is not `localhost` or an IP address; use one of them in the URL; if you reach Carga through a proxy, add the proxy's origin to CARGA_ALLOWED_ORIGINS"
    )
}

fn foreign_origin(origin: &str) -> String {
    match origin {
        "null" => "the request comes from a page without an origin (Origin: null); use a page of an origin that is in CARGA_ALLOWED_ORIGINS".to_owned(),
        _ => format!(
            "the request comes from {origin:.200}; add it to CARGA_ALLOWED_ORIGINS if this page may use Carga"
        ),
    }
}

fn foreign_site(site: &str) -> String {
    format!(
        "the request comes from a page of another origin (Sec-Fetch-Site: {site}); enter the address in the browser instead"
    )
}

#[cfg(test)]
mod tests;
