//! The names of encodings.
//!
//! People copy a name from the program that wrote the file, so Python's, Java's, ICU's and
//! Windows' names count besides the labels of the WHATWG Encoding Standard.

use encoding_rs as rs;
use encoding_rs::Encoding;

use super::dos::PAGES;
use super::{Charset, Kind};

/// Every encoding of the WHATWG Encoding Standard that may be decoded, with its name in lower
/// case.
static NAMES: [(&Encoding, &str); 39] = [
    (&rs::UTF_8_INIT, "utf-8"),
    (&rs::UTF_16LE_INIT, "utf-16le"),
    (&rs::UTF_16BE_INIT, "utf-16be"),
    (&rs::WINDOWS_1250_INIT, "windows-1250"),
    (&rs::WINDOWS_1251_INIT, "windows-1251"),
    (&rs::WINDOWS_1252_INIT, "windows-1252"),
    (&rs::WINDOWS_1253_INIT, "windows-1253"),
    (&rs::WINDOWS_1254_INIT, "windows-1254"),
    (&rs::WINDOWS_1255_INIT, "windows-1255"),
    (&rs::WINDOWS_1256_INIT, "windows-1256"),
    (&rs::WINDOWS_1257_INIT, "windows-1257"),
    (&rs::WINDOWS_1258_INIT, "windows-1258"),
    (&rs::WINDOWS_874_INIT, "windows-874"),
    (&rs::ISO_8859_2_INIT, "iso-8859-2"),
    (&rs::ISO_8859_3_INIT, "iso-8859-3"),
    (&rs::ISO_8859_4_INIT, "iso-8859-4"),
    (&rs::ISO_8859_5_INIT, "iso-8859-5"),
    (&rs::ISO_8859_6_INIT, "iso-8859-6"),
    (&rs::ISO_8859_7_INIT, "iso-8859-7"),
    (&rs::ISO_8859_8_INIT, "iso-8859-8"),
    (&rs::ISO_8859_8_I_INIT, "iso-8859-8-i"),
    (&rs::ISO_8859_10_INIT, "iso-8859-10"),
    (&rs::ISO_8859_13_INIT, "iso-8859-13"),
    (&rs::ISO_8859_14_INIT, "iso-8859-14"),
    (&rs::ISO_8859_15_INIT, "iso-8859-15"),
    (&rs::ISO_8859_16_INIT, "iso-8859-16"),
    (&rs::IBM866_INIT, "ibm866"),
    (&rs::KOI8_R_INIT, "koi8-r"),
    (&rs::KOI8_U_INIT, "koi8-u"),
    (&rs::MACINTOSH_INIT, "macintosh"),
    (&rs::X_MAC_CYRILLIC_INIT, "x-mac-cyrillic"),
    (&rs::X_USER_DEFINED_INIT, "x-user-defined"),
    (&rs::BIG5_INIT, "big5"),
    (&rs::EUC_JP_INIT, "euc-jp"),
    (&rs::EUC_KR_INIT, "euc-kr"),
    (&rs::GB18030_INIT, "gb18030"),
    (&rs::GBK_INIT, "gbk"),
    (&rs::ISO_2022_JP_INIT, "iso-2022-jp"),
    (&rs::SHIFT_JIS_INIT, "shift_jis"),
];

/// Names that the WHATWG Encoding Standard lacks, as [`squashed`] writes them, and their label.
const ALIASES: [(&str, &str); 40] = [
    ("u8", "utf-8"),
    ("utf8sig", "utf-8"),
    ("utf8bom", "utf-8"),
    ("utf8mb4", "utf-8"),
    ("utf16", "utf-16le"),
    ("u16", "utf-16le"),
    ("646", "us-ascii"),
    ("latin7", "iso-8859-13"),
    ("latin8", "iso-8859-14"),
    ("latin9", "iso-8859-15"),
    ("latin10", "iso-8859-16"),
    ("iso885916", "iso-8859-16"),
    ("ansi", "windows-1252"),
    ("dos", "cp850"),
    ("macroman", "macintosh"),
    ("xmacroman", "macintosh"),
    ("maccyrillic", "x-mac-cyrillic"),
    ("koi8ru", "koi8-u"),
    ("tis620", "windows-874"),
    ("sjis", "shift_jis"),
    ("mskanji", "shift_jis"),
    ("xsjis", "shift_jis"),
    ("eucjp", "euc-jp"),
    ("ujis", "euc-jp"),
    ("iso2022jp", "iso-2022-jp"),
    ("euckr", "euc-kr"),
    ("uhc", "euc-kr"),
    ("ksc5601", "euc-kr"),
    ("ksc56011987", "euc-kr"),
    ("ksx1001", "euc-kr"),
    ("xwindows949", "euc-kr"),
    ("euccn", "gbk"),
    ("gb2312", "gbk"),
    ("gb231280", "gbk"),
    ("gb180302000", "gb18030"),
    ("big5hkscs", "big5"),
    ("big5tw", "big5"),
    ("eucgb2312cn", "gbk"),
    ("windows31j", "shift_jis"),
    ("iso88598i", "iso-8859-8-i"),
];

/// What may stand before the number of a code page.
const PAGE_PREFIXES: [&str; 7] = ["windows", "cp", "ms", "ibm", "xcp", "codepage", "oem"];

