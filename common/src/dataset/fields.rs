//! The JSON of a definition, read field by field. Every fault names its field.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A byte order mark in UTF-8, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How many characters of an unknown field's name a fault shows.
const SHOWN_CHARACTERS: usize = 60;

/// The most texts in one list. Many cells are compared with every text of a list.
pub(super) const MAX_TEXTS: usize = 1000;

/// A field of a definition, and the reason why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {message}")]
pub struct DefinitionFault {
    /// The path of the field, such as `columns[2].type`; `definition` for the whole text.
    pub field: String,
    /// The rule that the field breaks.
    pub message: String,
}

impl DefinitionFault {
    /// A fault of the field at this path.
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// A JSON value. An object keeps repeated fields, so that they can be refused.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, DefinitionFault> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        serde_json::from_slice(text).map_err(|error| {
            let message = format!("not valid JSON: {error}");
            DefinitionFault::new("definition", message)
        })
    }

    /// The value without these fields, if it is an object.
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        if let Json::Object(fields) = &mut self {
            fields.retain(|(name, _)| !names.contains(&name.as_str()));
        }
        self
    }

    fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::Number => "a number",
            Json::Text(_) => "a text",
            Json::List(_) => "a list",
            Json::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = entries.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

/// The fields of an object, which are taken one by one. A field whose value is null counts as
/// absent.
#[derive(Debug)]
pub(super) struct Fields {
    /// The path of the object with a dot behind it; empty for the definition itself.
    prefix: String,
    fields: Vec<(String, Json)>,
}

impl Fields {
    /// The fields of the whole definition.
    pub(super) fn of_definition(value: Json, known: &[&str]) -> Result<Self, DefinitionFault> {
        let fields = object("definition", value)?;
        Self::check(String::new(), fields, known)
    }

    /// The fields of the object at `path`.
    pub(super) fn of(path: &str, value: Json, known: &[&str]) -> Result<Self, DefinitionFault> {
        let fields = object(path, value)?;
        Self::check(format!("{path}."), fields, known)
    }

    /// Unknown and repeated fields are faults.
    fn check(
        prefix: String,
        fields: Vec<(String, Json)>,
        known: &[&str],
    ) -> Result<Self, DefinitionFault> {
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in &fields {
            let shown: String = name.chars().take(SHOWN_CHARACTERS).collect();
            let path = format!("{prefix}{shown}");
            if !known.contains(&name.as_str()) {
                let message = format!("unknown field; the known ones are {}", known.join(", "));
                return Err(DefinitionFault::new(path, message));
            }
            if seen.contains(&name.as_str()) {
                return Err(DefinitionFault::new(path, "the field is given twice"));
            }
            seen.push(name);
        }
        Ok(Self { prefix, fields })
    }

    /// A fault of one field.
    pub(super) fn fault(&self, field: &str, message: impl Into<String>) -> DefinitionFault {
        DefinitionFault::new(self.path(field), message)
    }

    /// A fault of one item in the list of a field.
    pub(super) fn item_fault(&self, field: &str, index: usize, message: &str) -> DefinitionFault {
        DefinitionFault::new(format!("{}[{index}]", self.path(field)), message)
    }

    fn path(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn take(&mut self, field: &str) -> Option<Json> {
        let index = self.fields.iter().position(|(name, _)| name == field)?;
        let (_, value) = self.fields.swap_remove(index);
        (!matches!(value, Json::Null)).then_some(value)
    }

    /// A text.
    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, DefinitionFault> {
        let value = self.take(field);
        value.map(|json| text(&self.path(field), json)).transpose()
    }

    /// A text that must be given.
    pub(super) fn required_text(&mut self, field: &str) -> Result<String, DefinitionFault> {
        let given = self.text(field)?;
        given.ok_or_else(|| self.fault(field, "the field is missing"))
    }

    /// A text of one character.
    pub(super) fn character(&mut self, field: &str) -> Result<Option<char>, DefinitionFault> {
        let Some(text) = self.text(field)? else {
            return Ok(None);
        };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(only), None) => Ok(Some(only)),
            _ => Err(self.fault(field, "expected a text of one character")),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, DefinitionFault> {
        match self.take(field) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(expected(&self.path(field), "true or false", &other)),
        }
    }

