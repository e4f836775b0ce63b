//! Tables for a terminal.

use crate::output::one_line;

/// The widest column of a table of rows. Longer cells are cut.
pub(crate) const MAX_CHARS: usize = 60;

/// The most columns that are shown, and the most names of a list.
const MAX_COLUMNS: usize = 12;

/// Aligns the cells of these rows, of at most `max_chars` characters each. Line ends in a cell are
/// shown as `⏎`.
pub(crate) fn table(rows: &[Vec<String>], max_chars: usize) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| shown(row, max_chars)).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names on one line. Of many names, only the first ones are shown.
pub(crate) fn list(names: &[String]) -> String {
    shown(names, MAX_CHARS).join(", ")
}

/// The cells of a row as they are shown.
fn shown(row: &[String], max_chars: usize) -> Vec<String> {
    let cells = row.iter().take(MAX_COLUMNS);
    let mut cells: Vec<String> = cells.map(|cell| cut(cell, max_chars)).collect();
    if row.len() > MAX_COLUMNS {
        cells.push(format!("… {} more", row.len() - MAX_COLUMNS));
    }
    cells
}

fn cut(cell: &str, max_chars: usize) -> String {
    let line = one_line(cell);
    match line.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_and_long_ones_are_cut() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> = vec![row(&["id", "name"]), row(&["100", "a\nb"])];
        assert_eq!(table(&rows, MAX_CHARS), "id   name\n100  a⏎b\n");
        let long = table(&[row(&[&"x".repeat(100)])], MAX_CHARS);
        assert_eq!(long.chars().count(), MAX_CHARS + 2);
    }

    #[test]
    fn a_list_of_names_is_one_line_of_limited_length() {
        let mut names = vec!["a\nb".to_owned(), "c\u{1b}[31m".to_owned()];
        assert_eq!(list(&names), "a⏎b, c\\u{1b}[31m");
        names.extend((0..12).map(|number| number.to_string()));
        assert!(list(&names).ends_with("8, 9, … 2 more"), "{}", list(&names));
        let long = list(&["x".repeat(4096)]);
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
    }
}
