//! ZIP archives with the documents that are ZIP archives, and tar archives.

use memchr::memmem;

use super::Found;
use super::magic::{DOCUMENT, spreadsheet};

/// The header of the first file of a ZIP archive.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// The end of a ZIP archive; an empty archive has nothing else.
const ZIP_END: &[u8] = b"PK\x05\x06";

/// The position of the name in that header.
const ZIP_NAME: usize = 30;

/// The position of `ustar` in a tar archive.
const USTAR: usize = 257;

/// How many bytes show that a file is a tar archive.
pub(super) const TAR_BYTES: usize = USTAR + 5;

/// The longest name that a message repeats.
const MAX_NAME_BYTES: usize = 100;

const ODS: &[u8] = b"application/vnd.oasis.opendocument.spreadsheet";

pub(super) fn find(sample: &[u8]) -> Option<Found> {
    if sample.starts_with(ZIP) {
        return Some(zip(sample));
    }
    if sample.starts_with(ZIP_END) {
        return Some(Found::new(
            "an empty ZIP archive",
            "send the CSV file itself",
        ));
    }
    is_tar(sample).then(|| tar(sample))
}

fn zip(sample: &[u8]) -> Found {
    let content = ZIP_NAME + length_at(sample, 26);
    let name = sample.get(ZIP_NAME..content).unwrap_or_default();
    let content = content + length_at(sample, 28);
    let content = sample.get(content..).unwrap_or_default();
    if name == b"mimetype" && content.starts_with(b"application/vnd.oasis.opendocument.") {
        return match content.starts_with(ODS) {
            true => Found::new("an OpenDocument spreadsheet (.ods)", spreadsheet!()),
            false => Found::new("an OpenDocument document", DOCUMENT),
        };
    }
    if name.starts_with(b"Index/") && name.ends_with(b".iwa") {
        let remedy = "export it as CSV in Numbers (File > Export To > CSV)";
        return Found::new("an Apple iWork document", remedy);
    }
    if is_office_part(name) {
        let contains = |folder: &str| memmem::find(sample, folder.as_bytes()).is_some();
        if contains("word/") {
            return Found::new("a Word document (.docx)", DOCUMENT);
        }
        if contains("ppt/") {
            return Found::new("a PowerPoint document (.pptx)", DOCUMENT);
        }
        // The folder `xl/` may begin after the sample. Most documents sent here are workbooks.
        return Found::new("an Excel workbook", spreadsheet!());
    }
    Found::new("a ZIP archive", unpack("unzip -p", name))
}

/// Whether the first file of an archive has a name that only Office documents use.
fn is_office_part(name: &[u8]) -> bool {
    const STARTS: [&[u8]; 5] = [b"_rels/.rels", b"docProps/", b"xl/", b"word/", b"ppt/"];
    name == b"[Content_Types].xml" || STARTS.iter().any(|start| name.starts_with(start))
}

/// Reads a length of two bytes, little-endian. Returns 0 if the sample is too short.
fn length_at(sample: &[u8], position: usize) -> usize {
    match sample.get(position..position + 2) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => 0,
    }
}

/// `ustar` alone may be text. The name before it is padded with NULs.
fn is_tar(sample: &[u8]) -> bool {
    let magic = sample.get(USTAR..TAR_BYTES);
    magic.is_some_and(|magic| magic == b"ustar") && sample[..USTAR].contains(&0)
}

fn tar(sample: &[u8]) -> Found {
    /// The position of the kind of the entry.
    const KIND: usize = 156;
    let name = &sample[..MAX_NAME_BYTES];
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    // Only the name of a regular file is the name of something to import.
    let name = match sample[KIND] {
        0 | b'0' => name,
        _ => b"",
    };
    Found::new("a tar archive", unpack("tar -xOf", name))
}

