mod typed;

use super::super::{BatchEncoder, BatchLimits, EncodedBatch};
use super::*;
use proptest::prelude::*;

/// Encodes the rows, without every row whose number is divisible by `gap`.
fn encode(
    columns: &[String],
    rows: &[Vec<String>],
    limits: BatchLimits,
    gap: u64,
) -> Vec<EncodedBatch> {
    let upload = UploadId::generate();
    let mut encoder = BatchEncoder::new(UploadKey::first(upload), columns, "00-trace", limits);
    let mut batches: Vec<_> = (1..)
        .zip(rows)
        .filter(|(number, _)| number % gap != 0)
        .filter_map(|(number, row)| {
            let cells = row.iter().map(String::as_str);
            encoder.push(number, cells).unwrap()
        })
        .collect();
    let (last, count) = encoder.finish();
    batches.extend(last);
    assert_eq!(batches.len(), count as usize);
    batches
}

fn texts(batch: &Batch) -> Vec<Vec<String>> {
    let text =
        |cell: Cell<'_>| String::from_utf8(cell.text().unwrap().unwrap().into_owned()).unwrap();
    batch.rows().map(|row| row.map(text).collect()).collect()
}

proptest! {
    #[test]
    fn every_row_is_decoded_once_and_in_order(
        rows in prop::collection::vec(prop::collection::vec("\\PC*|[\"\\\\\n\r\t\u{1}é🦀]*", 3), 0..40),
        max_rows in 1u32..12,
        max_bytes in 400usize..2000,
        gap in 2u64..9,
    ) {
        let columns: Vec<String> = ["a", "b \"quoted\"", "ü"].map(String::from).to_vec();
        let limits = BatchLimits { rows: max_rows, bytes: max_bytes };
        let rows: Vec<_> = rows.into_iter().filter(|row| row.iter().map(|cell| cell.len() * 6 + 3).sum::<usize>() + 8 < max_bytes).collect();
        let (mut back, mut numbers) = (Vec::new(), Vec::new());
        for (index, encoded) in encode(&columns, &rows, limits, gap).into_iter().enumerate() {
            let batch = Batch::decode(encoded.body).unwrap();
            prop_assert_eq!(batch.id, encoded.id);
            prop_assert_eq!(batch.id.seq as usize, index + 1);
            prop_assert_eq!(batch.row_numbers().next(), Some(batch.first_row()));
            prop_assert_eq!(batch.row_numbers().last(), Some(batch.last_row()));
            prop_assert_eq!(batch.row_numbers().count(), batch.row_count());
            numbers.extend(batch.row_numbers());
            prop_assert_eq!(batch.row_count(), encoded.rows as usize);
            prop_assert!(batch.row_count() <= max_rows as usize);
            prop_assert_eq!(&batch.columns, &columns);
            back.extend(texts(&batch));
        }
        let (expected, kept): (Vec<u64>, Vec<_>) = (1..).zip(rows).filter(|(number, _)| number % gap != 0).unzip();
        prop_assert_eq!(numbers, expected);
        prop_assert_eq!(back, kept);
    }
}

#[test]
fn a_batch_closes_before_its_archive_object_exceeds_twice_the_limit() {
    let columns: Vec<String> = (0..10)
        .map(|n| format!("{n}{}", "long name ".repeat(10)))
        .collect();
    let limits = BatchLimits {
        rows: 1000,
        bytes: 4096,
    };
    let rows = vec![vec!["1".to_owned(); 10]; 200];
    let batches = encode(&columns, &rows, limits, u64::MAX);
    let mut stored = 0;
    for encoded in batches {
        let batch = Batch::decode(encoded.body).unwrap();
        stored += batch.row_count();
        let object = crate::archive::batch_object(&batch);
        assert!(
            object.len() - "[\n]\n".len() <= 2 * limits.bytes,
            "{}",
            object.len()
        );
    }
    assert_eq!(stored, rows.len());
}

fn message(v: u32, rows: &str) -> Bytes {
    message_with(v, rows, "[[1,1]]")
}

fn message_with(v: u32, rows: &str, runs: &str) -> Bytes {
    let upload = UploadId::generate();
    Bytes::from(format!(
        r#"{{"v":{v},"upload":"{upload}","epoch":1,"seq":1,"trace":"","columns":["a","b"],"rows":{rows},"runs":{runs}}}"#
    ))
}

