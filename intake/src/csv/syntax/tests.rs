use super::*;

fn scan(text: &str, at_end: bool) -> (Scan, Vec<Field>) {
    let mut fields = Fields::new(usize::MAX);
    let scan = Syntax::new(',', Some(b'"')).scan(text.as_bytes(), at_end, &mut fields);
    (scan, fields.kept().to_vec())
}

fn texts(text: &str) -> Vec<&str> {
    let (_, fields) = scan(text, true);
    let text = |field: &Field| &text[field.start..field.end];
    fields.iter().map(text).collect()
}

#[test]
fn a_record_ends_at_lf_crlf_cr_or_the_end_of_the_file() {
    for (text, next) in [("a,b\nc", 4), ("a,b\r\nc", 5), ("a,b\rc", 4), ("a,b", 3)] {
        let (found, _) = scan(text, true);
        let Scan::Whole(extent) = found else {
            panic!("{found:?}");
        };
        assert_eq!((extent.content, extent.next), (3, next), "{text:?}");
        assert_eq!(texts(text), ["a", "b"]);
    }
}

#[test]
fn a_record_that_may_continue_is_cut_until_the_file_ends() {
    for text in ["a,b", "a,b\r", "a,\"b\""] {
        assert!(matches!(scan(text, false).0, Scan::Cut { .. }), "{text:?}");
        assert!(matches!(scan(text, true).0, Scan::Whole(_)), "{text:?}");
    }
}

#[test]
fn quoted_fields_contain_delimiters_line_ends_and_doubled_quotes() {
    let text = "\"a,\r\nb\",\"c\"\"d\"\n";
    let (found, fields) = scan(text, false);
    let Scan::Whole(extent) = found else {
        panic!("{found:?}");
    };
    assert_eq!(extent.inner_lines, 1);
    assert_eq!(extent.bad_quote, None);
    assert_eq!(texts(text), ["a,\r\nb", "c\"\"d"]);
    assert_eq!([fields[0].doubled, fields[1].doubled], [false, true]);
}

#[test]
fn blanks_around_quotes_are_not_part_of_a_field() {
    assert_eq!(texts("1, \"a,b\" ,  \"c\"\t\n"), ["1", "a,b", "c"]);
    assert_eq!(texts(" a, b \" c\n"), [" a", " b \" c"]);
    let (found, _) = scan("1, \"a\" b\n", true);
    assert!(matches!(found, Scan::Whole(extent) if extent.bad_quote == Some(1)));
    assert!(matches!(scan("1,  ", false).0, Scan::Cut { .. }));
}

#[test]
fn an_escape_character_hides_a_quote_in_a_quoted_field() {
    let syntax = Syntax::new(',', Some(b'"')).with_escape(Some(b'\\'));
    let text = "\"a\\\",b\",\"c\\\\\",\"d\"\"e\"\n";
    let mut fields = Fields::new(usize::MAX);
    let found = syntax.scan(text.as_bytes(), false, &mut fields);
    assert!(matches!(found, Scan::Whole(extent) if extent.bad_quote.is_none()));
    let texts: Vec<_> = fields
        .kept()
        .iter()
        .map(|field| &text[field.start..field.end])
        .collect();
    assert_eq!(texts, ["a\\\",b", "c\\\\", "d\"\"e"]);
    for cut in 1..text.len() {
        let found = syntax.scan(&text.as_bytes()[..cut], false, &mut fields);
        assert!(matches!(found, Scan::Cut { .. }), "{cut}");
    }
}

#[test]
fn a_quote_in_an_unquoted_field_is_text_and_text_after_a_closing_quote_is_reported() {
    assert_eq!(texts("5\" pipe,x"), ["5\" pipe", "x"]);
    let (found, _) = scan("ok,\"a\"b,\"c\"\n", false);
    assert!(
        matches!(found, Scan::Whole(extent) if extent.bad_quote == Some(1) && extent.next == 12)
    );
}

#[test]
fn fields_beyond_the_maximum_are_counted_but_not_kept() {
    let mut fields = Fields::new(3);
    let scan = Syntax::new(',', None).scan(b"a,b,c,d,e\n", false, &mut fields);
    assert!(matches!(scan, Scan::Whole(_)));
    assert_eq!((fields.kept().len(), fields.count()), (3, 5));
}

#[test]
fn an_unclosed_quote_is_reported_with_its_index() {
    for at_end in [false, true] {
        let (found, _) = scan("a,\"b\nc,d\n", at_end);
        assert_eq!(
            found,
            Scan::Cut {
                open_quote: Some(2)
            }
        );
    }
}

#[test]
fn a_delimiter_may_be_any_character_and_quoting_may_be_off() {
    let mut fields = Fields::new(usize::MAX);
    let text = "a§\"b¤§c".as_bytes();
    let found = Syntax::new('§', None).scan(text, true, &mut fields);
    assert!(matches!(found, Scan::Whole(_)));
    let text = |field: &Field| std::str::from_utf8(&text[field.start..field.end]).unwrap();
    assert_eq!(
        fields.kept().iter().map(text).collect::<Vec<_>>(),
        ["a", "\"b¤", "c"]
    );
}
