//! What both SQL adapters need of sqlx, whatever the dialect.

use std::borrow::Cow;

use futures::future::BoxFuture;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};

/// The migrations of one dialect, as `build.rs` embeds them: version, description, SQL.
pub(super) type EmbeddedMigrations = &'static [(i64, &'static str, &'static str)];

#[derive(Debug)]
struct Embedded(EmbeddedMigrations);

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, sqlx::error::BoxDynError>> {
        let migrations = self.0.iter().map(|(version, description, sql)| {
            let (description, sql) = (Cow::Borrowed(*description), Cow::Borrowed(*sql));
            Migration::new(*version, description, MigrationType::Simple, sql, false)
        });
        let migrations = migrations.collect();
        Box::pin(async { Ok(migrations) })
    }
}

/// sqlx's migrator for these migrations.
pub(super) async fn migrator(
    migrations: EmbeddedMigrations,
) -> Result<Migrator, sqlx::migrate::MigrateError> {
    Migrator::new(Embedded(migrations)).await
}