/// The code pages of Windows and IBM whose label is not their number.
const CODE_PAGES: [(&str, &str); 22] = [
    ("367", "us-ascii"),
    ("819", "iso-8859-1"),
    ("866", "ibm866"),
    ("874", "windows-874"),
    ("932", "shift_jis"),
    ("943", "shift_jis"),
    ("936", "gbk"),
    ("949", "euc-kr"),
    ("950", "big5"),
    ("1200", "utf-16le"),
    ("1201", "utf-16be"),
    ("5348", "windows-1252"),
    ("10000", "macintosh"),
    ("10007", "x-mac-cyrillic"),
    ("20127", "us-ascii"),
    ("20866", "koi8-r"),
    ("21866", "koi8-u"),
    ("28591", "iso-8859-1"),
    ("28605", "iso-8859-15"),
    ("51932", "euc-jp"),
    ("54936", "gb18030"),
    ("65001", "utf-8"),
];

pub(super) fn name(encoding: &'static Encoding) -> &'static str {
    let found = NAMES.iter().find(|(named, _)| *named == encoding);
    found.map_or(encoding.name(), |(_, name)| name)
}

pub(super) fn find(label: &str) -> Option<Charset> {
    let squashed = squashed(label);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == squashed);
    alias
        .and_then(|(_, label)| labelled(label))
        .or_else(|| labelled(label))
        .or_else(|| labelled(&squashed))
        .or_else(|| named(&squashed))
        .or_else(|| code_page(&squashed))
}

/// The label without what people write differently.
fn squashed(label: &str) -> String {
    let is_kept = |c: &char| !c.is_whitespace() && !matches!(c, '-' | '_');
    label
        .chars()
        .filter(is_kept)
        .collect::<String>()
        .to_lowercase()
}

/// The encoding with a label of the WHATWG Encoding Standard or the name of a DOS code page.
fn labelled(label: &str) -> Option<Charset> {
    let page = PAGES.iter().find(|page| page.name == label);
    let page = page.map(|page| Charset(Kind::Dos(page)));
    page.or_else(|| Encoding::for_label_no_replacement(label.as_bytes()).map(Charset::of))
}

/// The encoding whose name is written like that.
fn named(label: &str) -> Option<Charset> {
    let found = NAMES.iter().find(|(_, name)| squashed(name) == label);
    found.map(|(encoding, _)| Charset::of(encoding))
}

fn code_page(label: &str) -> Option<Charset> {
    let mut prefixes = PAGE_PREFIXES.iter();
    let number = prefixes.find_map(|prefix| label.strip_prefix(prefix));
    let number = number.unwrap_or(label);
    let known = CODE_PAGES.iter().find(|(page, _)| *page == number);
    if let Some((_, label)) = known {
        return labelled(label);
    }
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let named = |prefix| labelled(&format!("{prefix}{number}"));
    is_number
        .then(|| named("windows-").or_else(|| named("cp")))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(label: &str) -> Option<&'static str> {
        Charset::for_label(label).map(Charset::name)
    }

    #[test]
    fn every_encoding_is_found_by_its_name() {
        for (encoding, name) in NAMES {
            assert_eq!(name_of(name), Some(name));
            assert_eq!(name, encoding.name().to_ascii_lowercase());
        }
        for page in PAGES {
            assert_eq!(name_of(page.name), Some(page.name));
        }
    }

    #[test]
    fn every_alias_names_an_encoding() {
        let aliases = ALIASES.iter().chain(&CODE_PAGES);
        for (alias, label) in aliases {
            assert!(labelled(label).is_some(), "{label}");
            assert_eq!(*alias, squashed(alias));
        }
    }

    #[test]
    fn the_names_of_other_programs_are_found() {
        let cases = [
            ("utf-8", "utf8 UTF_8 u8 utf-8-sig utf_8_sig 65001 cp65001"),
            ("utf-16le", "utf-16 utf_16 utf-16-le UTF16LE unicode"),
            ("utf-16be", "utf_16_be"),
            (
                "windows-1252",
                "cp1252 cp-1252 windows_1252 1252 Latin-1 latin_1 latin1 l1 ascii",
            ),
            ("windows-1252", "iso8859-1 iso-8859-1 ibm-5348 ms1252"),
            ("windows-1250", "cp1250 1250"),
            ("iso-8859-15", "iso8859_15 latin-9 iso-8859-15 l9"),
            ("iso-8859-2", "latin2 iso8859_2"),
            ("iso-8859-16", "iso8859_16"),
            (
                "shift_jis",
                "cp932 ms932 sjis shift-jis Shift_JIS windows-31j ms_kanji",
            ),
            ("euc-kr", "cp949 ms949 uhc euc_kr ks_c_5601-1987 949"),
            ("gbk", "cp936 gb2312 GBK ms936"),
            ("gb18030", "gb18030"),
            ("big5", "big5-hkscs cp950 big5_hkscs"),
            ("euc-jp", "eucjp euc_jp ujis"),
            ("macintosh", "mac-roman mac_roman macroman macintosh mac"),
            ("ibm866", "cp866 866 ibm866"),
            ("koi8-r", "koi8_r koi8-r"),
            ("cp437", "ibm437 437 cp437 IBM-437"),
            ("cp850", "ibm850 850 dos cp_850"),
            ("cp865", "ibm865"),
            ("windows-874", "cp874 tis-620"),
        ];
        for (name, labels) in cases {
            for label in labels.split(' ') {
                assert_eq!(name_of(label), Some(name), "{label}");
            }
        }
        assert_eq!(name_of(" Windows 1252 "), Some("windows-1252"));
    }

    #[test]
    fn unknown_and_dangerous_encodings_are_refused() {
        let labels = [
            "",
            "klingon",
            "hz",
            "hz-gb-2312",
            "replacement",
            "iso-2022-kr",
            "cp",
            "9999",
        ];
        for label in labels {
            assert_eq!(name_of(label), None, "{label}");
        }
    }
}
