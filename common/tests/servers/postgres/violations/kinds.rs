//! The constraints that a user may add to the table of a dataset by hand.

use super::Cells;

/// A constraint, and rows that violate it.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Adds the constraint.
    pub(super) sql: &'static str,
    /// Makes a good row violate the constraint.
    pub(super) spoil: fn(&mut Cells),
    pub(super) code: &'static str,
    pub(super) constraint: Option<&'static str>,
    /// The column of the file at fault.
    pub(super) column: Option<&'static str>,
}

/// Needed before the type of a column is changed.
macro_rules! without_view {
    ($sql:literal) => {
        concat!("DROP VIEW IF EXISTS datasets.prices_rows; ", $sql)
    };
}

pub(super) const CASES: [Case; 11] = [
    Case {
        name: "not null",
        sql: "ALTER TABLE datasets.prices ALTER COLUMN sku SET NOT NULL",
        spoil: |cells| cells[0] = None,
        code: "not_null_violation",
        constraint: None,
        column: Some("Article"),
    },
    Case {
        name: "check",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT positive CHECK (price > 0)",
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "check_violation",
        constraint: Some("positive"),
        column: Some("Price"),
    },
    Case {
        name: "unique",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_sku UNIQUE (sku)",
        spoil: |cells| cells[0] = Some("a1".to_owned()),
        code: "unique_violation",
        constraint: Some("one_sku"),
        column: Some("Article"),
    },
    Case {
        name: "deferred unique",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_sku UNIQUE (sku) DEFERRABLE INITIALLY DEFERRED",
        spoil: |cells| cells[0] = Some("a1".to_owned()),
        code: "unique_violation",
        constraint: Some("one_sku"),
        column: Some("Article"),
    },
    Case {
        name: "unique expression",
        sql: "CREATE UNIQUE INDEX one_sku ON datasets.prices (lower(sku))",
        spoil: |cells| cells[0] = Some("A1".to_owned()),
        code: "unique_violation",
        constraint: Some("one_sku"),
        column: None,
    },
    Case {
        name: "foreign key",
        sql: "CREATE TABLE articles (sku text PRIMARY KEY);
              INSERT INTO articles SELECT 'a' || number FROM generate_series(1, 200) AS number;
              ALTER TABLE datasets.prices ADD CONSTRAINT known_sku FOREIGN KEY (sku) REFERENCES articles",
        spoil: |cells| cells[0] = Some("unknown".to_owned()),
        code: "foreign_key_violation",
        constraint: Some("known_sku"),
        column: Some("Article"),
    },
    Case {
        name: "exclusion",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_day EXCLUDE USING btree (day WITH =)",
        spoil: |cells| cells[2] = Some("1001-01-01".to_owned()),
        code: "exclusion_violation",
        constraint: Some("one_day"),
        column: Some("Day"),
    },
    Case {
        name: "domain",
        sql: without_view!(
            "CREATE DOMAIN price AS numeric CONSTRAINT positive CHECK (VALUE > 0);
             ALTER TABLE datasets.prices ALTER COLUMN price TYPE price"
        ),
        spoil: |cells| cells[1] = Some("0".to_owned()),
        code: "check_violation",
        constraint: Some("positive"),
        column: Some("Price"),
    },
    Case {
        name: "precision",
        sql: without_view!("ALTER TABLE datasets.prices ALTER COLUMN price TYPE numeric(5, 2)"),
        spoil: |cells| cells[1] = Some("1000".to_owned()),
        code: "data_exception",
        constraint: None,
        column: Some("Price"),
    },
    Case {
        name: "trigger before",
        sql: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
              BEGIN
                  IF NEW.price < 0 THEN RAISE EXCEPTION 'too cheap'; END IF;
                  RETURN NEW;
              END
              $$;
              CREATE TRIGGER refuse BEFORE INSERT ON datasets.prices
              FOR EACH ROW EXECUTE FUNCTION refuse()",
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "trigger_exception",
        constraint: None,
        column: None,
    },
    Case {
        name: "generated column",
        sql: "ALTER TABLE datasets.prices ADD COLUMN share numeric GENERATED ALWAYS AS (1 / price) STORED",
        spoil: |cells| cells[1] = Some("0".to_owned()),
        code: "data_exception",
        constraint: None,
        column: None,
    },
];
