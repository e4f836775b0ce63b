use std::collections::HashMap;

use super::*;
use crate::archive::ArchiveCompression;

fn read(mode: Mode, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Settings::read(mode, &|name| {
        variables.get(name).map(|value| (*value).to_owned())
    })
}

const SERVERS: [(&str, &str); 4] = [
    ("DATABASE_URL", "postgres://carga:pw@db/carga"),
    ("AMQP_URL", "amqp://carga:pw@mq/%2f"),
    ("REDIS_URL", "redis://cache"),
    ("ARCHIVE_URL", "s3://bucket/some/prefix/"),
];

#[test]
fn the_four_servers_are_enough_and_an_archive_url_names_bucket_and_prefix() {
    let settings = read(Mode::Distributed, &SERVERS).unwrap();
    let archive = ArchiveLocation::S3 {
        bucket: "bucket".to_owned(),
        prefix: "some/prefix".to_owned(),
    };
    assert_eq!(settings.ports.locations.archive, archive);
    assert_eq!(settings.ports.locations.data_dir, None);
    assert!(settings.intake.listen.ip().is_loopback());
    // The sweeper fails the uploads of a killed API within 90 seconds.
    let failed_after = settings.worker.lease + 2 * settings.worker.sweep;
    assert!(failed_after < Duration::from_secs(90));
    assert!(!format!("{settings:?}").contains("pw"));
}

#[test]
fn without_variables_carga_keeps_all_data_in_its_data_directory() {
    let locations = read(Mode::Embedded, &[]).unwrap().ports.locations;
    let expected = Locations {
        store: StoreLocation::Sqlite("carga-data/carga.db".into()),
        queue: QueueLocation::Sqlite("carga-data/queue.db".into()),
        progress: ProgressLocation::Sqlite("carga-data/progress.db".into()),
        archive: ArchiveLocation::Directory("carga-data/archive".into()),
        data_dir: Some("carga-data".into()),
    };
    assert_eq!(locations, expected);
}

#[test]
fn the_scheme_of_each_url_selects_its_adapter() {
    let locations =
        |variables: &[(&str, &str)]| read(Mode::Embedded, variables).unwrap().ports.locations;
    let mixed = locations(&[SERVERS[0], ("CARGA_DATA_DIR", "/srv/carga")]);
    assert!(matches!(mixed.store, StoreLocation::Postgres(_)));
    assert_eq!(
        mixed.queue,
        QueueLocation::Sqlite("/srv/carga/queue.db".into())
    );
    assert_eq!(mixed.data_dir, Some("/srv/carga".into()));
    // No file is in the data directory, so it need not be locked.
    let all_named = locations(&[
        SERVERS[0],
        ("AMQP_URL", "sqlite:///srv/queue.db"),
        ("REDIS_URL", "sqlite:progress.db"),
        ("ARCHIVE_URL", "file:///srv/archive"),
    ]);
    assert_eq!(all_named.data_dir, None);
    assert_eq!(
        all_named.queue,
        QueueLocation::Sqlite("/srv/queue.db".into())
    );
    assert_eq!(
        all_named.progress,
        ProgressLocation::Sqlite("progress.db".into())
    );
    assert_eq!(
        all_named.archive,
        ArchiveLocation::Directory("/srv/archive".into())
    );
    for (name, wrong) in [
        ("DATABASE_URL", "sqlite::memory:"),
        ("AMQP_URL", "sqlite:"),
        ("REDIS_URL", "sqlite:p.db?mode=ro"),
        ("ARCHIVE_URL", "file:relative"),
    ] {
        let fault = read(Mode::Embedded, &[(name, wrong)])
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains(&format!("{name}={wrong}: must name")),
            "{fault}"
        );
    }
}

