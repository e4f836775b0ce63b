use super::*;
use crate::batch::{BatchEncoder, BatchLimits};
use crate::upload::UploadKey;

fn batch(columns: &[&str], rows: &[Vec<String>]) -> Batch {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let limits = BatchLimits {
        rows: u32::MAX,
        bytes: 4 << 20,
    };
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::new(upload, &columns, "", limits);
    for (number, row) in (1..).zip(rows) {
        let closed = encoder.push(number, row.iter().map(String::as_str));
        assert!(closed.unwrap().is_none(), "the rows need several batches");
    }
    Batch::decode(encoder.finish().0.unwrap().body).unwrap()
}

#[test]
fn a_batch_object_is_json_with_one_row_per_line() {
    let rows = [["007", "a\nb"], ["", "🦀"]].map(|row| row.map(String::from).to_vec());
    let object = batch_object(&batch(&["id", "say \"hi\""], &rows));
    let expected = concat!(
        "[\n",
        r#"{"id":"007","say \"hi\"":"a\nb"},"#,
        "\n",
        r#"{"id":"","say \"hi\"":"🦀"}"#,
        "\n]\n"
    );
    assert_eq!(std::str::from_utf8(&object).unwrap(), expected);
}

#[cfg(feature = "compression")]
mod compressed {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    const COMPRESSED: [ArchiveCompression; 2] =
        [ArchiveCompression::Gzip, ArchiveCompression::Zstd];

    fn decompress(object: &[u8], compression: ArchiveCompression) -> io::Result<Vec<u8>> {
        match compression {
            ArchiveCompression::None => Ok(object.to_vec()),
            ArchiveCompression::Gzip => {
                let mut plain = Vec::new();
                GzDecoder::new(object).read_to_end(&mut plain)?;
                Ok(plain)
            }
            ArchiveCompression::Zstd => zstd::decode_all(object),
        }
    }

    /// Rows whose object has several pieces.
    fn many_rows() -> Vec<Vec<String>> {
        let row = |number: u32| vec![number.to_string(), format!("name of {number}")];
        (0..10_000).map(row).collect()
    }

    #[test]
    fn without_compression_an_object_is_plain_json() {
        let batch = batch(&["a", "b"], &many_rows());
        let object = BatchObject::encode(&batch, ArchiveCompression::None).unwrap();
        assert_eq!(object.body, batch_object(&batch));
        assert_eq!(object.uncompressed_bytes, object.body.len() as u64);
    }

    #[test]
    fn an_object_of_many_pieces_is_compressed_whole() {
        let batch = batch(&["a", "b"], &many_rows());
        let plain = batch_object(&batch);
        for compression in COMPRESSED {
            let object = BatchObject::encode(&batch, compression).unwrap();
            assert_eq!(object.uncompressed_bytes, plain.len() as u64);
            let bytes = object.body.len();
            assert!(bytes < plain.len() / 2, "{compression}: {bytes} bytes");
            let decompressed = decompress(&object.body, compression).unwrap();
            assert!(decompressed == plain, "{compression}");
        }
    }

    #[test]
    fn the_same_batch_always_gives_the_same_compressed_bytes() {
        let rows = many_rows();
        let (first, second) = (batch(&["a", "b"], &rows), batch(&["a", "b"], &rows));
        for compression in COMPRESSED {
            let [first, second] =
                [&first, &second].map(|batch| BatchObject::encode(batch, compression).unwrap());
            assert!(first == second, "{compression}");
        }
        let gzip = BatchObject::encode(&first, ArchiveCompression::Gzip).unwrap();
        // No optional field such as a name, no time, and no system.
        assert_eq!((gzip.body[3], gzip.body[9]), (0, 255));
        assert_eq!(gzip.body[4..8], [0; 4]);
    }

    #[test]
    fn a_damaged_byte_of_a_compressed_object_is_found() {
        const HEADER_BYTES: usize = 10;
        let batch = batch(&["a", "b"], &many_rows()[..20]);
        let plain = batch_object(&batch);
        for compression in COMPRESSED {
            let object = BatchObject::encode(&batch, compression).unwrap();
            for index in HEADER_BYTES..object.body.len() {
                let mut damaged = object.body.to_vec();
                damaged[index] ^= 0x10;
                let decompressed = decompress(&damaged, compression);
                assert!(
                    decompressed.is_err() || decompressed.is_ok_and(|found| found == plain),
                    "{compression}: byte {index}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_compressed_object_has_the_content_of_the_plain_one(
            rows in prop::collection::vec(prop::collection::vec("\\PC*|[\"\\\\\n\r\t\u{1}é🦀]*", 3), 1..40),
        ) {
            let batch = batch(&["a", "b \"quoted\"", "ü"], &rows);
            let plain = batch_object(&batch);
            for compression in COMPRESSED {
                let object = BatchObject::encode(&batch, compression).unwrap();
                prop_assert_eq!(object.uncompressed_bytes, plain.len() as u64);
                let decompressed = decompress(&object.body, compression).unwrap();
                prop_assert_eq!(&decompressed, &plain);
            }
        }
    }
}
