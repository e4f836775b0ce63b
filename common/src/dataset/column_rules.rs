//! The rules for each column of a definition.

use std::collections::HashSet;

use super::column::{ColumnDefinition, ColumnType};
use super::fields::{DefinitionFault, Fields, Json};
use super::name::check_column_name;
use super::time_format;

/// The fields of a column.
const FIELDS: [&str; 11] = [
    "name",
    "type",
    "required",
    "from",
    "null",
    "decimal",
    "thousands",
    "currency",
    "format",
    "true",
    "false",
];

/// The parts of the definition that its columns depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults<'a> {
    /// The names of the columns in the key.
    pub(super) key: &'a [String],
    /// The cells that mean NULL in columns without a list of their own.
    pub(super) null: &'a [String],
}

/// Reads the column at `path`, and checks the rules for its fields.
pub(super) fn read_column(
    path: &str,
    value: Json,
    defaults: &Defaults<'_>,
) -> Result<ColumnDefinition, DefinitionFault> {
    let mut fields = Fields::of(path, value, &FIELDS)?;
    let name = fields.required_text("name")?;
    check_column_name(&name).map_err(|fault| fields.fault("name", fault.to_string()))?;
    let column = ColumnDefinition {
        kind: read_type(&mut fields)?,
        required: read_required(&mut fields, defaults.key.contains(&name))?,
        from: fields.texts("from")?.unwrap_or_default(),
        null: fields.texts("null")?,
        decimal: fields.character("decimal")?,
        thousands: fields.character("thousands")?,
        currency: fields.texts("currency")?.unwrap_or_default(),
        format: fields.text("format")?,
        r#true: fields.texts("true")?.unwrap_or_default(),
        r#false: fields.texts("false")?.unwrap_or_default(),
        name,
    };
    check_types(&column, &fields)?;
    check_from(&column, &fields)?;
    check_marks(&column, &fields)?;
    check_currency(&column, &fields)?;
    check_format(&column, &fields)?;
    check_booleans(&column, &fields, defaults)?;
    Ok(column)
}

fn read_type(fields: &mut Fields) -> Result<ColumnType, DefinitionFault> {
    let name = fields.required_text("type")?;
    let mut types = ColumnType::ALL.into_iter();
    let known = types.find(|kind| kind.name() == name);
    known.ok_or_else(|| {
        let names = join(&ColumnType::ALL, ", ");
        fields.fault("type", format!("unknown type; the types are {names}"))
    })
}

fn read_required(fields: &mut Fields, is_in_key: bool) -> Result<bool, DefinitionFault> {
    match fields.flag("required")? {
        Some(false) if is_in_key => {
            Err(fields.fault("required", "a column of the key is always required"))
        }
        given => Ok(given.unwrap_or(is_in_key)),
    }
}

