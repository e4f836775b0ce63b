//! Until when a certificate is valid. rustls does not tell a server when its own certificate ends,
//! so this module reads the date from the certificate (RFC 5280, 4.1).

use jiff::{SignedDuration, Timestamp};

/// Warns this long before a certificate ends.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// How long a certificate can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    Long,
    Soon,
    Over,
}

impl Validity {
    pub(super) fn of(end: Timestamp, now: Timestamp) -> Self {
        match end.duration_since(now) {
            left if left.is_negative() => Self::Over,
            left if left < SOON => Self::Soon,
            _ => Self::Long,
        }
    }
}

/// The last moment at which a certificate is valid. `None` if the bytes are not one (DER).
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    let mut certificate = certificate;
    let mut fields = take(&mut certificate, SEQUENCE)?;
    let mut fields = take(&mut fields, SEQUENCE)?;
    // The version is optional; the serial number, the algorithm and the issuer follow.
    let _ = take(&mut fields, VERSION);
    take(&mut fields, INTEGER)?;
    take(&mut fields, SEQUENCE)?;
    take(&mut fields, SEQUENCE)?;
    let mut validity = take(&mut fields, SEQUENCE)?;
    time(&mut validity)?;
    time(&mut validity)
}

/// Takes the first element of `input` if it has this tag (DER), and returns its content. Otherwise
/// `input` stays as it is.
fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The lower bits count the bytes of the length; a certificate is shorter than 16 MiB.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let number = |number, byte: &u8| number << 8 | usize::from(*byte);
            (length.iter().fold(0, number), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    if found != tag {
        return None;
    }
    *input = rest;
    Some(content)
}

/// Takes a time: `YYMMDDhhmmssZ` until 2049, `YYYYMMDDhhmmssZ` from then on.
fn time(input: &mut &[u8]) -> Option<Timestamp> {
    let text = match take(input, UTC_TIME) {
        Some(text) => {
            let text = str::from_utf8(text).ok()?;
            let year: u8 = text.get(..2)?.parse().ok()?;
            let century = if year < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        None => str::from_utf8(take(input, GENERALIZED_TIME)?)
            .ok()?
            .to_owned(),
    };
    let (date, time) = (text.get(..8)?, text.get(8..)?);
    format!("{date}T{time}").parse().ok()
}

#[cfg(test)]
mod tests {
    use carga_testkit::Authority;

    use super::super::certificate::certificates;
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let authority = Authority::new().unwrap();
        let certificates = certificates(&authority.server_certificate()).unwrap();
        // The authority issues certificates for two days.
        let left = end(&certificates[0])
            .unwrap()
            .duration_since(Timestamp::now());
        assert!((47..=48).contains(&left.as_hours()), "{left}");
    }

    #[test]
    fn bytes_that_are_not_a_certificate_have_no_end() {
        let authority = Authority::new().unwrap();
        let certificate = &certificates(&authority.server_certificate()).unwrap()[0];
        for length in 0..certificate.len() {
            assert_eq!(end(&certificate[..length]), None, "{length}");
        }
        for bytes in [
            &b"\x30\x84\xff\xff\xff\xff"[..],
            b"\x30\x80",
            b"\x30\x83\xff",
        ] {
            assert_eq!(end(bytes), None);
        }
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        for (element, expected) in [
            (&b"\x17\x0d270102030405Z"[..], "2027-01-02T03:04:05Z"),
            (b"\x17\x0d490102030405Z", "2049-01-02T03:04:05Z"),
            (b"\x17\x0d500102030405Z", "1950-01-02T03:04:05Z"),
            (b"\x18\x0f20500102030405Z", "2050-01-02T03:04:05Z"),
        ] {
            let mut input = element;
            assert_eq!(time(&mut input), expected.parse().ok());
        }
        for wrong in [&b"\x17\x0d271302030405Z"[..], b"\x17\x00", b"\x02\x01\x01"] {
            let mut input = wrong;
            assert_eq!(time(&mut input), None);
        }
    }

    #[test]
    fn a_certificate_ends_soon_for_fourteen_days() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let end = at("2027-01-15T00:00:00Z");
        for (now, expected) in [
            ("2026-12-31T23:59:59Z", Validity::Long),
            ("2027-01-01T00:00:01Z", Validity::Soon),
            ("2027-01-15T00:00:00Z", Validity::Soon),
            ("2027-01-15T00:00:01Z", Validity::Over),
        ] {
            assert_eq!(Validity::of(end, at(now)), expected, "{now}");
        }
    }
}
