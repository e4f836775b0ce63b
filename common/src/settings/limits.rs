//! How much a client and a tenant may send.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::proxies::TrustedProxies;
use super::reader::Reader;

/// The largest limit of requests. The limiter counts in microseconds, and a second has this many.
const MAX_REQUESTS: u64 = 1_000_000;

/// How much a client and a tenant may send.
#[derive(Debug, Clone, Default)]
pub struct LimitSettings {
    /// `CARGA_LIMIT_ADDRESS`: requests per minute from one address; `None` for no limit.
    pub address: Option<NonZeroU32>,
    /// `CARGA_LIMIT_KEY`: requests per minute with one key; `None` for no limit.
    pub key: Option<NonZeroU32>,
    /// `CARGA_LIMIT_BURST`: requests per second with one key, or from one address if they have no
    /// key; `None` for no limit.
    pub burst: Option<NonZeroU32>,
    /// `CARGA_TRUSTED_PROXIES`
    pub trusted_proxies: TrustedProxies,
    /// How much one tenant may upload.
    pub tenant: TenantQuota,
}

/// How much one tenant may upload. By default there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantQuota {
    /// `CARGA_TENANT_MAX_UPLOADS`: uploads that are received at the same time.
    pub uploads: Option<u32>,
    /// `CARGA_TENANT_MAX_BYTES_PER_DAY`: bytes of files, as they are sent, in a day (UTC).
    pub bytes_per_day: Option<u64>,
    /// `CARGA_TENANT_MAX_ROWS_PER_DAY`: rows of files, also rejected ones, in a day (UTC).
    pub rows_per_day: Option<u64>,
    /// `CARGA_LEASE_SECS`: an upload whose lease was not renewed for this time does not count as
    /// one that is received.
    pub lease: Duration,
}

impl TenantQuota {
    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.uploads.is_some() || self.bytes_per_day.is_some() || self.rows_per_day.is_some()
    }
}

impl LimitSettings {
    /// Whether requests are limited.
    pub fn limits_requests(&self) -> bool {
        self.address.or(self.key).or(self.burst).is_some()
    }

    /// Requests are limited by default if they need a key.
    pub(super) fn read(reader: &mut Reader<'_>, needs_key: bool, lease: Duration) -> Self {
        let mut requests = |name, default: u64| {
            let default = needs_key.then_some(default);
            let limit = read_limit(reader, name, default, MAX_REQUESTS);
            limit.and_then(|limit| NonZeroU32::new(u32::try_from(limit).ok()?))
        };
        Self {
            address: requests("CARGA_LIMIT_ADDRESS", 1000),
            key: requests("CARGA_LIMIT_KEY", 100),
            burst: requests("CARGA_LIMIT_BURST", 10),
            trusted_proxies: TrustedProxies::read(reader),
            tenant: TenantQuota {
                uploads: read_limit(reader, "CARGA_TENANT_MAX_UPLOADS", None, 100_000)
                    .and_then(|limit| u32::try_from(limit).ok()),
                bytes_per_day: read_limit(reader, "CARGA_TENANT_MAX_BYTES_PER_DAY", None, 1 << 60),
                rows_per_day: read_limit(reader, "CARGA_TENANT_MAX_ROWS_PER_DAY", None, 1 << 60),
                lease,
            },
        }
    }
}

fn read_limit(reader: &mut Reader<'_>, name: &str, default: Option<u64>, most: u64) -> Option<u64> {
    let Limit(limit) = reader.parsed(name, Limit(default));
    let limit = limit?;
    if limit > most {
        reader.fault(format!("{name}={limit}: must be at most {most}, or `off`"));
        return None;
    }
    Some(limit)
}

/// A number, or `off`. `0` means `off`, too.
struct Limit(Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            _ => match text.parse() {
                Ok(0) => Ok(Self(None)),
                Ok(limit) => Ok(Self(Some(limit))),
                Err(_) => Err("use a whole number, or `off`"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::settings::{Mode, Settings, SettingsError};

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::read(Mode::Embedded, &|name| {
            variables.get(name).map(|value| (*value).to_owned())
        })
    }

    /// The limits of requests: by address, by key, and in a second. 0 stands for no limit.
    fn requests(variables: &[(&str, &str)]) -> [u32; 3] {
        let limits = read(variables).unwrap().limits;
        [limits.address, limits.key, limits.burst].map(|limit| limit.map_or(0, NonZeroU32::get))
    }

    #[test]
    fn requests_are_limited_by_default_only_if_they_need_a_key() {
        assert_eq!(requests(&[]), [0, 0, 0]);
        assert_eq!(requests(&[("CARGA_AUTH", "off")]), [0, 0, 0]);
        assert_eq!(requests(&[("CARGA_AUTH", "on")]), [1000, 100, 10]);
        assert_eq!(requests(&[("CARGA_LIMIT_BURST", "7")]), [0, 0, 7]);
        let on = ("CARGA_AUTH", "on");
        for off in ["off", "0"] {
            assert_eq!(requests(&[on, ("CARGA_LIMIT_KEY", off)]), [1000, 0, 10]);
            assert_eq!(requests(&[on, ("CARGA_LIMIT_ADDRESS", off)]), [0, 100, 10]);
        }
        let effective = read(&[on]).unwrap().effective;
        let shown = |name: &str| {
            let found = effective.iter().find(|setting| setting.name == name);
            found.unwrap().value.clone().unwrap()
        };
        assert_eq!(shown("CARGA_LIMIT_KEY"), "100");
        assert_eq!(shown("CARGA_TENANT_MAX_UPLOADS"), "off");
    }

    #[test]
    fn a_tenant_may_upload_any_amount_unless_a_limit_is_set() {
        let tenant = |variables: &[(&str, &str)]| read(variables).unwrap().limits.tenant;
        assert!(!tenant(&[("CARGA_AUTH", "on")]).is_limited());
        let all = tenant(&[
            ("CARGA_TENANT_MAX_UPLOADS", "3"),
            ("CARGA_TENANT_MAX_BYTES_PER_DAY", "5000000000"),
            ("CARGA_TENANT_MAX_ROWS_PER_DAY", "off"),
            ("CARGA_LEASE_SECS", "7"),
        ]);
        let expected = TenantQuota {
            uploads: Some(3),
            bytes_per_day: Some(5_000_000_000),
            rows_per_day: None,
            lease: Duration::from_secs(7),
        };
        assert_eq!(all, expected);
        assert!(all.is_limited());
    }

    #[test]
    fn a_faulty_limit_is_reported_with_its_remedy() {
        for (name, value, expected) in [
            ("CARGA_LIMIT_KEY", "many", "use a whole number, or `off`"),
            ("CARGA_LIMIT_BURST", "-1", "use a whole number, or `off`"),
            ("CARGA_LIMIT_ADDRESS", "1000001", "must be at most 1000000"),
            ("CARGA_TENANT_MAX_UPLOADS", "1.5", "use a whole number"),
            ("CARGA_TENANT_MAX_UPLOADS", "100001", "at most 100000"),
        ] {
            let fault = read(&[(name, value)]).unwrap_err().to_string();
            assert!(fault.contains(&format!("{name}={value}: ")), "{fault}");
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
