//! What identifies a dataset, and the names of its table and view in each database.
//!
//! The tables of the tenant `default` have the names that they had before there were tenants.

use std::fmt;

use super::table_name::DEFAULT_SCHEMA as PREFIX;
use super::{DatasetName, TableName};
use crate::tenant::Tenant;

/// A dataset of a tenant. Another tenant may have a dataset with the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetKey {
    /// The tenant that the dataset belongs to.
    pub tenant: Tenant,
    /// The dataset's name.
    pub name: DatasetName,
}

impl DatasetKey {
    /// The dataset with this name of this tenant.
    pub fn new(tenant: Tenant, name: DatasetName) -> Self {
        Self { tenant, name }
    }

    /// The dataset's own table in Postgres.
    pub fn postgres_table(&self) -> TableName {
        TableName::own(postgres_schema(&self.tenant), self.name.to_string())
    }

    /// The dataset's view in Postgres.
    pub fn postgres_view(&self) -> TableName {
        TableName::own(postgres_schema(&self.tenant), self.name.view())
    }

    /// The name of the dataset's table in SQLite, without quotes. SQLite has no schemas, so a
    /// prefix keeps it apart from Carga's own tables. A dataset's name has no `/`, so no two
    /// tenants have the same table.
    pub fn sqlite_table(&self) -> String {
        format!("{}{}", sqlite_prefix(&self.tenant), self.name)
    }

    /// The name of the dataset's view in SQLite, without quotes.
    pub fn sqlite_view(&self) -> String {
        format!("{}{}", sqlite_prefix(&self.tenant), self.name.view())
    }
}

/// For logs. Messages to clients have the name alone.
impl fmt::Display for DatasetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// The schema of a tenant's tables in Postgres, without quotes.
pub fn postgres_schema(tenant: &Tenant) -> String {
    match tenant.is_default() {
        true => PREFIX.to_owned(),
        false => format!("{PREFIX}_{tenant}"),
    }
}

/// The tenant whose tables are in this schema, if it is the schema of any tenant.
pub fn tenant_of_schema(schema: &str) -> Option<Tenant> {
    let tenant = match schema.strip_prefix(PREFIX)? {
        "" => return Some(Tenant::default()),
        rest => rest.strip_prefix('_')?.parse::<Tenant>().ok()?,
    };
    (!tenant.is_default()).then_some(tenant)
}

fn sqlite_prefix(tenant: &Tenant) -> String {
    match tenant.is_default() {
        true => format!("{PREFIX}_"),
        false => format!("{PREFIX}_{tenant}/"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, name: &str) -> DatasetKey {
        DatasetKey::new(tenant.parse().unwrap(), name.parse().unwrap())
    }

    #[test]
    fn the_tables_of_the_default_tenant_keep_their_names() {
        let key = key("default", "my \"sales\"");
        assert_eq!(key.postgres_table().quoted(), r#"datasets."my ""sales""""#);
        assert_eq!(key.postgres_view().name(), "my \"sales\"_rows");
        assert_eq!(key.sqlite_table(), "datasets_my \"sales\"");
        assert_eq!(key.sqlite_view(), "datasets_my \"sales\"_rows");
    }

    #[test]
    fn the_tables_of_another_tenant_name_the_tenant() {
        let key = key("acme-2", "a.b");
        assert_eq!(key.postgres_table().quoted(), r#""datasets_acme-2"."a.b""#);
        assert_eq!(key.postgres_view().to_string(), "datasets_acme-2.a.b_rows");
        assert_eq!(key.sqlite_table(), "datasets_acme-2/a.b");
        assert_eq!(key.sqlite_view(), "datasets_acme-2/a.b_rows");
    }

    #[test]
    fn a_schema_of_the_longest_tenant_is_not_cut() {
        let longest: Tenant = "a".repeat(48).parse().unwrap();
        assert!(postgres_schema(&longest).len() <= 63);
    }

    #[test]
    fn only_schemas_of_tenants_have_a_tenant() {
        for schema in [
            "datasets_default",
            "datasets_",
            "datasets_A",
            "datasets2",
            "my_datasets",
            "shop",
        ] {
            assert_eq!(tenant_of_schema(schema), None, "{schema}");
        }
    }

    /// Few characters, so that many pairs of names nearly collide.
    fn keys() -> impl Strategy<Value = DatasetKey> {
        let tenant = prop_oneof![Just("default".to_owned()), "[ab][ab_-]{0,3}"];
        let name = prop_oneof!["[abAB_.]{1,4}", "[ab]{0,2}_row", "default[_.]?[ab]"];
        (tenant, name).prop_filter_map("a name that no dataset has", |(tenant, name)| {
            let (tenant, name) = (tenant.parse().ok()?, name.parse().ok()?);
            Some(DatasetKey::new(tenant, name))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn different_datasets_have_different_tables_and_views(one in keys(), other in keys()) {
            let is_same = one == other;
            prop_assert_eq!(one.postgres_table() == other.postgres_table(), is_same);
            prop_assert_eq!(one.postgres_view() == other.postgres_view(), is_same);
            prop_assert_ne!(one.postgres_table(), other.postgres_view());
            prop_assert_eq!(one.sqlite_table() == other.sqlite_table(), is_same);
            prop_assert_eq!(one.sqlite_view() == other.sqlite_view(), is_same);
            prop_assert_ne!(one.sqlite_table(), other.sqlite_view());
        }

        #[test]
        fn tables_of_different_tenants_differ_without_regard_to_case(
            one in keys(),
            other in keys(),
        ) {
            let differ = one.tenant != other.tenant;
            let names = |key: &DatasetKey| [key.sqlite_table(), key.sqlite_view()];
            for name in names(&one) {
                for other in names(&other) {
                    prop_assert!(!differ || !name.eq_ignore_ascii_case(&other));
                }
            }
        }

        #[test]
        fn the_tenant_of_a_table_is_found_by_its_schema(key in keys()) {
            let table = key.postgres_table();
            prop_assert_eq!(tenant_of_schema(table.schema()), Some(key.tenant));
        }
    }
}