    /// The items of a list, each with its path.
    pub(super) fn items(
        &mut self,
        field: &str,
    ) -> Result<Option<Vec<(String, Json)>>, DefinitionFault> {
        let path = self.path(field);
        match self.take(field) {
            None => Ok(None),
            Some(Json::List(items)) => {
                let with_path = |(index, item): (usize, Json)| (format!("{path}[{index}]"), item);
                let items = items.into_iter().enumerate().map(with_path);
                Ok(Some(items.collect()))
            }
            Some(other) => Err(expected(&path, "a list", &other)),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, field: &str) -> Result<Option<Vec<String>>, DefinitionFault> {
        let Some(items) = self.items(field)? else {
            return Ok(None);
        };
        if items.len() > MAX_TEXTS {
            let message = format!("a list has at most {MAX_TEXTS} texts, not {}", items.len());
            return Err(self.fault(field, message));
        }
        let texts = items.into_iter().map(|(path, item)| text(&path, item));
        texts.collect::<Result<_, _>>().map(Some)
    }
}

fn object(path: &str, value: Json) -> Result<Vec<(String, Json)>, DefinitionFault> {
    match value {
        Json::Object(fields) => Ok(fields),
        other => Err(expected(path, "an object", &other)),
    }
}

fn text(path: &str, value: Json) -> Result<String, DefinitionFault> {
    match value {
        Json::Text(text) if text.contains('\0') => {
            let message = "the databases cannot store the character NUL";
            Err(DefinitionFault::new(path, message))
        }
        Json::Text(text) => Ok(text),
        other => Err(expected(path, "a text", &other)),
    }
}

fn expected(path: &str, wanted: &str, found: &Json) -> DefinitionFault {
    let found = found.kind();
    DefinitionFault::new(path, format!("expected {wanted}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["a", "b"];

    fn fields(json: &str) -> Result<Fields, DefinitionFault> {
        Fields::of("x[1]", Json::parse(json.as_bytes())?, &KNOWN)
    }

    fn fault<T: fmt::Debug>(read: Result<T, DefinitionFault>) -> String {
        read.unwrap_err().to_string()
    }

    #[test]
    fn a_text_that_is_not_json_is_a_fault_of_the_definition() {
        let cut_short = fault(fields("{\"a\": "));
        assert!(cut_short.starts_with("`definition`: not valid JSON: EOF"));
        assert!(fault(fields("")).starts_with("`definition`: not valid JSON"));
        let nested = "[".repeat(100_000);
        assert!(fault(fields(&nested)).contains("recursion limit"));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert!(fields("\u{feff}{}").is_ok());
    }

    #[test]
    fn an_unknown_field_is_a_fault_that_names_the_known_ones() {
        assert_eq!(
            fault(fields("{\"a\": 1, \"c\": 1}")),
            "`x[1].c`: unknown field; the known ones are a, b"
        );
        let long = format!("{{\"{}\": 1}}", "é".repeat(500_000));
        assert!(fault(fields(&long)).len() < 250);
    }

    #[test]
    fn a_repeated_field_is_a_fault() {
        let repeated = fault(fields("{\"a\": 1, \"b\": 2, \"a\": null}"));
        assert_eq!(repeated, "`x[1].a`: the field is given twice");
    }

    #[test]
    fn a_value_of_another_kind_is_a_fault() {
        let found = |json: &str| fault(fields(json).unwrap().text("a"));
        assert_eq!(
            found("{\"a\": 1.5}"),
            "`x[1].a`: expected a text, found a number"
        );
        assert!(found("{\"a\": -1}").ends_with("found a number"));
        assert!(found("{\"a\": true}").ends_with("found true or false"));
        assert!(found("{\"a\": []}").ends_with("found a list"));
        assert!(found("{\"a\": {}}").ends_with("found an object"));
        assert!(fault(fields("{\"a\": \"\"}").unwrap().flag("a")).ends_with("found a text"));
        assert!(fault(fields("[]")).ends_with("expected an object, found a list"));
        let in_list = fault(fields("{\"a\": [\"\", null]}").unwrap().texts("a"));
        assert_eq!(in_list, "`x[1].a[1]`: expected a text, found null");
    }

    #[test]
    fn a_field_that_is_null_counts_as_absent() {
        let mut fields = fields("{\"a\": null}").unwrap();
        assert_eq!(fields.text("a"), Ok(None));
        assert_eq!(fields.texts("b"), Ok(None));
        assert_eq!(
            fault(fields.required_text("a")),
            "`x[1].a`: the field is missing"
        );
    }

    #[test]
    fn a_character_is_a_text_of_one_character() {
        let read = |json: &str| fields(json).unwrap().character("a");
        assert_eq!(read("{\"a\": \"\u{202f}\"}"), Ok(Some('\u{202f}')));
        for json in ["{\"a\": \"\"}", "{\"a\": \"..\"}"] {
            assert!(fault(read(json)).contains("one character"));
        }
    }

    #[test]
    fn a_list_of_more_than_a_thousand_texts_is_a_fault() {
        let json = |texts: usize| format!("{{\"a\": [{}\"\"]}}", "\"\",".repeat(texts - 1));
        let longest = fields(&json(1000)).unwrap().texts("a").unwrap();
        assert_eq!(longest.unwrap().len(), 1000);
        let longer = fault(fields(&json(1001)).unwrap().texts("a"));
        assert!(longer.ends_with("at most 1000 texts, not 1001"));
    }

    #[test]
    fn the_character_nul_is_a_fault() {
        let nul = fault(fields("{\"a\": \"x\\u0000\"}").unwrap().text("a"));
        assert!(nul.ends_with("cannot store the character NUL"));
    }
}