/// Checks that each field is one that columns of this type have.
fn check_types(column: &ColumnDefinition, fields: &Fields) -> Result<(), DefinitionFault> {
    use ColumnType::{Boolean, Date, Float, Integer, Numeric, Timestamp};
    let rules: [(&str, bool, &[ColumnType]); 6] = [
        ("decimal", column.decimal.is_some(), &[Numeric, Float]),
        (
            "thousands",
            column.thousands.is_some(),
            &[Integer, Numeric, Float],
        ),
        ("currency", !column.currency.is_empty(), &[Numeric, Float]),
        ("format", column.format.is_some(), &[Date, Timestamp]),
        ("true", !column.r#true.is_empty(), &[Boolean]),
        ("false", !column.r#false.is_empty(), &[Boolean]),
    ];
    for (field, is_given, types) in rules {
        if is_given && !types.contains(&column.kind) {
            let (types, kind) = (join(types, " or "), column.kind);
            let message =
                format!("the field is for columns of type {types}, and this column is {kind}");
            return Err(fields.fault(field, message));
        }
    }
    Ok(())
}

fn check_from(column: &ColumnDefinition, fields: &Fields) -> Result<(), DefinitionFault> {
    match column.from.iter().position(|name| name.trim().is_empty()) {
        Some(index) => Err(fields.item_fault("from", index, "must not be empty or blank")),
        None => Ok(()),
    }
}

/// Checks the marks in numbers: neither can be taken for a digit, for a sign or for the other mark.
fn check_marks(column: &ColumnDefinition, fields: &Fields) -> Result<(), DefinitionFault> {
    let (decimal, thousands) = (column.decimal, column.thousands);
    if decimal.is_some_and(|mark| !is_decimal_mark(mark)) {
        let message = "must not be a letter, a digit, a sign or a blank";
        return Err(fields.fault("decimal", message));
    }
    if thousands.is_some_and(is_ambiguous) {
        let message = "must not be a letter, a digit or a sign";
        return Err(fields.fault("thousands", message));
    }
    match repeated_mark(column) {
        Some(mark) => {
            let message = format!("`{mark}` is the decimal mark; change `decimal` or `thousands`");
            Err(fields.fault("thousands", message))
        }
        None => Ok(()),
    }
}

/// Whether a character can be a decimal mark: it cannot be taken for another part of a number.
pub(super) fn is_decimal_mark(mark: char) -> bool {
    !is_ambiguous(mark) && !mark.is_whitespace()
}

/// The mark that the column has both as its decimal mark and between groups of digits. An integer
/// has no decimal mark.
pub(super) fn repeated_mark(column: &ColumnDefinition) -> Option<char> {
    let thousands = column.thousands?;
    let is_decimal = thousands == column.decimal.unwrap_or('.');
    (is_decimal && column.kind != ColumnType::Integer).then_some(thousands)
}

fn is_ambiguous(mark: char) -> bool {
    mark.is_alphabetic() || mark.is_control() || is_in_number(mark)
}

fn is_in_number(character: char) -> bool {
    character.is_numeric() || matches!(character, '+' | '-')
}

fn check_currency(column: &ColumnDefinition, fields: &Fields) -> Result<(), DefinitionFault> {
    let is_faulty = |text: &String| text.trim().is_empty() || text.contains(is_in_number);
    match column.currency.iter().position(is_faulty) {
        Some(index) => {
            let message = "must not be blank, and must not contain a digit or a sign";
            Err(fields.item_fault("currency", index, message))
        }
        None => Ok(()),
    }
}

fn check_format(column: &ColumnDefinition, fields: &Fields) -> Result<(), DefinitionFault> {
    let Some(format) = &column.format else {
        return Ok(());
    };
    let checked = time_format::check_format(column.kind, format);
    checked.map_err(|message| fields.fault("format", message))
}

/// Checks that every text means one of true, false and NULL.
fn check_booleans(
    column: &ColumnDefinition,
    fields: &Fields,
    defaults: &Defaults<'_>,
) -> Result<(), DefinitionFault> {
    let together = "`true` and `false` must be given together";
    match (column.r#true.is_empty(), column.r#false.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => return Err(fields.fault("true", together)),
        (false, true) => return Err(fields.fault("false", together)),
        (false, false) => {}
    }
    let truths: HashSet<String> = column.r#true.iter().map(|text| word(text)).collect();
    let is_true = |text: &String| truths.contains(&word(text));
    if let Some(index) = column.r#false.iter().position(is_true) {
        let message = "`true` has the same text, without regard to case and to blanks around it";
        return Err(fields.item_fault("false", index, message));
    }
    match boolean_that_is_null(column, column.null.as_deref().unwrap_or(defaults.null)) {
        Some((field, index)) => {
            let message = "the text means NULL; give the column a list `null` without it";
            Err(fields.item_fault(field, index, message))
        }
        None => Ok(()),
    }
}

/// The first declared text for true or false that is also in the column's list of cells that mean
/// NULL, as its field and its position in this field.
pub(super) fn boolean_that_is_null(
    column: &ColumnDefinition,
    null: &[String],
) -> Option<(&'static str, usize)> {
    let null: HashSet<&str> = null.iter().map(String::as_str).collect();
    let is_null = |text: &String| null.contains(text.as_str()) || null.contains(text.trim());
    let lists = [("true", &column.r#true), ("false", &column.r#false)];
    lists.into_iter().find_map(|(field, texts)| {
        let index = texts.iter().position(is_null)?;
        Some((field, index))
    })
}

/// A word for true or false as cells are compared with it.
fn word(text: &str) -> String {
    // Letter by letter, because the lower case of a whole text depends on the ends of its words.
    text.trim().chars().flat_map(char::to_lowercase).collect()
}

fn join(types: &[ColumnType], separator: &str) -> String {
    let names: Vec<_> = types.iter().map(|kind| kind.name()).collect();
    names.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn column(value: Value) -> Result<ColumnDefinition, DefinitionFault> {
        let json = Json::parse(value.to_string().as_bytes())?;
        let defaults = Defaults {
            key: &["id".to_owned()],
            null: &[String::new()],
        };
        read_column("columns[2]", json, &defaults)
    }

    fn fault(value: Value) -> String {
        let fault = column(value).unwrap_err().to_string();
        let rest = fault.strip_prefix("`columns[2].");
        rest.unwrap().to_owned()
    }

    #[test]
    fn a_column_has_every_field_that_is_given() {
        let price = column(json!({
            "name": "price", "type": "numeric", "required": true, "from": ["Preço"],
            "null": ["NA"], "decimal": ",", "thousands": ".", "currency": ["R$", "€"],
        }));
        let price = price.unwrap();
        assert_eq!(price.name, "price");
        assert_eq!(price.kind, ColumnType::Numeric);
        assert!(price.required);
        assert_eq!(price.from, ["Preço"]);
        assert_eq!(price.null, Some(vec!["NA".to_owned()]));
        assert_eq!((price.decimal, price.thousands), (Some(','), Some('.')));
        assert_eq!(price.currency, ["R$", "€"]);
        let paid = json!({ "name": "paid", "type": "boolean", "true": ["sim"], "false": ["não"] });
        let paid = column(paid).unwrap();
        assert_eq!(paid.r#true, ["sim"]);
        assert_eq!(paid.r#false, ["não"]);
        let day = json!({ "name": "day", "type": "date", "format": "%d/%m/%Y" });
        assert_eq!(column(day).unwrap().format.as_deref(), Some("%d/%m/%Y"));
    }

    #[test]
    fn a_column_needs_only_a_name_and_a_type() {
        let plain = column(json!({ "name": "a", "type": "text", "null": null })).unwrap();
        assert!(!plain.required && plain.from.is_empty() && plain.null.is_none());
        let no_null = column(json!({ "name": "a", "type": "text", "null": [] })).unwrap();
        assert_eq!(no_null.null, Some(vec![]));
        assert!(fault(json!({ "type": "text" })).starts_with("name`: the field is missing"));
        assert!(fault(json!({ "name": "a" })).starts_with("type`: the field is missing"));
        assert!(fault(json!({ "name": "ctid", "type": "text" })).starts_with("name`: `ctid`"));
        assert_eq!(
            fault(json!({ "name": "a", "type": "int" })),
            "type`: unknown type; the types are text, integer, numeric, float, boolean, date, \
             timestamp, uuid, json"
        );
    }

    #[test]
    fn a_column_of_the_key_is_required() {
        let id = column(json!({ "name": "id", "type": "uuid" })).unwrap();
        assert!(id.required);
        let optional = fault(json!({ "name": "id", "type": "uuid", "required": false }));
        assert!(optional.starts_with("required`: a column of the key"));
    }

    #[test]
    fn a_field_of_another_type_is_a_fault() {
        for (field, value, kinds) in [
            ("decimal", json!(","), "numeric or float"),
            ("thousands", json!("."), "integer or numeric or float"),
            ("currency", json!(["$"]), "numeric or float"),
            ("format", json!("%F"), "date or timestamp"),
            ("true", json!(["x"]), "boolean"),
            ("false", json!(["x"]), "boolean"),
        ] {
            let found = fault(json!({ "name": "a", "type": "uuid", field: value }));
            let reason = format!("for columns of type {kinds}, and this column is uuid");
            assert!(
                found.starts_with(field) && found.ends_with(&reason),
                "{found}"
            );
        }
        let grouped = json!({ "name": "a", "type": "integer", "thousands": "." });
        assert!(column(grouped).is_ok());
    }

    #[test]
    fn a_mark_that_could_be_part_of_a_number_is_a_fault() {
        for mark in ["1", "٣", "a", "-", "+", " ", "\t"] {
            let faulty = fault(json!({ "name": "a", "type": "float", "decimal": mark }));
            assert!(faulty.starts_with("decimal`: must not be"), "{mark}");
        }
        let tab = fault(json!({ "name": "a", "type": "float", "thousands": "\t" }));
        assert!(tab.starts_with("thousands`: must not be"));
        for mark in [" ", "\u{202f}", "'", ",", "_"] {
            let grouped = json!({ "name": "a", "type": "float", "thousands": mark });
            assert!(column(grouped).is_ok(), "{mark}");
        }
        let both = json!({ "name": "a", "type": "float", "decimal": ",", "thousands": "," });
        assert!(fault(both).starts_with("thousands`: `,` is the decimal mark"));
        let default = json!({ "name": "a", "type": "float", "thousands": "." });
        assert!(fault(default).starts_with("thousands`: `.` is the decimal mark"));
        for currency in ["", " ", "R$1", "-$"] {
            let priced = json!({ "name": "a", "type": "float", "currency": ["$", currency] });
            assert!(
                fault(priced).starts_with("currency[1]`: must not be"),
                "{currency}"
            );
        }
    }

    #[test]
    fn a_format_that_makes_no_date_is_a_fault() {
        let half = json!({ "name": "day", "type": "date", "format": "%d/%m" });
        assert!(fault(half).starts_with("format`: the year is missing"));
        let blank = json!({ "name": "a", "type": "text", "from": ["A", " "] });
        assert!(fault(blank).starts_with("from[1]`: must not be empty"));
    }

    #[test]
    fn a_text_means_one_of_true_false_and_null() {
        let words = |yes: &[&str], no: &[&str]| {
            let column = json!({ "name": "a", "type": "boolean", "true": yes, "false": no });
            fault(column)
        };
        assert!(words(&["x"], &[]).starts_with("false`: `true` and `false`"));
        assert!(words(&[], &["x"]).starts_with("true`: `true` and `false`"));
        assert!(words(&["S", "É"], &["n", "é"]).starts_with("false[1]`: `true` has the same"));
        assert!(words(&["x"], &["X "]).starts_with("false[0]`: `true` has the same"));
        assert!(words(&["x"], &[""]).starts_with("false[0]`: the text means NULL"));
        assert!(words(&[" "], &["x"]).starts_with("true[0]`: the text means NULL"));
        let blank = json!({
            "name": "a", "type": "boolean", "true": ["x"], "false": [""], "null": []
        });
        assert!(column(blank).is_ok());
    }
}
