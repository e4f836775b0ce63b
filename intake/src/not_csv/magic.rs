//! Binary formats that their first bytes name.

use super::Found;
use crate::csv::{is_control, looks_binary};

// The filter's numbers mean commas, double quotes and UTF-8.
macro_rules! spreadsheet {
    () => {
        "save it as CSV (UTF-8) in Excel or LibreOffice: soffice --headless --convert-to 'csv:Text - txt - csv (StarCalc):44,34,76' FILE"
    };
}

macro_rules! decompress {
    ($command:literal) => {
        concat!("decompress it: ", $command, " FILE | carga import -")
    };
}

macro_rules! duckdb {
    ($query:literal) => {
        concat!(
            "convert it: duckdb -csv -c \"",
            $query,
            "\" | carga import -"
        )
    };
}

macro_rules! pandas {
    ($function:literal) => {
        concat!(
            "convert it: python3 -c \"import pandas; pandas.",
            $function,
            "('FILE').to_csv('data.csv', index=False)\""
        )
    };
}

pub(super) use duckdb;
pub(super) use spreadsheet;

const ONCE: &str = "send the result";
pub(super) const DOCUMENT: &str = "copy its table into a spreadsheet and save that as CSV";
const IMAGE: &str = "send the table itself as CSV";
const PROGRAM: &str = "send the CSV file instead";
const UNZLIB: &str = "decompress it: python3 -c \"import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))\" < FILE | carga import -";
const READ_RDS: &str =
    "convert it: Rscript -e \"write.csv(readRDS('FILE'), 'data.csv', row.names=FALSE)\"";
const READ_RDATA: &str = "convert it: Rscript -e \"e <- new.env(); write.csv(e[[load('FILE', e)[1]]], 'data.csv', row.names=FALSE)\"";

/// The first bytes, the format and the remedy.
type Magic = (&'static [u8], &'static str, &'static str);

/// Formats whose first bytes never begin a CSV file.
const FORMATS: &[Magic] = &[
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel workbook, or a workbook with a password",
        spreadsheet!(),
    ),
    (b"%PDF-", "a PDF document", DOCUMENT),
    (b"{\\rtf", "an RTF document", DOCUMENT),
    (b"\x1f\x8b", "gzip data", ONCE),
    (b"\x28\xb5\x2f\xfd", "zstd data", ONCE),
    (b"\xfd7zXZ\0", "xz data", decompress!("xz -dc")),
    (b"\x04\x22\x4d\x18", "lz4 data", decompress!("lz4 -dc")),
    (b"\x1f\x9d", "compress (.Z) data", decompress!("gzip -dc")),
    (
        b"7z\xbc\xaf\x27\x1c",
        "a 7z archive",
        "unpack it and send the CSV inside: 7z x -so FILE | carga import -",
    ),
    (
        b"Rar!\x1a\x07",
        "a RAR archive",
        "unpack it and send the CSV inside: unrar p -inul FILE | carga import -",
    ),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "export a table: sqlite3 -header -csv FILE 'SELECT * FROM NAME' | carga import -",
    ),
    (
        b"Obj\x01",
        "an Avro file",
        duckdb!("INSTALL avro; LOAD avro; FROM read_avro('FILE')"),
    ),
    (
        b"ARROW1\0\0",
        "an Arrow file (Feather)",
        pandas!("read_feather"),
    ),
    (
        b"\x89HDF",
        "an HDF5 file",
        "export its table as CSV with the program that wrote the file",
    ),
    (b"\x89PNG", "a PNG image", IMAGE),
    (b"\xff\xd8\xff", "a JPEG image", IMAGE),
    (b"GIF87a", "a GIF image", IMAGE),
    (b"GIF89a", "a GIF image", IMAGE),
    (b"II*\0", "a TIFF image", IMAGE),
    (b"MM\0*", "a TIFF image", IMAGE),
    (b"\x7fELF", "a program (ELF)", PROGRAM),
    (
        b"\0\0\0\0\0\0\0\0\0\0\0\0\xc2\xea\x81\x60",
        "a SAS data set (sas7bdat)",
        pandas!("read_sas"),
    ),
    (
        b"<stata_dta>",
        "a Stata data set (.dta)",
        pandas!("read_stata"),
    ),
    (b"$FL2@(#)", "an SPSS data set (.sav)", pandas!("read_spss")),
    (
        b"$FL3@(#)",
        "an SPSS data set (.zsav)",
        pandas!("read_spss"),
    ),
    (b"RDX2\nX\n", "R data (.RData)", READ_RDATA),
    (b"RDX3\nX\n", "R data (.RData)", READ_RDATA),
    (b"X\n\0\0\0\x02", "R data (.rds)", READ_RDS),
    (b"X\n\0\0\0\x03", "R data (.rds)", READ_RDS),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer",
        "fetch the file that it stands for: git lfs pull",
    ),
];

