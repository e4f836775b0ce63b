//! Booleans.
//!
//! The usual words are those of Postgres, but only `t`, `f`, `y` and `n` of its abbreviations.
//! Words that a definition declares replace them. Upper and lower case are alike.

use carga_common::dataset::ColumnDefinition;

use super::wording::listed;
use super::{Fault, WORD_CHARS};

const TRUTHS: [&str; 6] = ["true", "t", "yes", "y", "on", "1"];
const FALSEHOODS: [&str; 6] = ["false", "f", "no", "n", "off", "0"];

/// The words for the two values of a column.
#[derive(Debug, Clone)]
pub(super) struct BooleanWords {
    /// In lower case.
    truths: Vec<String>,
    /// In lower case.
    falsehoods: Vec<String>,
    /// The first words as they are declared, for messages.
    expected: String,
}

impl BooleanWords {
    pub(super) fn new(column: &ColumnDefinition) -> Self {
        if column.r#true.is_empty() && column.r#false.is_empty() {
            return Self {
                truths: TRUTHS.map(String::from).to_vec(),
                falsehoods: FALSEHOODS.map(String::from).to_vec(),
                expected: "true/false, t/f, yes/no, y/n, on/off or 1/0".to_owned(),
            };
        }
        let shown = |words: &[String]| {
            let words = words.iter().map(|word| word.trim());
            listed(words, ", ", WORD_CHARS)
        };
        Self {
            truths: folded(&column.r#true),
            falsehoods: folded(&column.r#false),
            expected: format!("{} or {}", shown(&column.r#true), shown(&column.r#false)),
        }
    }

    fn value(&self, text: &str) -> Option<bool> {
        let is_one = |words: &[String]| words.iter().any(|word| word == text);
        let is_like_one = |words: &[String]| words.iter().any(|word| fold(text).eq(word.chars()));
        // Most cells are in lower case, and comparing them without folding is faster.
        match (is_one(&self.truths), is_one(&self.falsehoods)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ if is_like_one(&self.truths) => Some(true),
            _ if is_like_one(&self.falsehoods) => Some(false),
            _ => None,
        }
    }
}

/// Converts a boolean.
pub(super) fn canonical(words: &BooleanWords, text: &str, out: &mut String) -> Result<(), Fault> {
    let value = words.value(text).ok_or_else(|| {
        let expected = &words.expected;
        Fault::wrong_type(format!("expected a boolean: {expected}"))
    })?;
    out.push_str(if value { "true" } else { "false" });
    Ok(())
}

fn folded(words: &[String]) -> Vec<String> {
    let words = words.iter();
    words.map(|word| fold(word.trim()).collect()).collect()
}

fn fold(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use crate::typed::canonical;
    use crate::typed::tests::{Outcome, assert_outcomes, convert, rules};

    const YES: Outcome = Ok(Some("true"));
    const NO: Outcome = Ok(Some("false"));
    const WRONG: Outcome = Err("wrong_type");

    #[test]
    fn the_usual_words_are_read_in_any_case() {
        let rules = rules(r#""type":"boolean""#);
        for (truth, falsehood) in super::TRUTHS.into_iter().zip(super::FALSEHOODS) {
            for (word, expected) in [(truth, "true"), (falsehood, "false")] {
                let expected = Ok(Some(expected.to_owned()));
                assert_eq!(convert(&rules, word), expected);
                assert_eq!(convert(&rules, &word.to_uppercase()), expected);
                assert_eq!(convert(&rules, &format!("\t{word} ")), expected);
            }
        }
        for word in ["tr", "of", "10", "sim", "yes!", "y es", "yës"] {
            assert_eq!(convert(&rules, word), Err("wrong_type"), "{word}");
        }
    }

    #[test]
    fn declared_words_replace_the_usual_ones() {
        let column = r#""type":"boolean","true":["sim","S"],"false":["não"]"#;
        let cases = [
            ("SIM", YES),
            ("s", YES),
            ("NÃO", NO),
            ("Não", NO),
            ("nao", WRONG),
            ("true", WRONG),
            ("0", WRONG),
        ];
        assert_outcomes(column, &cases);
    }

    #[test]
    fn the_message_has_the_first_declared_words_and_stays_short() {
        let message = |column: &str| {
            let fault = canonical(&rules(column), "maybe", &mut String::new());
            fault.unwrap_err().message
        };
        assert_eq!(
            message(r#""type":"boolean","true":["sim","S"],"false":["não "]"#),
            "expected a boolean: `sim`, `S` or `não`"
        );
        let words = |letter: &str| {
            let words = (0..1000).map(|number| format!("{number}{}", letter.repeat(1000)));
            words.collect::<Vec<_>>()
        };
        let (truths, falsehoods) = (words("t"), words("f"));
        let long = message(&format!(
            r#""type":"boolean","true":{truths:?},"false":{falsehoods:?}"#
        ));
        assert!(long.len() < 1000, "{} bytes", long.len());
        assert!(long.contains("`9ttt") && long.contains(", … or `0f"));
    }
}
