use futures::stream;
use proptest::prelude::*;

use super::*;

/// Reads a file that arrives in pieces of these sizes: the rows, or the refusal.
fn read(file: &[u8], sizes: &[usize], limits: RowLimits) -> Result<Vec<Vec<String>>, Refusal> {
    let mut rest = Bytes::copy_from_slice(file);
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(Ok(rest.split_to((*size).min(rest.len()))));
    }
    let source = FileSource::new(stream::iter(pieces), u64::MAX, limits.header());
    futures::executor::block_on(async {
        let mut reader = RowReader::open(source, limits).await?;
        let mut rows = vec![reader.columns().to_vec()];
        loop {
            match reader.next().await? {
                None => return Ok(rows),
                Some(cells) => rows.push(cells.map(str::to_owned).collect()),
            }
            reader.row_done();
        }
    })
}

fn written(rows: &[Vec<String>], line_ends: &[&str], last_line_end: bool) -> String {
    let mut file = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells =
            row.iter().map(
                |cell| match cell.contains(['"', ',', '\n', '\r']) || cell.is_empty() {
                    true => format!("\"{}\"", cell.replace('"', "\"\"")),
                    false => cell.clone(),
                },
            );
        file.push_str(&cells.collect::<Vec<_>>().join(","));
        if index + 1 < rows.len() || last_line_end {
            file.push_str(line_ends[index % line_ends.len()]);
        }
    }
    file
}

fn rows() -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(prop::collection::vec("[a-z\"\n\r, é🦀]{0,6}", 3), 0..12)
}

fn line_ends() -> impl Strategy<Value = Vec<&'static str>> {
    let any = prop::sample::select(vec!["\n", "\r\n", "\n\n", "\r\n\r\n\n"]);
    prop::collection::vec(any, 1..4)
}

fn with_header(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let header = ["a", "b", "c"].map(str::to_owned).to_vec();
    [vec![header], rows].concat()
}

proptest! {
    #[test]
    fn any_pieces_of_the_same_bytes_give_the_same_rows(
        rows in rows(),
        line_ends in line_ends(),
        last_line_end: bool,
        bom: bool,
        sizes in prop::collection::vec(1usize..40, 1..6),
    ) {
        let rows = with_header(rows);
        let mark = if bom { "\u{feff}" } else { "" };
        let file = format!("{mark}{}", written(&rows, &line_ends, last_line_end));
        prop_assert_eq!(read(file.as_bytes(), &sizes, RowLimits::default()).unwrap(), rows);
    }

    #[test]
    fn a_fault_is_told_with_its_row_and_its_line_in_any_pieces(
        rows in rows(),
        line_ends in line_ends(),
        unclosed: bool,
        sizes in prop::collection::vec(1usize..40, 1..6),
    ) {
        let rows = with_header(rows);
        let good = written(&rows, &line_ends, true);
        let (bad, code) = if unclosed { ("x,\"y\nz,1,2\n", "unclosed_quote") } else { ("x,y\nz,1,2\n", "too_few_fields") };
        let refusal = read(format!("{good}{bad}").as_bytes(), &sizes, RowLimits::default()).unwrap_err();
        prop_assert_eq!(&refusal.failure.code, code);
        prop_assert_eq!(refusal.failure.row, Some(rows.len() as u64));
        let lines = good.bytes().filter(|byte| *byte == b'\n').count() as u64;
        prop_assert_eq!(refusal.failure.line, Some(lines + 1));
    }
}

#[test]
fn a_row_that_never_ends_is_cut_off_long_before_the_memory_is_full() {
    let limits = RowLimits {
        row_bytes: 1000,
        ..RowLimits::default()
    };
    let endless = format!("a,b\n1,2\n3,\"{}", "4\n".repeat(1_000_000));
    let refusal = read(endless.as_bytes(), &[400], limits).unwrap_err();
    assert_eq!(refusal.failure.code, "row_too_large");
    assert_eq!(
        (refusal.failure.row, refusal.failure.line),
        (Some(2), Some(3))
    );
    let (limit, actual) = refusal.limit.unwrap();
    assert!(limit == 1000 && actual < 2000, "{actual}");
}

#[test]
fn a_file_of_nothing_but_part_of_a_byte_order_mark_is_not_swallowed() {
    let refusal = read(b"\xef\xbb", &[1], RowLimits::default()).unwrap_err();
    assert_eq!(refusal.failure.code, "invalid_utf8");
}