#[test]
fn an_unknown_version_is_reported_before_an_unknown_shape() {
    let body = Bytes::from_static(br#"{"v":7,"anything":{}}"#);
    assert!(matches!(
        Batch::decode(body),
        Err(DecodeError::UnknownVersion(7))
    ));
    assert!(matches!(
        Batch::decode(message(4, "[]")),
        Err(DecodeError::UnknownVersion(4))
    ));
    assert!(matches!(
        Batch::decode(message(1, "[]")),
        Err(DecodeError::UnknownVersion(1))
    ));
}

#[test]
fn a_null_differs_from_an_empty_text() {
    let batch = Batch::decode(message(2, r#"[[null,""]]"#)).unwrap();
    let row: Vec<_> = batch.rows().next().unwrap().collect();
    assert_eq!(row, [Cell::Null, Cell::Plain(b"\"\"")]);
    assert!(batch.rows_json().eq([b"null,\"\""]));
}

#[test]
fn a_row_without_one_text_per_column_is_malformed() {
    for rows in [
        r#"[["1"]]"#,
        r#"[["1","2"],["3"]]"#,
        r#"[["1"],["2","3"],["4"]]"#,
        r#"[["1",2]]"#,
        r#"[["1","2"]"#,
        r#"[["1","2"],]"#,
        r#"[["1","2",]]"#,
        r#"[["1" "2"]]"#,
        r#"[["1","2]]"#,
        r#"[["1","2\"]]"#,
        r#"[["1",nul]]"#,
        r#"[["1",nulll]]"#,
        r#"[["1","\x"]]"#,
        r#"[["1","\u00g0"]]"#,
        r#"[["1","\ud800"]]"#,
        "[[\"1\",\"a\nb\"]]",
        r#"[[]]"#,
        r#"[{}]"#,
        r#"["#,
        "7",
    ] {
        let decoded = Batch::decode(message(2, rows));
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{rows}");
    }
}

#[test]
fn a_message_with_invalid_utf8_is_malformed() {
    let good = message(2, r#"[["1","é"]]"#);
    assert!(Batch::decode(good.clone()).is_ok());
    let mut bad = good.to_vec();
    let at = bad.iter().position(|byte| *byte == 0xc3).unwrap();
    bad[at + 1] = b'x';
    let decoded = Batch::decode(bad.into());
    assert!(matches!(decoded, Err(DecodeError::Malformed(_))));
}

#[test]
fn a_column_name_may_look_like_the_list_of_rows() {
    let columns = [",\"rows\":[[\"1\"]]".to_owned(), "rows".to_owned()];
    let limits = BatchLimits {
        rows: 10,
        bytes: 1000,
    };
    let rows = [vec!["1".to_owned(), ",\"rows\":[".to_owned()]];
    let batch = encode(&columns, &rows, limits, 2).pop().unwrap();
    let batch = Batch::decode(batch.body).unwrap();
    assert_eq!(batch.columns, columns);
    assert_eq!(texts(&batch), rows);
}

proptest! {
    #[test]
    fn the_scanner_and_serde_json_accept_the_same_rows(rows in "(\\[|\\]|,|\"|\"a\"|null|\\\\|\\\\u00e9|u12|x| |\n){0,12}|\\[\\[\"[ax\\\\nu\"0-9,]{0,6}\",(null|\"[^\"]{0,3}\")\\] ?\\]") {
        let parsed = serde_json::from_str::<Vec<Vec<Option<String>>>>(&rows);
        let is_good = |rows: &Vec<Vec<Option<String>>>| rows.len() == 1 && rows[0].len() == 2;
        let decoded = Batch::decode(message(2, rows.trim_start()));
        match parsed.ok().filter(is_good) {
            Some(expected) => {
                let batch = decoded.unwrap();
                let text = |cell: Cell<'_>| cell.text().unwrap().map(|text| String::from_utf8(text.into_owned()).unwrap());
                let found: Vec<Vec<_>> = batch.rows().map(|row| row.map(text).collect()).collect();
                prop_assert_eq!(found, expected);
            }
            None => prop_assert!(decoded.is_err(), "{}", rows),
        }
    }
}

#[test]
fn row_numbers_that_do_not_match_the_rows_are_malformed() {
    let rows = r#"[["1","2"],["3","4"]]"#;
    for runs in ["[[1,2]]", "[[7,1],[9,1]]"] {
        assert!(Batch::decode(message_with(2, rows, runs)).is_ok(), "{runs}");
    }
    for runs in [
        "[]",
        "[[1,1]]",
        "[[1,3]]",
        "[[0,2]]",
        "[[2,1],[1,1]]",
        "[[1,1],[1,1]]",
        "[[1,0],[1,2]]",
        "[[18446744073709551615,2]]",
    ] {
        let decoded = Batch::decode(message_with(2, rows, runs));
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{runs}");
    }
}

#[test]
fn a_row_that_is_too_large_is_reported_with_its_size_and_not_added() {
    let limits = BatchLimits {
        rows: 10,
        bytes: 40,
    };
    let columns = ["a".to_owned()];
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::new(upload, &columns, "", limits);
    assert!(encoder.push(1, ["x"].into_iter()).unwrap().is_none());
    let wide = "y".repeat(60);
    let error = encoder.push(2, [wide.as_str()].into_iter()).unwrap_err();
    assert_eq!((error.limit, error.actual), (40, 66));
    let (last, count) = encoder.finish();
    assert_eq!(count, 1);
    let batch = Batch::decode(last.unwrap().body).unwrap();
    assert_eq!(texts(&batch), [["x"]]);
}

#[test]
fn the_trace_of_a_message_is_read_from_its_first_bytes() {
    let key = UploadKey::first(UploadId::generate());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let limits = BatchLimits {
        rows: 1,
        bytes: 1000,
    };
    let columns = [",\"trace\":\"another\"".to_owned()];
    for mut encoder in [
        BatchEncoder::new(key, &columns, trace, limits),
        BatchEncoder::typed(key, &columns, trace, limits),
    ] {
        let batch = encoder.push(1, ["a"].into_iter()).unwrap().unwrap();
        assert_eq!(trace_of(&batch.body), Some(trace));
    }
    for body in [
        "",
        "{}",
        "{\"v\":2,\"trace\":\"00-",
        "{\"v\":2,\"trace\":7}",
    ] {
        assert_eq!(trace_of(body.as_bytes()), None, "{body}");
    }
}