#[test]
fn effective_settings_show_their_origin_and_mask_passwords() {
    let given = [SERVERS[0], ("CARGA_PREFETCH", "7")];
    let effective = read(Mode::Embedded, &given).unwrap().effective;
    let value_and_origin = |name: &str| {
        let found = effective.iter().find(|setting| setting.name == name);
        let found = found.unwrap();
        (found.value.as_deref().unwrap_or("(none)"), found.given)
    };
    assert_eq!(
        value_and_origin("DATABASE_URL"),
        ("postgres://carga:***@db/carga", true)
    );
    assert_eq!(value_and_origin("CARGA_PREFETCH"), ("7", true));
    assert_eq!(
        value_and_origin("AMQP_URL"),
        ("sqlite:carga-data/queue.db", false)
    );
    assert_eq!(value_and_origin("CARGA_MIGRATE"), ("on", false));
    let allow_unknown = value_and_origin("CARGA_ALLOW_UNKNOWN_POSTGRES");
    assert_eq!(allow_unknown, ("off", false));
    assert_eq!(value_and_origin("CARGA_BATCH_ROWS"), ("1000", false));
    assert_eq!(value_and_origin("CARGA_HEARTBEAT_FILE"), ("(none)", false));
}

#[test]
fn all_faults_are_reported_at_once_with_their_variables() {
    let error = read(
        Mode::Distributed,
        &[
            ("DATABASE_URL", "mysql://u:hidden@db/carga"),
            ("ARCHIVE_URL", "s3:///prefix"),
            ("CARGA_PREFETCH", "many"),
            ("CARGA_BATCH_ROWS", "0"),
            ("CARGA_MIGRATE", "perhaps"),
            ("CARGA_LISTEN", "8080"),
            ("CARGA_ALLOWED_ORIGINS", "https://a.example, b.example"),
            ("CARGA_LOG", "carga=loud"),
            ("CARGA_LEASE_SECS", "1"),
            ("CARGA_HEARTBEAT_MS", "500"),
            ("CARGA_PUBLISH_BUDGET_BYTES", "4096"),
            ("CARGA_ARCHIVE_COMPRESSION", "brotli"),
        ],
    )
    .unwrap_err()
    .to_string();
    for name in [
        "DATABASE_URL=mysql://u:***@db/carga",
        "AMQP_URL is not set",
        "REDIS_URL is not set",
        "ARCHIVE_URL=s3:///prefix: must name a bucket",
        "CARGA_PREFETCH=many",
        "CARGA_BATCH_ROWS=0: must be between 1 and 100000",
        "CARGA_MIGRATE=perhaps: use `on` or `off`",
        "CARGA_LISTEN=8080",
        "CARGA_ALLOWED_ORIGINS=https://a.example, b.example: `b.example` is not an origin",
        "CARGA_LOG=carga=loud",
        "CARGA_LEASE_SECS=1",
        "CARGA_PUBLISH_BUDGET_BYTES=4096",
        "CARGA_ARCHIVE_COMPRESSION=brotli: use `none`, `gzip` or `zstd`",
    ] {
        assert!(error.contains(name), "{name} is missing in:\n{error}");
    }
}

#[test]
fn a_log_filter_that_names_spans_is_refused() {
    let error = read(Mode::Embedded, &[("CARGA_LOG", "carga[batch]=debug")]).unwrap_err();
    assert!(
        error.to_string().contains("only targets and levels"),
        "{error}"
    );
}

#[test]
fn the_example_file_is_valid_and_names_exactly_the_variables_that_are_read() {
    let example = include_str!("../../../.env.example");
    let mut variables = HashMap::new();
    for line in example.lines() {
        // A commented-out assignment shows a default, which must be valid as well.
        let line = line.trim_start_matches("# ").trim();
        if let Some((name, value)) = line.split_once('=')
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
        {
            variables.entry(name).or_insert(value);
        }
    }
    let looked_up = std::cell::RefCell::new(Vec::new());
    for mode in [Mode::Distributed, Mode::Embedded] {
        let settings = Settings::read(mode, &|name| {
            looked_up.borrow_mut().push(name.to_owned());
            variables.get(name).map(|value| (*value).to_owned())
        });
        settings.unwrap();
    }
    for name in variables.keys().filter(|name| name.starts_with("CARGA_")) {
        // This one is for Docker Compose.
        let known = *name == "CARGA_WORKERS" || looked_up.borrow().iter().any(|read| read == name);
        assert!(known, "{name} is in .env.example but nothing reads it");
    }
    for name in looked_up
        .borrow()
        .iter()
        .filter(|name| name.starts_with("CARGA_"))
    {
        assert!(
            variables.contains_key(name.as_str()),
            "{name} is missing in .env.example"
        );
    }
}