/// How to import one file of an archive. The name is repeated only if a shell takes it literally,
/// because people paste the command.
fn unpack(command: &str, name: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
    let is_literal = !name.starts_with(b"-")
        && !name.ends_with(b"/")
        && (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.iter().all(is_plain);
    let name = match is_literal {
        true => format!(" {}", String::from_utf8_lossy(name)),
        false => String::new(),
    };
    format!("unpack it and send the CSV inside: {command} FILE{name} | carga import -")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ZIP archive that begins with this file.
    fn archive(name: &str, content: &str) -> Vec<u8> {
        let mut archive = ZIP.to_vec();
        archive.resize(26, 0);
        archive.extend((name.len() as u16).to_le_bytes());
        archive.extend([4_u8, 0]);
        archive.extend(name.as_bytes());
        archive.extend(b"xtra");
        archive.extend(content.as_bytes());
        archive
    }

    fn what(archive: &[u8]) -> Option<&'static str> {
        find(archive).map(|found| found.what)
    }

    fn remedy(archive: &[u8]) -> String {
        find(archive).unwrap().remedy.into_owned()
    }

    /// The first block of a tar archive.
    fn tar_block(name: &str, kind: u8) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[156] = kind;
        block[USTAR..TAR_BYTES].copy_from_slice(b"ustar");
        block
    }

    #[test]
    fn documents_are_told_from_other_archives() {
        let cases = [
            (
                "[Content_Types].xml",
                "xl/workbook.xml",
                "an Excel workbook",
            ),
            ("xl/workbook.xml", "", "an Excel workbook"),
            (
                "_rels/.rels",
                "word/document.xml",
                "a Word document (.docx)",
            ),
            ("docProps/app.xml", "ppt/", "a PowerPoint document (.pptx)"),
            ("[Content_Types].xml", "", "an Excel workbook"),
            ("Index/Document.iwa", "", "an Apple iWork document"),
            ("data.csv", "xl/,b", "a ZIP archive"),
        ];
        for (name, content, expected) in cases {
            assert_eq!(what(&archive(name, content)), Some(expected), "{name}");
        }
    }

    #[test]
    fn an_opendocument_file_is_recognised_by_its_media_type() {
        let ods = archive(
            "mimetype",
            "application/vnd.oasis.opendocument.spreadsheetPK",
        );
        assert_eq!(what(&ods), Some("an OpenDocument spreadsheet (.ods)"));
        let odt = archive("mimetype", "application/vnd.oasis.opendocument.textPK");
        assert_eq!(what(&odt), Some("an OpenDocument document"));
    }

    #[test]
    fn the_remedy_names_the_first_file_of_an_archive() {
        let expected =
            "unpack it and send the CSV inside: unzip -p FILE a/data.csv | carga import -";
        assert_eq!(remedy(&archive("a/data.csv", "")), expected);
        let expected = "unpack it and send the CSV inside: tar -xOf FILE data.csv | carga import -";
        assert_eq!(remedy(&tar_block("data.csv", b'0')), expected);
    }

    #[test]
    fn the_remedy_repeats_no_name_that_a_shell_would_interpret() {
        let expected = "unpack it and send the CSV inside: unzip -p FILE | carga import -";
        for name in ["", "a/", "-x", "$(reboot)", "a b", "a;b", "é"] {
            assert_eq!(remedy(&archive(name, "")), expected, "{name}");
        }
    }

    #[test]
    fn the_remedy_repeats_no_name_of_a_tar_entry_that_is_not_a_file() {
        let expected = "unpack it and send the CSV inside: tar -xOf FILE | carga import -";
        for kind in [b'5', b'x', b'g'] {
            assert_eq!(remedy(&tar_block("PaxHeader", kind)), expected);
        }
    }

    #[test]
    fn an_archive_that_is_cut_anywhere_is_recognised() {
        let whole = archive("data.csv", "a,b");
        for length in ZIP.len()..whole.len() {
            assert_eq!(what(&whole[..length]), Some("a ZIP archive"), "{length}");
        }
        assert_eq!(what(b"PK\x05\x06\0\0"), Some("an empty ZIP archive"));
    }

    #[test]
    fn text_with_ustar_at_the_position_of_a_tar_archive_is_not_one() {
        let text = "x".repeat(USTAR) + "ustar";
        assert_eq!(what(text.as_bytes()), None);
    }
}
