//! HTML and XML.

use memchr::memmem;

use super::Found;
use super::magic::spreadsheet;

/// The tags that a web page, or a table that was saved as a web page, begins with.
const TAGS: [&[u8]; 8] = [
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<table",
    b"<meta",
    b"<script",
    b"<style",
];

const HTML: &str = "check the address that it was downloaded from, because it may be a login page; if it is a report named .xls, open it in Excel or LibreOffice Calc and save it as CSV";

const XML: &str = "convert its records to CSV, one row for each record";

/// `text` begins with its first character that is not blank.
pub(super) fn find(text: &[u8]) -> Option<Found> {
    let text = after_comments(text).to_ascii_lowercase();
    if text.first() != Some(&b'<') {
        return None;
    }
    let contains = |part: &str| memmem::find(&text, part.as_bytes()).is_some();
    let is_workbook = contains("urn:schemas-microsoft-com:office:spreadsheet")
        || contains("progid=\"excel.sheet\"");
    let is_xml = is_tag(&text, b"<?xml");
    if is_workbook && (is_xml || is_tag(&text, b"<workbook")) {
        return Some(Found::new("an Excel workbook in XML", spreadsheet!()));
    }
    let is_html = TAGS.iter().any(|tag| is_tag(&text, tag));
    if is_html || (is_xml && (contains("<!doctype html") || contains("<html"))) {
        return Some(Found::new("a web page (HTML)", HTML));
    }
    is_xml.then(|| Found::new("an XML document", XML))
}

fn after_comments(mut text: &[u8]) -> &[u8] {
    const END: &[u8] = b"-->";
    while text.starts_with(b"<!--")
        && let Some(end) = memmem::find(text, END)
    {
        text = text[end + END.len()..].trim_ascii_start();
    }
    text
}

/// Whether the text begins with this tag, and the tag is not the name of a column.
fn is_tag(text: &[u8], tag: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(tag) else {
        return false;
    };
    let is_name_byte = |byte: &u8| !byte.is_ascii_whitespace() && !b">/".contains(byte);
    if rest.first().is_some_and(is_name_byte) {
        return false;
    }
    let end = rest.iter().position(|byte| *byte == b'>');
    let next = end.and_then(|end| rest.get(end + 1));
    next.is_none_or(|byte| !b",;|".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &str) -> Option<&'static str> {
        find(text.as_bytes()).map(|found| found.what)
    }

    #[test]
    fn a_web_page_is_recognised_in_any_case() {
        let pages = [
            "<!DOCTYPE html>\n<html lang=\"en\">",
            "<!doctype HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\">",
            "<HTML>",
            "<head/>",
            "<body class=x>",
            "<table",
            "<table border=\"1\"><tr><td>1,2</td></tr></table>",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html>",
        ];
        for page in pages {
            assert_eq!(what(page), Some("a web page (HTML)"), "{page}");
        }
    }

    #[test]
    fn comments_before_a_web_page_are_skipped() {
        let page = "<!-- a, b --> \n<!---->\n<html>";
        assert_eq!(what(page), Some("a web page (HTML)"));
        assert_eq!(what("<!-- a -->\na,b\n1,2\n"), None);
        assert_eq!(what("<!-- a\n"), None);
    }

    #[test]
    fn xml_is_told_from_a_workbook_in_xml() {
        let start = "<?xml version=\"1.0\"?>\n";
        assert_eq!(what(&format!("{start}<rows/>")), Some("an XML document"));
        for part in [
            "<?mso-application progid=\"Excel.Sheet\"?>",
            "<Workbook xmlns=\"urn:schemas-microsoft-com:office:spreadsheet\">",
        ] {
            let workbook = format!("{start}{part}");
            assert_eq!(what(&workbook), Some("an Excel workbook in XML"), "{part}");
        }
    }

    #[test]
    fn names_of_columns_that_look_like_tags_are_not_markup() {
        for text in [
            "<html>,<body>\n",
            "<table>;b\n",
            "<tables>\n",
            "<headcount\n",
            "<?xmlx?>",
        ] {
            assert_eq!(what(text), None, "{text}");
        }
    }
}
