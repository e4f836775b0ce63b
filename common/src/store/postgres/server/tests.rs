use super::*;

/// Builds of PostgreSQL, by packagers and managed services.
const POSTGRES: [(u32, &str); 17] = [
    (
        15,
        "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit",
    ),
    (
        18,
        "PostgreSQL 18.0 (Debian 18.0-1.pgdg13+3) on x86_64-pc-linux-gnu, compiled by gcc (Debian 14.2.0-19) 14.2.0, 64-bit",
    ),
    (
        16,
        "PostgreSQL 16.4 on x86_64-pc-linux-musl, compiled by gcc (Alpine 13.2.1_git20240309) 13.2.1 20240309, 64-bit",
    ),
    (
        14,
        "PostgreSQL 14.9 (Homebrew) on aarch64-apple-darwin23.0.0, compiled by Apple clang version 15.0.0 (clang-1500.0.40.1), 64-bit",
    ),
    (
        15,
        "PostgreSQL 15.4 (Postgres.app) on aarch64-apple-darwin21.6.0, compiled by Apple clang version 14.0.0 (clang-1400.0.29.102), 64-bit",
    ),
    (
        15,
        "PostgreSQL 15.3, compiled by Visual C++ build 1914, 64-bit",
    ),
    (
        17,
        "PostgreSQL 17.0 on x86_64-windows, compiled by msvc-19.41.34120, 64-bit",
    ),
    (
        17,
        "PostgreSQL 17.5 - Percona Server for PostgreSQL 17.5.1 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 11.5.0, 64-bit",
    ),
    (
        18,
        "PostgreSQL 18beta1 (Debian 18~beta1-1.pgdg120+1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14) 12.2.0, 64-bit",
    ),
    // Amazon RDS and Aurora.
    (
        16,
        "PostgreSQL 16.3 on aarch64-unknown-linux-gnu, compiled by gcc (GCC) 7.3.1 20180712 (Red Hat 7.3.1-12), 64-bit",
    ),
    (
        15,
        "PostgreSQL 15.4 on x86_64-pc-linux-gnu, compiled by x86_64-pc-linux-gnu-gcc (GCC) 9.5.0, 64-bit",
    ),
    // Cloud SQL.
    (
        14,
        "PostgreSQL 14.4 on x86_64-pc-linux-gnu, compiled by Debian clang version 12.0.1, 64-bit",
    ),
    // Azure.
    (
        16,
        "PostgreSQL 16.4 on x86_64-pc-linux-gnu, compiled by gcc (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0, 64-bit",
    ),
    // Neon.
    (
        17,
        "PostgreSQL 17.5 (6bc9ef8) on aarch64-unknown-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit",
    ),
    // Supabase.
    (
        15,
        "PostgreSQL 15.1 (Ubuntu 15.1-1.pgdg20.04+1) on aarch64-unknown-linux-gnu, compiled by gcc (Ubuntu 9.4.0-1ubuntu1~20.04.1) 9.4.0, 64-bit",
    ),
    // Crunchy Bridge.
    (
        16,
        "PostgreSQL 16.4 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-22), 64-bit",
    ),
    (
        9,
        "PostgreSQL 9.6.24 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 10.2.1, 64-bit",
    ),
];

/// Servers that speak the protocol of PostgreSQL, or were made from it and changed.
const OTHERS: [&str; 19] = [
    "CockroachDB CCL v23.2.4 (x86_64-pc-linux-gnu, built 2024/04/08 21:53:58, go1.21.5 X:nocoverageredesign)",
    "PostgreSQL 11.2-YB-2.20.1.3-b0 on x86_64-pc-linux-gnu, compiled by clang version 16.0.6, 64-bit",
    "PostgreSQL 15.12-YB-2025.1.0.0-b168 on x86_64-pc-linux-gnu, compiled by clang version 17.0.6, 64-bit",
    "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.12103",
    "PostgreSQL 9.5.0 on x86_64-unknown-linux-gnu (Materialize 0.26.1)",
    "PostgreSQL 12.3, compiled by Visual C++ build 1914, 64-bit, QuestDB",
    // Spanner through PGAdapter, and Aurora DSQL.
    "PostgreSQL 14.1",
    "PostgreSQL 16",
    "PostgreSQL 13.14.0-RisingWave-2.1.0 (c0cf2bb)",
    "PostgreSQL 16.3 compatible CedarDB v2025-02-10",
    "PostgreSQL 12.12 (Greenplum Database 7.4.0 build commit:27de6dc6) on x86_64-pc-linux-gnu, compiled by gcc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-22), 64-bit compiled on Jan 31 2025 03:17:23",
    "PostgreSQL 14.4 (Apache Cloudberry 2.0.0 build dev) on aarch64-unknown-linux-gnu, compiled by gcc (GCC) 11.5.0, 64-bit compiled on Aug 20 2025 10:11:12",
    "PostgreSQL 14.4 (WarehousePG 7.2.0 build commit:abc) on x86_64-pc-linux-gnu, compiled by gcc (GCC) 11.3.0, 64-bit",
    "PostgreSQL 9.2.4 (openGauss 3.0.0 build 02c14696) compiled at 2022-04-01 18:12:19 on x86_64-unknown-linux-gnu, compiled by g++ (GCC) 7.3.0, 64-bit",
    "CrateDB 5.5.0 (built 5189b0b/2023-10-10T11:14:40Z, Linux 5.15 amd64, OpenJDK 64-Bit Server VM 21)",
    "PostgreSQL 8.2.23 server protocol using H2 1.4.200 (2019-10-14)",
    "23.8.1.1",
    "PostgreSQL",
    "",
];

