//! Text as HTML.

/// A page being written. What is added must be HTML already.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    pub(super) fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    pub(super) fn element(&mut self, name: &str, content: &str) {
        self.raw(&format!("<{name}>{content}</{name}>"));
    }

    /// A table with this head; nothing if it has no rows.
    pub(super) fn table<const N: usize>(
        &mut self,
        head: &[&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        self.raw("<table><thead><tr>");
        head.iter().for_each(|cell| self.element("th", cell));
        self.raw("</tr></thead><tbody>");
        for row in rows {
            self.raw("<tr>");
            row.iter().for_each(|cell| self.element("td", cell));
            self.raw("</tr>");
        }
        self.raw("</tbody></table>");
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// The text with its special characters as entities, for content and for attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Paragraphs, with what is in backticks as code.
pub(super) fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.is_empty());
    paragraphs.map(paragraph).collect()
}

fn paragraph(text: &str) -> String {
    let mut html = String::from("<p>");
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            0 => html.push_str(&escaped(part)),
            _ => html.push_str(&format!("<code>{}</code>", escaped(part))),
        }
    }
    html.push_str("</p>");
    html
}
