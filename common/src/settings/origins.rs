//! The origins whose web pages may use the API.

use std::net::Ipv6Addr;
use std::str::FromStr;

use super::reader::Reader;

/// Origins whose pages may use the API, besides its own. They are kept in the form in which
/// browsers send them: in lower case and without a default port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<String>);

/// A part of the list that is not an origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an origin; write scheme, host and port without a path, such as https://app.example.org or http://localhost:3000"
)]
pub struct NotAnOrigin(String);

impl AllowedOrigins {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        const NAME: &str = "CARGA_ALLOWED_ORIGINS";
        let text = reader.optional(NAME, None).unwrap_or_default();
        text.parse().unwrap_or_else(|fault: NotAnOrigin| {
            reader.fault(format!("{NAME}={text}: {fault}"));
            Self::default()
        })
    }

    /// Whether no other origin is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value of a header `Origin` is one of these origins.
    pub fn contains(&self, origin: &str) -> bool {
        self.0
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

impl AllowedOrigins {
    /// Whether one of these origins has this host and port. A proxy may pass such a host on.
    pub fn has_host(&self, host: &str) -> bool {
        self.0.iter().any(|origin| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        })
    }
}

impl FromStr for AllowedOrigins {
    type Err = NotAnOrigin;

    /// Parses a list with commas. An empty list allows no other origin.
    fn from_str(list: &str) -> Result<Self, NotAnOrigin> {
        let origins = list
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty());
        let normalized = origins.map(|origin| {
            normalize(&origin.to_ascii_lowercase()).ok_or_else(|| NotAnOrigin(origin.to_owned()))
        });
        normalized.collect::<Result<_, _>>().map(Self)
    }
}

/// The origin without its default port, or `None` if the text is not the origin of a web page.
fn normalize(origin: &str) -> Option<String> {
    let (scheme, authority) = origin.split_once("://")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of an IPv6 address without a port is inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (authority, default_port),
    };
    if !is_host(host) {
        return None;
    }
    Some(match port == default_port {
        true => format!("{scheme}://{host}"),
        false => format!("{scheme}://{host}:{port}"),
    })
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(is_allowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_origins_is_compared_in_the_form_that_browsers_send() {
        let list = "https://App.Example.org:443, http://localhost:3000,http://[::1]:80,";
        let allowed: AllowedOrigins = list.parse().unwrap();
        for origin in [
            "https://app.example.org",
            "http://localhost:3000",
            "http://[::1]",
        ] {
            assert!(allowed.contains(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://app.example.org",
            "http://localhost",
            "https://example.org",
        ] {
            assert!(!allowed.contains(origin), "{origin}");
        }
        assert_eq!("".parse::<AllowedOrigins>(), Ok(AllowedOrigins::default()));
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused() {
        for wrong in [
            "*",
            "null",
            "app.example.org",
            "https://",
            "https://app.example.org/",
            "https://*.example.org",
            "https://user@example.org",
            "https://app.example.org:https",
            "ftp://example.org",
            "http://[::1",
        ] {
            let list = format!("https://example.org,{wrong}");
            let fault = list.parse::<AllowedOrigins>().unwrap_err();
            assert_eq!(fault, NotAnOrigin(wrong.to_owned()));
        }
    }
}
