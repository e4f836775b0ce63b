//! Detects the delimiter, the quote and the escape character of a file.

use super::super::syntax::Syntax;
use super::delimiters::{better_delimiter, delimited};
use super::quoting::{escape, quoted_fields};
use super::sample::Sample;

/// What a client states about the syntax; `None` is detected.
#[derive(Debug, Clone, Copy)]
pub(in crate::csv) struct Given {
    pub(in crate::csv) delimiter: Option<char>,
    pub(in crate::csv) quote: Option<Option<u8>>,
    pub(in crate::csv) escape: Option<Option<u8>>,
    /// The number of names that replace the file's header.
    pub(in crate::csv) names: Option<usize>,
}

/// Whether a blank follows every delimiter of the sample. Then it belongs to the delimiter and not
/// to the cells.
pub(super) fn has_blank_after_delimiters(sample: &Sample<'_>) -> bool {
    const MIN_FIELDS: usize = 4;
    let mut fields = 0;
    for record in &sample.records {
        for field in record.fields.iter().skip(1) {
            let is_led = match record.is_quoted(field, sample.syntax) {
                true => record.text[..field.start - 1].ends_with(b" "),
                false => record.text[field.start..].starts_with(b" "),
            };
            if !is_led {
                return false;
            }
            fields += 1;
        }
    }
    fields >= MIN_FIELDS
}

