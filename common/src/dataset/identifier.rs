//! Names in SQL.

/// Quotes a name for the SQL of both databases. This is the only function that puts a name from
/// outside into SQL. The name must not contain the character NUL, which neither database allows.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::check_column_name;
    use proptest::prelude::*;

    /// Reads a quoted name at the beginning of `sql` as a database does. Returns the name and the
    /// text after it.
    fn read_identifier(sql: &str) -> Option<(String, &str)> {
        let mut name = String::new();
        let mut rest = sql.strip_prefix('"')?;
        loop {
            let (text, after) = rest.split_once('"')?;
            name.push_str(text);
            let Some(more) = after.strip_prefix('"') else {
                return Some((name, after));
            };
            name.push('"');
            rest = more;
        }
    }

    /// Names of any characters, and names of the characters that mean something in SQL.
    fn names() -> impl Strategy<Value = String> {
        prop_oneof!["[^\0]{1,20}", "[\"';\\\\.$%\\-/* \n\té🦀a]{1,20}"]
    }

    /// A name of 63 bytes that may have any character but NUL.
    fn longest_names() -> impl Strategy<Value = String> {
        names().prop_map(|start| {
            let mut name = String::new();
            for character in start.chars().cycle() {
                if name.len() + character.len_utf8() > 63 {
                    break;
                }
                name.push(character);
            }
            let padding = "x".repeat(63 - name.len());
            name + &padding
        })
    }

    proptest! {
        #[test]
        fn a_quoted_name_is_read_back_and_ends_where_the_quoting_ends(
            name in names(),
            after in "[\"; -]{0,3}",
        ) {
            let quoted = quote_identifier(&name);
            // A quote directly behind would belong to the name, so SQL has a blank there.
            let sql = format!("{quoted} {after}");
            let (read, rest) = read_identifier(&sql).unwrap();
            prop_assert_eq!(read, name);
            prop_assert_eq!(rest, format!(" {after}"));
        }

        #[test]
        fn different_names_have_different_identifiers(one in names(), other in names()) {
            prop_assert_eq!(one == other, quote_identifier(&one) == quote_identifier(&other));
        }

        #[test]
        fn twins_that_differ_in_the_64th_byte_are_never_both_columns(name in longest_names()) {
            prop_assert_eq!(name.len(), 63);
            prop_assert!(check_column_name(&name).is_ok());
            // Postgres would cut the twin to the first name, although the identifiers differ.
            for last in ["a", "\"", ";"] {
                let twin = format!("{name}{last}");
                prop_assert_ne!(quote_identifier(&twin), quote_identifier(&name));
                prop_assert!(check_column_name(&twin).is_err());
            }
        }
    }

    #[test]
    fn a_name_that_tries_to_leave_its_quotes_stays_inside() {
        let name = "x\"; DROP TABLE uploads; --";
        assert_eq!(quote_identifier(name), "\"x\"\"; DROP TABLE uploads; --\"");
    }

    #[test]
    fn keywords_and_case_are_kept() {
        for name in ["select", "Order", "é", "1", " "] {
            assert_eq!(quote_identifier(name), format!("\"{name}\""));
        }
    }
}