#[test]
fn a_password_comes_from_its_own_variable_and_is_never_shown() {
    let mut variables = SERVERS.to_vec();
    variables[0] = ("DATABASE_URL", "postgres://carga@db/carga");
    variables.push(("DATABASE_PASSWORD", "s3/cret"));
    let settings = read(Mode::Distributed, &variables).unwrap();
    let StoreLocation::Postgres(url) = &settings.ports.locations.store else {
        panic!("{:?}", settings.ports.locations.store);
    };
    assert_eq!(url.expose(), "postgres://carga:s3%2Fcret@db/carga");
    assert!(!format!("{settings:?}").contains("cret"));

    variables[0] = ("DATABASE_URL", "postgres://carga:s3/cret@db/carga");
    let fault = read(Mode::Distributed, &variables).unwrap_err().to_string();
    assert!(
        fault.contains("DATABASE_URL") && fault.contains("DATABASE_PASSWORD"),
        "{fault}"
    );
    assert!(!fault.contains("cret"), "{fault}");
}

#[test]
fn the_password_of_a_custom_endpoint_is_never_shown() {
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"] {
        let shown = |variables: &[(&str, &str)]| {
            let settings = read(Mode::Embedded, variables).unwrap();
            assert!(!format!("{settings:?}").contains("s3cret"));
            let effective = settings.effective.into_iter();
            effective
                .filter(|found| found.name == name)
                .collect::<Vec<_>>()
        };
        let setting = |value: Option<&str>| {
            vec![Effective {
                name: name.to_owned(),
                value: value.map(str::to_owned),
                given: value.is_some(),
            }]
        };
        let given = [(name, "http://u:s3cret@h:4566")];
        assert_eq!(shown(&given), setting(Some("http://u:***@h:4566")));
        assert_eq!(shown(&[]), setting(None));
    }
}

