//! The address of a client.
//!
//! It is the address at the other end of the connection, unless that is a trusted proxy. Only such
//! a proxy may say whose request it passes on, because everybody can send the fields in which it
//! does. The last address that is not that of a trusted proxy counts: a proxy adds the address that
//! it sees at the end, so everything before that address comes from the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use carga_common::settings::TrustedProxies;

/// The field that most proxies send.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client that has sent the request.
pub(crate) fn client_address(request: &Request, proxies: &TrustedProxies) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    // The server adds the peer to every request.
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let peer = peer.map_or(unknown, |ConnectInfo(peer)| peer.ip().to_canonical());
    match proxies.contains(peer) {
        true => forwarded_address(peer, request.headers(), proxies),
        false => peer,
    }
}

/// The address that a trusted proxy names. `X-Forwarded-For` takes the place of `Forwarded`,
/// because a proxy that sends the former may pass on the latter as it came from the client.
///
/// Each line of a field is read alone, the last one first. A proxy may append its part to a line of
/// the client or add a line of its own, and a quote of the client must not reach into that line.
fn forwarded_address(proxy: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    let lines = |name: &str| {
        let lines = headers.get_all(name).iter().rev();
        lines.map(HeaderValue::as_bytes)
    };
    if headers.contains_key(X_FORWARDED_FOR) {
        let elements = lines(X_FORWARDED_FOR).flat_map(|line| line.rsplit(|byte| *byte == b','));
        let addresses = elements.map(|element| address(element.trim_ascii()));
        return last_untrusted(proxy, addresses, proxies);
    }
    let elements = lines(header::FORWARDED.as_str()).flat_map(elements_from_the_end);
    last_untrusted(proxy, elements.map(element_address), proxies)
}

/// The first of these addresses, from the end of a field, that is not that of a trusted proxy. If
/// all of them are, the last one. Reads no further than to the address that it returns.
fn last_untrusted(
    proxy: IpAddr,
    addresses: impl Iterator<Item = Option<IpAddr>>,
    proxies: &TrustedProxies,
) -> IpAddr {
    let mut nearest = proxy;
    for address in addresses {
        // What stands before an address that cannot be read was not written by a trusted proxy.
        let Some(address) = address else {
            return nearest;
        };
        nearest = address;
        if !proxies.contains(address) {
            return nearest;
        }
    }
    nearest
}

/// The elements in a line of the field `Forwarded` (RFC 7239, 4), the last one first. A line is
/// such as `for=192.0.2.7;proto=https, for="[2001:db8::1]:4711"`. A line that ends in a quoted text
/// is one element, which has no address.
fn elements_from_the_end(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = split_outside_quotes(line, b',').unwrap_or_else(|| vec![line]);
    let elements = elements.into_iter().rev();
    elements.filter(|element| !element.trim_ascii().is_empty())
}

/// The address in an element of the field `Forwarded`; `None` if it has none that can be read.
fn element_address(element: &[u8]) -> Option<IpAddr> {
    split_outside_quotes(element, b';')?
        .into_iter()
        .find_map(|pair| {
            let (name, value) =
                pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
            let is_for = name.trim_ascii().eq_ignore_ascii_case(b"for");
            let value = value.get(1..)?.trim_ascii();
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""));
            is_for.then(|| address(unquoted.unwrap_or(value)))
        })?
}

/// Splits at each separator that is not in a quoted text (RFC 9110, 5.6.4). Returns `None` if the
/// text ends in a quoted text. An escaped byte is left as it is, because no address has one.
fn split_outside_quotes(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            _ if was_escaped => {}
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == separator && !is_quoted
    });
    let parts = parts.collect();
    (!is_quoted).then_some(parts)
}

/// An address with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1` or
/// `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = in_brackets.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    Some(address?.to_canonical())
}

