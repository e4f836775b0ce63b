//! The proxies that are trusted to say the address of a client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::reader::Reader;

/// The proxies that are trusted to say the address of a client. An address is that of a trusted
/// proxy if it is in one of these ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Range>);

/// A part of the list that is not a range of addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARange {
    /// The text is not an address with or without the length of a prefix.
    #[error(
        "`{0}` is not an address or a range of addresses; write one such as 10.0.0.7, 10.0.0.0/8 or fd00::/8"
    )]
    Malformed(String),
    /// The address has bits that are not in the prefix, which is probably a mistake.
    #[error("`{0}` is not the first address of its range; write {1}, or the address alone")]
    NotTheFirst(String, String),
}

impl TrustedProxies {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        const NAME: &str = "CARGA_TRUSTED_PROXIES";
        let text = reader.optional(NAME, None).unwrap_or_default();
        text.parse().unwrap_or_else(|fault: NotARange| {
            reader.fault(format!("{NAME}={text}: {fault}"));
            Self::default()
        })
    }

    /// Whether this is the address of a trusted proxy. An IPv4 address in the form of IPv6 counts
    /// as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(address))
    }
}

impl FromStr for TrustedProxies {
    type Err = NotARange;

    /// Parses a list with commas. An empty list trusts no proxy.
    fn from_str(list: &str) -> Result<Self, NotARange> {
        let ranges = list.split(',').map(str::trim);
        let ranges = ranges.filter(|range| !range.is_empty());
        ranges.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    prefix_bits: u32,
}

impl Range {
    fn contains(&self, address: IpAddr) -> bool {
        first_of(address, self.prefix_bits) == Some(self.first)
    }
}

/// The first address that begins with the same bits, or `None` if there are more bits than an
/// address of this family has.
fn first_of(address: IpAddr, prefix_bits: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let rest = Ipv4Addr::BITS.checked_sub(prefix_bits)?;
            let mask = u32::MAX.checked_shl(rest).unwrap_or_default();
            Some(Ipv4Addr::from_bits(address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let rest = Ipv6Addr::BITS.checked_sub(prefix_bits)?;
            let mask = u128::MAX.checked_shl(rest).unwrap_or_default();
            Some(Ipv6Addr::from_bits(address.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

impl FromStr for Range {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let malformed = || NotARange::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| malformed())?,
            None => bits,
        };
        let first = first_of(address, prefix_bits).ok_or_else(malformed)?;
        // `contains` looks up IPv4 addresses in their own form, so the range gets this form too.
        let range = match first.to_canonical() {
            first if first.is_ipv4() && address.is_ipv6() && prefix_bits >= 96 => Self {
                first,
                prefix_bits: prefix_bits - 96,
            },
            _ => Self { first, prefix_bits },
        };
        match first == address {
            true => Ok(range),
            false => Err(NotARange::NotTheFirst(text.to_owned(), range.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(list: &str, address: &str) -> bool {
        let proxies: TrustedProxies = list.parse().unwrap();
        proxies.contains(address.parse().unwrap())
    }

    #[test]
    fn a_proxy_is_trusted_if_its_address_is_in_a_range() {
        const LIST: &str = "10.0.0.0/8, 192.0.2.7,fd00::/8, 2001:db8::1, ::ffff:198.51.100.0/120";
        for address in [
            "10.0.0.0",
            "10.255.255.255",
            "::ffff:10.1.2.3",
            "192.0.2.7",
            "fd12:3456::1",
            "2001:db8::1",
            "198.51.100.255",
        ] {
            assert!(contains(LIST, address), "{address}");
        }
        for address in [
            "11.0.0.0",
            "9.255.255.255",
            "192.0.2.8",
            "fe00::1",
            "2001:db8::2",
            "198.51.101.0",
            "::10.0.0.1",
        ] {
            assert!(!contains(LIST, address), "{address}");
        }
        assert!(contains("0.0.0.0/0", "203.0.113.9") && contains("::/0", "fe00::1"));
        assert!(!contains("0.0.0.0/0", "fe00::1"));
        assert!(!contains("", "127.0.0.1") && !contains(" , ", "127.0.0.1"));
    }

    #[test]
    fn a_text_that_is_not_a_range_is_refused_with_its_remedy() {
        for range in [
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "proxy",
            "10.0.0.0/",
            "/8",
        ] {
            let fault = range.parse::<TrustedProxies>().unwrap_err().to_string();
            assert!(
                fault.contains(&format!("`{range}` is not an address")),
                "{fault}"
            );
        }
        let fault = "10.1.2.3/8".parse::<TrustedProxies>().unwrap_err();
        assert!(fault.to_string().contains("write 10.0.0.0/8,"), "{fault}");
    }
}
