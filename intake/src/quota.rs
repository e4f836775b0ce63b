//! What is left of the quota of a tenant.
//!
//! The quota of a day is read once, before the first byte of a file. While the file is read, only
//! two numbers are compared, for each piece of the body, each batch and each rejected row. Uploads
//! of a tenant that are received at the same time do not count each other's rows and bytes. So
//! together they may exceed the quota, each by at most what was left when it began.

use carga_common::settings::TenantQuota;
use carga_common::store::Usage;
use carga_common::tenant::Tenant;
use jiff::Timestamp;

use crate::refusal::{Refusal, RefusalKind};

/// When a client may try again to get a slot.
const SLOT_RETRY_SECS: u32 = 2;

/// The code of the refusal if a tenant has no free slot. If a process has none, the code is the
/// same.
pub(crate) const NO_SLOT: &str = "too_many_uploads";

/// The code of the refusal of a file that is more than is left.
pub(crate) const QUOTA_EXCEEDED: &str = "quota_exceeded";

const BYTES: Unit = Unit {
    name: "bytes",
    setting: "CARGA_TENANT_MAX_BYTES_PER_DAY",
};

const ROWS: Unit = Unit {
    name: "rows",
    setting: "CARGA_TENANT_MAX_ROWS_PER_DAY",
};

#[derive(Debug, Clone, Copy)]
struct Unit {
    name: &'static str,
    setting: &'static str,
}

/// What one upload may still use of the quota of its tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowance {
    bytes: Option<Left>,
    rows: Option<Left>,
}

/// What is left of the quota of a day.
#[derive(Debug, Clone, Copy)]
struct Left {
    limit: u64,
    left: u64,
}

impl Left {
    fn of(limit: Option<u64>, used: u64) -> Option<Self> {
        let limit = limit?;
        let left = limit.saturating_sub(used);
        Some(Self { limit, left })
    }

    fn check(self, unit: Unit, needed: u64) -> Result<(), Refusal> {
        match needed > self.left {
            true => Err(self.exceeded(unit, needed)),
            false => Ok(()),
        }
    }

    fn exceeded(self, unit: Unit, needed: u64) -> Refusal {
        let Self { limit, left } = self;
        let Unit { name, setting } = unit;
        if needed > limit {
            let message = format!(
                "the file has {needed} {name} or more, and the quota of the tenant is {limit} {name} per day ({setting}), so the file never fits; divide it, or ask for a larger quota"
            );
            let refusal = Refusal::new(RefusalKind::TooMany, QUOTA_EXCEEDED, message);
            return refusal.exceeding(limit, needed);
        }
        let message = format!(
            "the quota of the tenant is {limit} {name} per day ({setting}), and {left} of them were left for this file; send it after midnight UTC, or ask for a larger quota"
        );
        let refusal = Refusal::new(RefusalKind::TooMany, QUOTA_EXCEEDED, message);
        let actual = (limit - left).saturating_add(needed);
        let refusal = refusal.exceeding(limit, actual);
        refusal.retry_after(secs_to_midnight(Timestamp::now()))
    }
}

impl Allowance {
    /// What is left for one more upload. Refuses it if the tenant has no slot or nothing left, or
    /// if the file has more bytes than are left.
    pub(crate) fn of(
        quota: &TenantQuota,
        tenant: &Tenant,
        usage: Usage,
        bytes_total: Option<u64>,
    ) -> Result<Self, Refusal> {
        if let Some(most) = quota.uploads
            && usage.uploads >= most.into()
        {
            return Err(no_slot(tenant, most));
        }
        let allowance = Self {
            bytes: Left::of(quota.bytes_per_day, usage.bytes),
            rows: Left::of(quota.rows_per_day, usage.rows),
        };
        // Every file that is accepted has at least a byte. If no row is left, even a file without
        // rows is refused.
        allowance.check_bytes(bytes_total.unwrap_or_default().max(1))?;
        match allowance.rows {
            Some(rows) if rows.left == 0 => Err(rows.exceeded(ROWS, 1)),
            _ => Ok(allowance),
        }
    }

    /// Refuses a file of which this many bytes have arrived.
    pub(crate) fn check_bytes(&self, bytes: u64) -> Result<(), Refusal> {
        self.bytes.map_or(Ok(()), |left| left.check(BYTES, bytes))
    }

    /// Refuses a file of which this many rows were read.
    pub(crate) fn check_rows(&self, rows: u64) -> Result<(), Refusal> {
        self.rows.map_or(Ok(()), |left| left.check(ROWS, rows))
    }
}

/// The tenant has as many uploads at the same time as it may.
pub(crate) fn no_slot(tenant: &Tenant, most: u32) -> Refusal {
    let message = format!(
        "already receiving {most} uploads of tenant `{tenant}`, the most allowed for one tenant (CARGA_TENANT_MAX_UPLOADS); retry later"
    );
    let refusal = Refusal::new(RefusalKind::TooMany, NO_SLOT, message);
    let limit = u64::from(most);
    refusal
        .exceeding(limit, limit + 1)
        .retry_after(SLOT_RETRY_SECS)
}