/// Formats whose first bytes may also be the name of a column. They count if binary data follows.
const NAMES: &[Magic] = &[
    (
        b"PAR1",
        "a Parquet file",
        duckdb!("FROM read_parquet('FILE')"),
    ),
    (b"ORC", "an ORC file", pandas!("read_orc")),
    (b"FEA1", "a Feather file", pandas!("read_feather")),
    (b"x\x01", "zlib data", UNZLIB),
    (b"x\x9c", "zlib data", UNZLIB),
    (b"x\xda", "zlib data", UNZLIB),
];

/// The two blocks that can follow `BZh` and the level: data, and the end of an empty file.
const BZIP2_BLOCKS: [&[u8]; 2] = [b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"];

pub(super) fn find(sample: &[u8]) -> Option<Found> {
    let found = |&(_, what, remedy): &Magic| Found::new(what, remedy);
    if let Some(format) = FORMATS.iter().find(|(magic, ..)| sample.starts_with(magic)) {
        return Some(found(format));
    }
    if let Some(format) = NAMES.iter().find(|(name, ..)| is_named(sample, name)) {
        return Some(found(format));
    }
    if is_bzip2(sample) {
        return Some(Found::new("bzip2 data", decompress!("bzip2 -dc")));
    }
    if is_bmp(sample) {
        return Some(Found::new("a BMP image", IMAGE));
    }
    if sample.starts_with(b"RIFF") && sample.get(8..12).is_some_and(|kind| kind == b"WEBP") {
        return Some(Found::new("a WebP image", IMAGE));
    }
    None
}

fn is_named(sample: &[u8], name: &[u8]) -> bool {
    let Some(rest) = sample.strip_prefix(name) else {
        return false;
    };
    rest.first().is_some_and(|byte| is_control(*byte)) || looks_binary(rest)
}

fn is_bzip2(sample: &[u8]) -> bool {
    let Some([b'1'..=b'9', block @ ..]) = sample.strip_prefix(b"BZh") else {
        return false;
    };
    BZIP2_BLOCKS.iter().any(|start| block.starts_with(start))
}

/// `BM` alone may be text, so the reserved bytes and the size of the second header count, too.
fn is_bmp(sample: &[u8]) -> bool {
    let Some([_, _, _, _, 0, 0, 0, 0, _, _, _, _, size, 0, 0, 0, ..]) = sample.strip_prefix(b"BM")
    else {
        return false;
    };
    matches!(size, 12 | 40 | 52 | 56 | 64 | 108 | 124)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(sample: &[u8]) -> Option<&'static str> {
        find(sample).map(|found| found.what)
    }

    #[test]
    fn every_format_is_recognised_by_its_first_bytes() {
        for (magic, expected, _) in FORMATS {
            assert_eq!(what(magic), Some(*expected));
        }
    }

    #[test]
    fn a_name_of_a_format_counts_only_before_binary_data() {
        assert_eq!(what(b"PAR1\x15\x04\x15\x10"), Some("a Parquet file"));
        assert_eq!(what(b"FEA1\0\0\0\0"), Some("a Feather file"));
        assert_eq!(
            what(b"ORC\n\x03\0\0\0\0\0\x12\x01\x02"),
            Some("an ORC file")
        );
        let zlib = b"x\x9c\x33\xd4\x01\x02\x03\x04\x05\xe1\x32";
        assert_eq!(what(zlib), Some("zlib data"));
        assert_eq!(what("xœ,y\n1,2\n".as_bytes()), None);
        assert_eq!(what(b"x\x9c,y\n1,2\n"), None);
        for text in ["PAR1,x\n1,2\n", "ORC\n1\n", "FEA1\tb\n1\t2\n"] {
            assert_eq!(what(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn bzip2_is_recognised_with_and_without_content() {
        assert_eq!(what(b"BZh91AY&SY"), Some("bzip2 data"));
        assert_eq!(what(b"BZh9\x17\x72\x45\x38\x50\x90"), Some("bzip2 data"));
        assert_eq!(what(b"BZh9,price\n"), None);
    }

    #[test]
    fn a_bitmap_is_recognised_by_its_headers() {
        let bitmap = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0";
        assert_eq!(what(bitmap), Some("a BMP image"));
        assert_eq!(what(b"BM,b\n1,2\n3,4\n5,6\n7,8\n"), None);
    }

    #[test]
    fn a_webp_image_is_recognised_behind_its_length() {
        assert_eq!(what(b"RIFF\x24\0\0\0WEBPVP8 "), Some("a WebP image"));
        assert_eq!(what(b"RIFF,WAVE,WEBP\n"), None);
    }
}