/// A primary with default settings.
fn primary(version: &str) -> Server {
    let answer = |text: &str| Some(text.to_owned());
    Server {
        version: answer(version),
        has_control_data: answer("t"),
        is_in_recovery: answer("f"),
        is_read_only: answer("off"),
        fsync: answer("on"),
        full_page_writes: answer("on"),
    }
}

#[test]
fn builds_of_postgres_are_recognised_with_their_major_version() {
    for (major, version) in POSTGRES {
        assert_eq!(major_version(version), Some(major), "{version}");
    }
}

#[test]
fn other_servers_are_refused_unless_a_setting_allows_them() {
    for version in OTHERS {
        let server = primary(version);
        assert_eq!(server.major_version(), None, "{version}");
        let fault = server.fault(false).unwrap();
        assert!(fault.contains(&format!("{version:?}")), "{fault}");
        assert!(fault.contains("CARGA_ALLOW_UNKNOWN_POSTGRES=on"), "{fault}");
        assert_eq!(server.fault(true), None, "{version}");
    }
    let silent = Server::default();
    let fault = silent.fault(false).unwrap();
    assert!(fault.contains("\"unknown\""), "{fault}");
}

/// A server may imitate the text of PostgreSQL, so that clients accept it.
#[test]
fn the_text_of_postgres_without_its_function_is_refused() {
    let (_, version) = POSTGRES[0];
    for answer in [None, Some("f".to_owned())] {
        let server = Server {
            has_control_data: answer,
            ..primary(version)
        };
        let fault = server.fault(false).unwrap();
        assert!(
            fault.contains("it has no function pg_control_system"),
            "{fault}"
        );
        assert_eq!(server.fault(true), None);
    }
}

#[test]
fn a_version_that_is_too_old_is_refused_although_unknown_servers_are_allowed() {
    for (major, version) in POSTGRES {
        let fault = primary(version).fault(true);
        assert_eq!(fault.is_some(), major < 14, "{version}: {fault:?}");
        let is_clear =
            |fault: &String| fault.contains("PostgreSQL 9, and Carga needs PostgreSQL 14 or later");
        assert!(fault.as_ref().is_none_or(is_clear), "{fault:?}");
    }
}

#[test]
fn a_server_in_recovery_or_read_only_is_refused_although_unknown_servers_are_allowed() {
    for version in [POSTGRES[0].1, OTHERS[0]] {
        let replica = Server {
            is_in_recovery: Some("t".to_owned()),
            is_read_only: Some("on".to_owned()),
            ..primary(version)
        };
        let fault = replica.fault(true).unwrap();
        assert!(fault.contains("name the primary"), "{fault}");
        assert!(!replica.is_writable());
        let read_only = Server {
            is_in_recovery: None,
            is_read_only: Some("on".to_owned()),
            ..primary(version)
        };
        let fault = read_only.fault(true).unwrap();
        assert!(fault.contains("default_transaction_read_only"), "{fault}");
        assert!(!read_only.is_writable());
        assert!(primary(version).is_writable());
    }
}

#[test]
fn settings_that_risk_rows_are_named() {
    let (_, version) = POSTGRES[0];
    assert_eq!(primary(version).risks().count(), 0);
    assert_eq!(Server::default().risks().count(), 0);
    let fast = Server {
        fsync: Some("off".to_owned()),
        full_page_writes: Some("off".to_owned()),
        ..primary(version)
    };
    let risks: Vec<_> = fast.risks().collect();
    assert_eq!(risks, ["fsync", "full_page_writes"]);
}