#[cfg(feature = "servers")]
#[test]
fn the_settings_of_an_adapter_never_show_a_password() {
    let url = |scheme: &str| SecretUrl::new(format!("{scheme}://carga:s3cret@host"));
    let postgres = crate::store::PostgresSettings {
        url: url("postgres"),
        program: String::new(),
        connections: 1,
        migrate: false,
        allow_unknown: false,
    };
    let rabbit = crate::queue::RabbitSettings {
        url: url("amqp"),
        queue: String::new(),
        program: String::new(),
        publish_timeout: Duration::ZERO,
        postponement: Duration::ZERO,
        installation: uuid::Uuid::nil(),
    };
    let redis = crate::progress::RedisSettings {
        url: url("redis"),
        prefix: String::new(),
        ttl: Duration::ZERO,
    };
    let limiter = crate::limiter::RedisLimiterSettings {
        url: url("redis"),
        prefix: String::new(),
        timeout: Duration::ZERO,
    };
    let shown = format!("{postgres:?} {rabbit:?} {redis:?} {limiter:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!(shown.matches("://carga:***@host").count(), 4, "{shown}");
}

#[test]
fn a_redis_url_may_ask_for_tls() {
    let mut variables = SERVERS.to_vec();
    variables[2] = ("REDIS_URL", "rediss://cache");
    let settings = read(Mode::Distributed, &variables).unwrap();
    let url = SecretUrl::new("rediss://cache".to_owned());
    assert_eq!(
        settings.ports.locations.progress,
        ProgressLocation::Redis(url)
    );
}

#[test]
fn a_redis_url_with_tls_gets_the_password_from_its_own_variable() {
    let mut variables = SERVERS.to_vec();
    variables[2] = ("REDIS_URL", "rediss://cache");
    variables.push(("REDIS_PASSWORD", "s3/cret"));
    let settings = read(Mode::Distributed, &variables).unwrap();
    let ProgressLocation::Redis(url) = &settings.ports.locations.progress else {
        panic!("{:?}", settings.ports.locations.progress);
    };
    assert_eq!(url.expose(), "rediss://:s3%2Fcret@cache");
}

#[test]
fn rows_are_kept_for_ever_unless_a_number_of_days_is_set() {
    let retention = |variables: &[(&str, &str)]| {
        let settings = read(Mode::Embedded, variables).unwrap();
        settings.worker.retention
    };
    assert_eq!(retention(&[]), None);
    assert_eq!(retention(&[("CARGA_RETENTION_DAYS", "")]), None);
    let days = retention(&[("CARGA_RETENTION_DAYS", "30")]);
    assert_eq!(days, Some(Duration::from_secs(30 * 24 * 3600)));
    for wrong in ["0", "1.5", "36501", "never"] {
        let variables = [("CARGA_RETENTION_DAYS", wrong)];
        let fault = read(Mode::Embedded, &variables).unwrap_err().to_string();
        let expected = format!("CARGA_RETENTION_DAYS={wrong}: must be a whole number of days");
        assert!(fault.contains(&expected), "{fault}");
    }
}

#[test]
fn previous_values_are_kept_for_at_least_a_day() {
    let undo = |variables: &[(&str, &str)]| {
        let settings = read(Mode::Embedded, variables);
        settings.map(|settings| settings.worker.undo)
    };
    let days = |number: u64| Duration::from_secs(number * 24 * 3600);
    assert_eq!(undo(&[]).unwrap(), days(30));
    assert_eq!(undo(&[("CARGA_UNDO_DAYS", "1")]).unwrap(), days(1));
    let fault = undo(&[("CARGA_UNDO_DAYS", "0")]).unwrap_err().to_string();
    assert!(fault.contains("CARGA_UNDO_DAYS=0: must be"), "{fault}");
}

#[test]
fn a_trial_takes_at_most_as_long_as_a_merge() {
    let limit = |variables: &[(&str, &str)]| {
        let settings = read(Mode::Embedded, variables);
        settings.map(|settings| settings.intake.validate)
    };
    assert_eq!(limit(&[]).unwrap(), Duration::from_secs(60));
    let longest = limit(&[("CARGA_VALIDATE_SECS", "840")]);
    assert_eq!(longest.unwrap(), Duration::from_secs(840));
    for wrong in ["0", "841"] {
        let fault = limit(&[("CARGA_VALIDATE_SECS", wrong)]).unwrap_err();
        let expected = format!("CARGA_VALIDATE_SECS={wrong}: must be between 1 and 840");
        assert!(fault.to_string().contains(&expected), "{fault}");
    }
}

#[test]
fn temporary_files_are_in_the_data_directory_if_there_is_one() {
    let directory = |mode, variables: &[(&str, &str)]| {
        let settings = read(mode, variables).unwrap();
        settings.intake.temporary_directory
    };
    let data_dir = [("CARGA_DATA_DIR", "/srv/carga")];
    let expected = Some("/srv/carga".into());
    assert_eq!(directory(Mode::Embedded, &data_dir), expected);
    assert_eq!(directory(Mode::Distributed, &SERVERS), None);
}

#[test]
fn the_archive_is_compressed_only_if_a_compression_is_set() {
    let compression = |variables: &[(&str, &str)]| {
        let settings = read(Mode::Embedded, variables).unwrap();
        settings.worker.archive_compression
    };
    assert_eq!(compression(&[]), ArchiveCompression::None);
    for expected in [ArchiveCompression::Gzip, ArchiveCompression::Zstd] {
        let set = [("CARGA_ARCHIVE_COMPRESSION", expected.name())];
        assert_eq!(compression(&set), expected);
    }
}

#[test]
fn a_renamed_setting_works_under_its_former_name_unless_both_are_set() {
    let limit = |variables: &[(&str, &str)]| {
        let settings = read(Mode::Embedded, variables).unwrap();
        settings.intake.limits.decompressed_bytes
    };
    let former = ("CARGA_MAX_EXPANDED_BYTES", "7");
    assert_eq!(limit(&[former]), 7);
    assert_eq!(limit(&[former, ("CARGA_MAX_DECOMPRESSED_BYTES", "8")]), 8);
}