/// The seconds until the next day in UTC begins, at least 1. A Unix time has no leap seconds.
fn secs_to_midnight(now: Timestamp) -> u32 {
    const DAY: i64 = 24 * 3600;
    let left = DAY - now.as_second().rem_euclid(DAY);
    u32::try_from(left).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUOTA: TenantQuota = TenantQuota {
        uploads: Some(2),
        bytes_per_day: Some(1000),
        rows_per_day: Some(100),
        lease: Duration::ZERO,
    };

    fn allowance(usage: (u64, u64, u64), bytes_total: Option<u64>) -> Result<Allowance, Refusal> {
        let (uploads, bytes, rows) = usage;
        let usage = Usage {
            uploads,
            bytes,
            rows,
        };
        Allowance::of(&QUOTA, &Tenant::default(), usage, bytes_total)
    }

    fn refused(usage: (u64, u64, u64), bytes_total: Option<u64>, code: &str, texts: &[&str]) {
        let refusal = allowance(usage, bytes_total).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::TooMany);
        assert_eq!(refusal.failure.code, code);
        assert!(refusal.retry_after_secs.is_some());
        for text in texts {
            let message = &refusal.failure.message;
            assert!(message.contains(text), "{message}");
        }
    }

    #[test]
    fn an_upload_without_a_slot_or_with_nothing_left_is_refused() {
        let setting = "CARGA_TENANT_MAX_UPLOADS";
        refused((2, 0, 0), None, "too_many_uploads", &[setting, "`default`"]);
        let bytes = ["CARGA_TENANT_MAX_BYTES_PER_DAY", "1000 bytes", "0 of them"];
        refused((0, 1000, 0), None, "quota_exceeded", &bytes);
        refused((0, 7000, 0), None, "quota_exceeded", &bytes);
        let rows = ["CARGA_TENANT_MAX_ROWS_PER_DAY", "100 rows", "0 of them"];
        refused((0, 0, 100), None, "quota_exceeded", &rows);
        refused((0, 400, 0), Some(601), "quota_exceeded", &["600 of them"]);
        assert!(allowance((1, 400, 0), Some(600)).is_ok());
        let unlimited = Usage {
            uploads: u64::MAX,
            bytes: u64::MAX,
            rows: u64::MAX,
        };
        let quota = TenantQuota::default();
        assert!(Allowance::of(&quota, &Tenant::default(), unlimited, Some(u64::MAX)).is_ok());
    }

    #[test]
    fn a_file_may_use_exactly_what_is_left() {
        let allowance = allowance((0, 400, 30), None).unwrap();
        assert!(allowance.check_bytes(600).is_ok() && allowance.check_rows(70).is_ok());
        let refusal = allowance.check_bytes(601).unwrap_err();
        let exceeded = refusal.exceeded.unwrap();
        assert_eq!((exceeded.limit, exceeded.actual), (1000, 1001));
        assert!(allowance.check_rows(71).is_err());
        let unlimited = Allowance::default();
        assert!(unlimited.check_bytes(u64::MAX).is_ok() && unlimited.check_rows(u64::MAX).is_ok());
    }

    #[test]
    fn a_file_that_is_larger_than_a_whole_quota_is_not_sent_again() {
        let larger = [
            allowance((0, 400, 0), Some(1001)).unwrap_err(),
            allowance((0, 400, 0), None)
                .unwrap()
                .check_bytes(1001)
                .unwrap_err(),
            allowance((0, 0, 30), None)
                .unwrap()
                .check_rows(101)
                .unwrap_err(),
        ];
        for refusal in larger {
            assert_eq!(refusal.failure.code, "quota_exceeded");
            assert_eq!(refusal.retry_after_secs, None);
            let message = &refusal.failure.message;
            assert!(message.contains("never fits"), "{message}");
            let exceeded = refusal.exceeded.unwrap();
            assert_eq!(exceeded.actual, exceeded.limit + 1);
        }
        let fits = allowance((0, 400, 0), Some(1000)).unwrap_err();
        assert!(fits.retry_after_secs.is_some());
    }

    #[test]
    fn a_quota_begins_again_at_midnight_utc() {
        let secs = |time: &str| secs_to_midnight(time.parse().unwrap());
        assert_eq!(secs("2026-11-27T00:00:00Z"), 24 * 3600);
        assert_eq!(secs("2026-11-27T23:59:59Z"), 1);
        assert_eq!(secs("2026-11-27T12:00:00.5Z"), 12 * 3600);
        assert_eq!(secs("2026-11-27T01:30:00+02:00"), 1800);
    }
}