/// The network that counts as one client. An access to the Internet gets at least 2^64 addresses of
/// IPv6, so one of them says nothing.
pub(super) fn network(address: IpAddr) -> IpAddr {
    const INTERFACE: u128 = u64::MAX as u128;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !INTERFACE).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const PROXIES: &str = "10.0.0.0/8,2001:db8:1::/48";

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        request.extensions_mut().insert(ConnectInfo(peer));
        client_address(&request, &PROXIES.parse().unwrap()).to_string()
    }

    #[test]
    fn fields_of_a_peer_that_is_not_trusted_are_ignored() {
        for (name, value) in [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.1, 10.0.0.1"),
            ("forwarded", "for=198.51.100.1"),
        ] {
            assert_eq!(client("192.0.2.7", &[(name, value)]), "192.0.2.7");
            assert_eq!(client("::ffff:192.0.2.7", &[(name, value)]), "192.0.2.7");
            assert_eq!(client("10.0.0.9", &[(name, value)]), "198.51.100.1");
        }
    }

    #[test]
    fn the_last_address_that_is_not_a_proxy_is_that_of_the_client() {
        let xff = |list: &str| client("10.0.0.9", &[("x-forwarded-for", list)]);
        // Two proxies, after what the client has invented.
        assert_eq!(xff("203.0.113.1, 198.51.100.1, 10.0.0.1"), "198.51.100.1");
        assert_eq!(xff("198.51.100.1,10.0.0.1,10.0.0.2"), "198.51.100.1");
        assert_eq!(xff("198.51.100.1:80, [2001:db8:1::2]:443"), "198.51.100.1");
        assert_eq!(xff("2001:db8:2::1"), "2001:db8:2::1");
        assert_eq!(xff("[2001:db8:2::1]"), "2001:db8:2::1");
        assert_eq!(xff("::ffff:198.51.100.1"), "198.51.100.1");
        // A client within the trusted network.
        assert_eq!(xff("10.7.7.7"), "10.7.7.7");
        let lines = [
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "198.51.100.1"),
        ];
        assert_eq!(client("2001:db8:1::9", &lines), "198.51.100.1");
    }

    #[test]
    fn an_address_that_cannot_be_read_ends_the_search() {
        for list in [
            "unknown",
            "198.51.100.1, unknown",
            "",
            "198.51.100.1,",
            "a.example",
        ] {
            assert_eq!(client("10.0.0.9", &[("x-forwarded-for", list)]), "10.0.0.9");
        }
        let list = "198.51.100.1, _hidden, 10.0.0.1";
        assert_eq!(client("10.0.0.9", &[("x-forwarded-for", list)]), "10.0.0.1");
    }

    #[test]
    fn the_field_forwarded_is_read_like_the_other() {
        let forwarded = |field: &str| client("10.0.0.9", &[("forwarded", field)]);
        assert_eq!(
            forwarded("for=203.0.113.1, For=198.51.100.1;proto=https;by=10.0.0.9, for=10.0.0.1"),
            "198.51.100.1"
        );
        assert_eq!(
            forwarded("proto=http;for=\"[2001:db8:2::1]:4711\""),
            "2001:db8:2::1"
        );
        assert_eq!(
            forwarded("for=198.51.100.1;host=\"a,b;for=203.0.113.1\""),
            "198.51.100.1"
        );
        for field in [
            "for=unknown",
            "proto=https",
            "for=_gateway",
            "for",
            "",
            "for=\"",
            "=",
        ] {
            assert_eq!(forwarded(field), "10.0.0.9", "{field}");
        }
        let both = [
            ("forwarded", "for=203.0.113.1"),
            ("x-forwarded-for", "198.51.100.1"),
        ];
        assert_eq!(client("10.0.0.9", &both), "198.51.100.1");
    }

    #[test]
    fn quotes_of_a_client_do_not_reach_the_element_of_the_proxy() {
        const PROXY: &str = "10.0.0.9";
        const SEEN: &str = "198.51.100.1";
        for (sent, expected) in [
            // A quoted text that has ended, with a quote in it or with a backslash.
            (r#"for=203.0.113.99;x="\"""#, SEEN),
            (r#"for=203.0.113.99;x="\\""#, SEEN),
            // A backslash has no meaning outside of quotes, so the quotes here stay open.
            (r#"for=203.0.113.99;x=\""#, PROXY),
            (r#"for=203.0.113.99;x=""#, PROXY),
            (r#"for=203.0.113.99;x="\"#, PROXY),
            (r#"for=203.0.113.99;x="a\\\""#, PROXY),
        ] {
            let on_one_line = format!("{sent}, for={SEEN}");
            let found = client(PROXY, &[("forwarded", &on_one_line)]);
            assert_eq!(found, expected, "{on_one_line}");
            let appended = format!("for={SEEN}");
            let on_two_lines = [("forwarded", sent), ("forwarded", appended.as_str())];
            assert_eq!(client(PROXY, &on_two_lines), SEEN, "{sent}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_ends_the_search() {
        let lines = [
            ("forwarded", "for=203.0.113.99"),
            ("forwarded", "for=203.0.113.98;x=\""),
            ("forwarded", "for=10.0.0.1"),
        ];
        assert_eq!(client("10.0.0.9", &lines), "10.0.0.1");
        assert_eq!(client("10.0.0.9", &lines[..2]), "10.0.0.9");
    }

    #[test]
    fn a_field_is_read_no_further_than_to_the_address_of_the_client() {
        let proxies: TrustedProxies = PROXIES.parse().unwrap();
        let [proxy, first, second] = ["10.0.0.9", "10.0.0.1", "198.51.100.1"];
        let mut read = 0;
        let addresses = [first, second, "203.0.113.99", "203.0.113.98"].into_iter();
        let addresses = addresses.map(|text: &str| Some(text.parse().unwrap()));
        let addresses = addresses.inspect(|_| read += 1);
        let found = last_untrusted(proxy.parse().unwrap(), addresses, &proxies);
        assert_eq!((found.to_string().as_str(), read), (second, 2));
    }

    #[test]
    fn addresses_of_ipv6_count_by_64_bits_and_mapped_ones_as_ipv4() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:2::"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
    }
}