/// Splits a text with the syntax that is stated or detected. The evidence is about the delimiter,
/// and also about the quote and the escape character if they are unusual.
pub(super) fn split(text: &[u8], given: Given, whole: bool) -> (Sample<'_>, String) {
    let quote = given.quote.unwrap_or(Some(b'"'));
    let Given {
        delimiter, names, ..
    } = given;
    let (mut sample, mut evidence) = delimited(text, delimiter, names, quote, whole);
    let may_be_apostrophe = given.quote.is_none() && delimiter != Some('\'');
    if may_be_apostrophe && !text.contains(&b'"') && text.contains(&b'\'') {
        // The delimiter may have been sought inside of these quotes.
        let (single, single_evidence) = delimited(text, delimiter, names, Some(b'\''), whole);
        let quoted = quoted_fields(&single);
        if quoted > 1 {
            sample = single;
            evidence =
                format!("{single_evidence}; {quoted} fields are quoted with ' and none with \"");
        }
    }
    let escape = match given.escape {
        Some(escape) => escape,
        None => {
            let escaped = escape(text, sample.syntax, whole);
            if escaped.is_some() {
                evidence.push_str("; quotes inside quoted fields are escaped with \\");
            }
            escaped
        }
    };
    // If the delimiter were also the escape character, it would hide the quotes that open fields.
    let escape = escape.filter(|escape| char::from(*escape) != sample.syntax.delimiter());
    let Some(escape) = escape else {
        return (sample, evidence);
    };
    let mut syntax = sample.syntax.with_escape(Some(escape));
    // Without the escape character, quoted fields seemed to end too early.
    if delimiter.is_none()
        && let Some(better) = better_delimiter(text, syntax, whole)
    {
        syntax = Syntax::new(better, syntax.quote()).with_escape(Some(escape));
        evidence =
            "most records are even; quotes inside quoted fields are escaped with \\".to_owned();
    }
    (Sample::split(text, syntax, whole), evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Given = Given {
        delimiter: None,
        quote: None,
        escape: None,
        names: None,
    };

    fn found(text: &str) -> Syntax {
        split(text.as_bytes(), NOTHING, true).0.syntax
    }

    #[test]
    fn the_delimiter_that_makes_rows_of_equal_width_is_detected() {
        let cases = [
            ("a,b,c\n1,2,3\n", ','),
            ("a;b;c\n1,5;2,5;3\n2,5;3,5;4\n", ';'),
            ("1,5;2,3;3,1\n1,6;2,4;3,2\n", ';'),
            (
                "name;city, state;age\nBob;Austin, TX;5\nEve;Salem, OR;6\n",
                ';',
            ),
            ("a\tb\n\"x,y\"\t1\n\"z,y\"\t2\n", '\t'),
            ("a|b|c\nx, y|2|3\nx|y, z|3\n", '|'),
            ("id,text\n1,\"a; b; c\"\n2,\"d\ne;f\"\n", ','),
            ("a,b\n1,2\n1,2,3\n1\n1,2\n", ','),
            ("a;b;c\n", ';'),
            ("a;b;c", ';'),
            ("", ','),
            (
                "City, State\tPopulation\nNew York, NY\t8000000\nAustin, TX\t900000\n",
                '\t',
            ),
            (
                "City, State;Population\nNew York, NY;8000000\nAustin, TX;900000\n",
                ';',
            ),
            ("Sales; 2024\n\na,b,c\n1,2,3\n4,5,6\n", ','),
            ("a, b, c\n1, 2, 3\n4, 5, 6\n", ','),
            ("Survey\nyear,count\n2019,150\n2020,160\n", ','),
            (
                "Doe,Ada\tRome\t5\nRoe,Bob\tOslo\t6\nPoe,Eve\tBern\t7\n",
                '\t',
            ),
            (
                "lat,lon;name;pop\n59.9,10.7;Oslo;700\n41.9,12.5;Rome;280\n",
                ';',
            ),
            (
                "Log, May\nTime;Value, kWh\n10:00;1,5\n11:00;2,5\n12:00;3,5\n",
                ';',
            ),
            ("Log\ntime, temp, hum\n10:00, 5, 60\n10:01, 5, 61\n", ','),
            (
                "t\tsummary\nT-0\tprinter,paper,jam\nT-1\tprinter,ink,jam\n",
                '\t',
            ),
            ("Name,Tags\nAda,Work;VIP;Math\nBob,Home;VIP;Art\n", ','),
            (
                "1;Bolt;red,blue,black,green\n2;Nut;red,blue,black,grey\n",
                ';',
            ),
            ("id;v1,v2,v3\n1;2,3,4\n2;3,4,5\n", ';'),
            (
                "Day;Sum\n1.1.2024;5,00\n2.1.2024;6,00\n\nTotal: 11,00\nBank: X\nPage: 1\nEnd\n",
                ';',
            ),
        ];
        for (text, delimiter) in cases {
            assert_eq!(found(text).delimiter(), delimiter, "{text}");
        }
    }

    #[test]
    fn a_cell_that_is_longer_than_the_sample_does_not_hide_the_delimiter() {
        let text = format!("a,b\n1,\"{}", "text\n".repeat(10_000));
        let (sample, evidence) = split(text.as_bytes(), NOTHING, false);
        assert_eq!(sample.syntax.delimiter(), ',', "{evidence}");
    }

    #[test]
    fn one_column_with_commas_is_one_column() {
        for text in [
            "address\n1 Main St, Austin, TX\n2 Elm St, Salem, OR\n",
            "text\nhello, world\nbye\n",
            "note\nplain\none, two\nplain\nthree, four\n",
            "sum\n1,50\n2,75\n13,20\n",
            "tags\nred,green,blue\nblack,white,grey\npink\nteal\ncyan\nlime\n",
            "people\n1,234\n15,678\n1,234,567\n",
        ] {
            assert_ne!(found(text).delimiter(), ',', "{text}");
        }
    }

    #[test]
    fn given_names_tell_a_delimiter_that_no_other_rule_finds() {
        let text = b"1 red big\n2 light blue small\n3 green big\n";
        assert_ne!(split(text, NOTHING, true).0.syntax.delimiter(), ' ');
        let given = Given {
            names: Some(3),
            ..NOTHING
        };
        assert_eq!(split(text, given, true).0.syntax.delimiter(), ' ');
    }

    #[test]
    fn blanks_separate_fields_only_where_every_row_is_quoted() {
        let r = "\"name\" \"n\"\n\"1\" \"Ada L\" 5\n\"2\" \"Eve \\\"x\\\"\" NA\n";
        assert_eq!(found(r).delimiter(), ' ');
        for text in [
            "name\nAda L\nEve M\n",
            "at\n2024-01-31 10:00\n2024-02-01 11:00\n",
        ] {
            assert_ne!(found(text).delimiter(), ' ', "{text}");
        }
    }

    #[test]
    fn a_single_quote_is_detected_where_only_it_quotes() {
        let quoted = "a,b\n'Doe, John',1\n'Roe, Jane',2\n";
        assert_eq!(found(quoted).quote(), Some(b'\''));
        for text in [
            "a,b\n'tis,1\nit's,2\n",
            "a,b\n\"x\",1\n'y',2\n'z',3\n",
            "id,code\n1,'007\n2,'008\n",
        ] {
            assert_eq!(found(text).quote(), Some(b'"'), "{text}");
        }
    }

    #[test]
    fn a_backslash_is_detected_where_quotes_need_it() {
        let spark = "a,b\n1,\"He said \\\"hi\\\"\"\n2,\"say \\\",\\\" now\"\n";
        assert_eq!(found(spark).escape(), Some(b'\\'));
        for text in [
            "a,b\n1,\"C:\\dir\\\"\n2,\"x\"\n",
            "a,b\n1,\"say \"\"hi\"\"\"\n",
        ] {
            assert_eq!(found(text).escape(), None, "{text}");
        }
    }
}
