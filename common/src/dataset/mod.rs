//! A dataset: a table with declared columns and types.
//!
//! A [`Definition`] declares the columns, and says how the cells of a file are read into them.
//! [`change()`] decides which later definitions the table can take. A [`FileReading`] changes how
//! the cells of one file are read. The table has the declared names, so [`quote_identifier`] quotes
//! them in SQL. Two names with the same [`folded_name`] are spellings of one name. A [`DatasetKey`]
//! has the tenant and the name, and determines the names of the table and the view.

mod change;
mod column;
mod column_rules;
mod definition;
mod fields;
mod folding;
mod identifier;
mod key;
mod meanings;
mod name;
mod overriding;
mod table_name;
pub mod time_format;
mod user_table;

use jiff::Timestamp;

pub use change::{Change, change};
pub use column::{ColumnDefinition, ColumnType, TypedColumn};
pub use definition::{Definition, MAX_COLUMNS, MAX_DEFINITION_BYTES, Mode};
pub use fields::DefinitionFault;
pub use folding::folded_name;
pub use identifier::quote_identifier;
pub use key::{DatasetKey, postgres_schema, tenant_of_schema};
pub use name::{DatasetName, NameFault, check_column_name};
pub use overriding::FileReading;
pub use table_name::{TableName, TableNameFault};
pub use user_table::{TableFault, UserColumn, UserTable, check_table};

use crate::tenant::Tenant;

/// A dataset as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The tenant that the dataset belongs to.
    pub tenant: Tenant,
    /// The name in requests, and in the name of its table.
    pub name: DatasetName,
    /// The latest definition.
    pub definition: Definition,
    /// When the dataset was created.
    pub created_at: Timestamp,
    /// When the definition changed last.
    pub updated_at: Timestamp,
}

impl Dataset {
    /// The dataset's tenant and name.
    pub fn key(&self) -> DatasetKey {
        DatasetKey::new(self.tenant.clone(), self.name.clone())
    }
}
