use std::collections::HashMap;

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Settings::read(&|name| variables.get(name).map(|value| (*value).to_owned()))
}

const SERVERS: [(&str, &str); 4] = [
    ("DATABASE_URL", "postgres://carga:pw@db/carga"),
    ("AMQP_URL", "amqp://carga:pw@mq/%2f"),
    ("REDIS_URL", "redis://cache"),
    ("ARCHIVE_URL", "s3://bucket/some/prefix/"),
];

#[test]
fn the_four_servers_are_enough_and_an_archive_url_names_bucket_and_prefix() {
    let settings = read(&SERVERS).unwrap();
    assert_eq!(settings.ports.bucket, "bucket");
    assert_eq!(settings.ports.archive_prefix, "some/prefix");
    assert!(settings.intake.listen.ip().is_loopback());
    // An API killed without a word is noticed within 90 seconds.
    let noticed = settings.worker.lease + settings.worker.sweep;
    assert!(noticed < Duration::from_secs(90));
    assert!(!format!("{settings:?}").contains("pw"));
}

#[test]
fn every_fault_is_told_at_once_with_its_variable() {
    let error = read(&[
        ("DATABASE_URL", "mysql://u:hidden@db/carga"),
        ("ARCHIVE_URL", "s3:///prefix"),
        ("CARGA_PREFETCH", "many"),
        ("CARGA_BATCH_ROWS", "0"),
        ("CARGA_MIGRATE", "perhaps"),
        ("CARGA_LISTEN", "8080"),
        ("CARGA_LOG", "carga=loud"),
        ("CARGA_LEASE_SECS", "1"),
        ("CARGA_HEARTBEAT_MS", "500"),
        ("CARGA_PUBLISH_BUDGET_BYTES", "4096"),
    ])
    .unwrap_err()
    .to_string();
    for name in [
        "DATABASE_URL=mysql://u:***@db/carga",
        "AMQP_URL is not set",
        "REDIS_URL is not set",
        "ARCHIVE_URL=s3:///prefix: names no bucket",
        "CARGA_PREFETCH=many",
        "CARGA_BATCH_ROWS=0: must be between 1 and 100000",
        "CARGA_MIGRATE=perhaps: use `on` or `off`",
        "CARGA_LISTEN=8080",
        "CARGA_LOG=carga=loud",
        "CARGA_LEASE_SECS=1",
        "CARGA_PUBLISH_BUDGET_BYTES=4096",
    ] {
        assert!(error.contains(name), "{name} is missing in:\n{error}");
    }
}

#[test]
fn the_example_file_holds_and_names_only_variables_that_exist() {
    let example = include_str!("../../../.env.example");
    let mut variables = HashMap::new();
    for line in example.lines() {
        // A commented-out assignment shows a default; it must hold as well.
        let line = line.trim_start_matches("# ").trim();
        if let Some((name, value)) = line.split_once('=')
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
        {
            variables.entry(name).or_insert(value);
        }
    }
    let asked = std::cell::RefCell::new(Vec::new());
    let settings = Settings::read(&|name| {
        asked.borrow_mut().push(name.to_owned());
        variables.get(name).map(|value| (*value).to_owned())
    });
    settings.unwrap();
    for name in variables.keys().filter(|name| name.starts_with("CARGA_")) {
        // This one is for Docker Compose.
        let known = *name == "CARGA_WORKERS" || asked.borrow().iter().any(|asked| asked == name);
        assert!(known, "{name} is in .env.example but nothing reads it");
    }
    for name in asked
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
