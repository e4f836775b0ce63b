//! The character encodings that a file may have.
//!
//! `labels` finds an encoding by its many names, and `dos` has the code pages that the WHATWG
//! Encoding Standard lacks. `detect` decides between encodings. It asks `plausible` how many
//! characters of a text stand where text has them, `languages` for the letters of a language, and
//! `japanese` for Shift_JIS. `besides` decides about text in encodings other than those of Windows.

mod besides;
mod binary;
mod detect;
mod dos;
mod japanese;
mod labels;
mod languages;
mod plausible;

use encoding_rs::Encoding;

use super::detect::{Decision, decision};
use super::fault::FileFault;
use dos::DosPage;

pub(crate) use binary::{is_control, looks_binary};
pub(super) use detect::{detect, detect_late, guess};

/// How many bytes detection examines. It never examines more, even if more have arrived, because
/// the result must not depend on how the bytes arrive.
pub(super) const SAMPLE_BYTES: usize = 64 << 10;

/// The result of a detection. The error is `unknown_encoding`.
pub(super) type Detection = Result<Decision<Charset>, FileFault>;

/// A character encoding that can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Charset(Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard(&'static Encoding),
    Dos(&'static DosPage),
}

impl std::fmt::Debug for Charset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Charset").field(&self.name()).finish()
    }
}

impl Charset {
    /// The encoding of the web.
    pub const UTF_8: Self = Self::of(&encoding_rs::UTF_8_INIT);
    /// UTF-16 with the low byte first.
    pub const UTF_16LE: Self = Self::of(&encoding_rs::UTF_16LE_INIT);
    /// UTF-16 with the high byte first.
    pub const UTF_16BE: Self = Self::of(&encoding_rs::UTF_16BE_INIT);
    /// The encoding of Windows in Western Europe and America.
    pub const WINDOWS_1252: Self = Self::of(&encoding_rs::WINDOWS_1252_INIT);
    pub(super) const WINDOWS_1250: Self = Self::of(&encoding_rs::WINDOWS_1250_INIT);
    pub(super) const WINDOWS_1251: Self = Self::of(&encoding_rs::WINDOWS_1251_INIT);
    pub(super) const WINDOWS_1254: Self = Self::of(&encoding_rs::WINDOWS_1254_INIT);
    pub(super) const WINDOWS_1257: Self = Self::of(&encoding_rs::WINDOWS_1257_INIT);
    pub(super) const KOI8_U: Self = Self::of(&encoding_rs::KOI8_U_INIT);
    pub(super) const IBM866: Self = Self::of(&encoding_rs::IBM866_INIT);
    pub(super) const SHIFT_JIS: Self = Self::of(&encoding_rs::SHIFT_JIS_INIT);
    pub(super) const MACINTOSH: Self = Self::of(&encoding_rs::MACINTOSH_INIT);
    pub(super) const CP850: Self = Self(Kind::Dos(&dos::CP850));
    pub(super) const CP852: Self = Self(Kind::Dos(&dos::CP852));
    pub(super) const CP860: Self = Self(Kind::Dos(&dos::CP860));
    #[cfg(test)]
    pub(super) const CP437: Self = Self(Kind::Dos(&dos::CP437));

    const fn of(encoding: &'static Encoding) -> Self {
        Self(Kind::Standard(encoding))
    }

    /// The encoding with this label: a label of the WHATWG Encoding Standard, or a name that
    /// Python, ICU, Windows or Java has for it. `None` if the label is unknown or its encoding must
    /// not be decoded.
    pub fn for_label(label: &str) -> Option<Self> {
        labels::find(label)
    }

    /// The label, as the API shows it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Standard(encoding) => labels::name(encoding),
            Kind::Dos(page) => page.name,
        }
    }

    /// Whether this is UTF-8.
    pub fn is_utf8(self) -> bool {
        self == Self::UTF_8
    }

    /// Whether this is UTF-16 in either byte order.
    pub fn is_utf16(self) -> bool {
        self == Self::UTF_16LE || self == Self::UTF_16BE
    }

    /// Whether every byte is a character.
    pub fn is_single_byte(self) -> bool {
        match self.0 {
            Kind::Standard(encoding) => encoding.is_single_byte(),
            Kind::Dos(_) => true,
        }
    }

    /// The encoding, unless it is a DOS code page.
    pub(super) fn standard(self) -> Option<&'static Encoding> {
        match self.0 {
            Kind::Standard(encoding) => Some(encoding),
            Kind::Dos(_) => None,
        }
    }

    /// The characters of the bytes from 0x80, if it is a DOS code page.
    pub(super) fn upper_half(self) -> Option<Vec<char>> {
        match self.0 {
            Kind::Standard(_) => None,
            Kind::Dos(page) => Some(page.upper_half.chars().collect()),
        }
    }

    /// Decodes a sample. An undecodable byte becomes U+FFFD.
    fn decode(self, sample: &[u8]) -> Vec<char> {
        match self.0 {
            Kind::Standard(encoding) => {
                let (text, _) = encoding.decode_without_bom_handling(sample);
                text.chars().collect()
            }
            Kind::Dos(page) => {
                let upper_half: Vec<char> = page.upper_half.chars().collect();
                let decode = |byte: &u8| match byte {
                    0..0x80 => char::from(*byte),
                    _ => upper_half[usize::from(*byte & 0x7f)],
                };
                sample.iter().map(decode).collect()
            }
        }
    }
}

/// The encoding that a byte order mark at the start of the file names, and the length of the mark.
pub(super) fn mark(sample: &[u8]) -> Option<(Charset, usize)> {
    let (encoding, length) = Encoding::for_bom(sample)?;
    Some((Charset::of(encoding), length))
}

/// How to decode a file, as far as its first bytes show it.
#[derive(Debug)]
pub(super) struct Start {
    /// `None` if the sample is too little evidence: [`super::transcode::Transcoder::undecided`]
    /// then decides.
    pub(super) charset: Option<Charset>,
    /// The length of the byte order mark.
    pub(super) mark_bytes: usize,
    pub(super) evidence: String,
}

/// Decides the encoding of a file that starts with `sample`. A byte order mark wins over the
/// `given` encoding, as in the WHATWG's "decode". Of a file that was given an encoding, the sample
/// may be just long enough for a mark.
pub(super) fn start(
    sample: &[u8],
    whole: bool,
    given: Option<Charset>,
) -> Result<Start, FileFault> {
    let certain = |charset, mark_bytes, evidence: String| Start {
        charset: Some(charset),
        mark_bytes,
        evidence,
    };
    if let Some((charset, mark_bytes)) = mark(sample) {
        let evidence = match given.filter(|given| *given != charset) {
            None => "a byte order mark".to_owned(),
            Some(given) => format!(
                "a byte order mark; the given encoding {} was not used",
                given.name()
            ),
        };
        return Ok(certain(charset, mark_bytes, evidence));
    }
    if let Some(given) = given {
        return Ok(certain(given, 0, "given".to_owned()));
    }
    if let Some(found) = detect::utf16(sample) {
        return Ok(certain(found.value, 0, found.evidence));
    }
    // If only the end of the sample is not ASCII, the bytes that follow are the better evidence.
    let ascii_bytes = sample.iter().take_while(|byte| byte.is_ascii()).count();
    if !whole && ascii_bytes > sample.len() / 2 {
        return Ok(Start {
            charset: None,
            mark_bytes: 0,
            evidence: format!("the first {ascii_bytes} bytes are ASCII"),
        });
    }
    let found = detect(sample, whole)?;
    Ok(certain(found.value, 0, found.evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_wins_over_a_given_encoding() {
        let cases: [(&[u8], Charset, usize); 3] = [
            (b"\xef\xbb\xbfid", Charset::UTF_8, 3),
            (b"\xff\xfei\0", Charset::UTF_16LE, 2),
            (b"\xfe\xff\0i", Charset::UTF_16BE, 2),
        ];
        for (sample, charset, length) in cases {
            assert_eq!(mark(sample), Some((charset, length)));
            let start = start(sample, true, Some(Charset::WINDOWS_1252)).unwrap();
            assert_eq!((start.charset, start.mark_bytes), (Some(charset), length));
            assert_eq!(
                start.evidence,
                "a byte order mark; the given encoding windows-1252 was not used"
            );
        }
        let same = start(b"\xef\xbb\xbfid", true, Some(Charset::UTF_8)).unwrap();
        assert_eq!(same.evidence, "a byte order mark");
    }

    #[test]
    fn a_given_encoding_is_used_without_a_mark() {
        let start = start(b"id", false, Some(Charset::CP437)).unwrap();
        assert_eq!((start.charset, start.mark_bytes), (Some(Charset::CP437), 0));
        assert_eq!(start.evidence, "given");
    }

    #[test]
    fn a_sample_that_is_ascii_leaves_a_longer_file_undecided() {
        let ascii = [b'a'; 100];
        assert_eq!(start(&ascii, false, None).unwrap().charset, None);
        let whole = start(&ascii, true, None).unwrap();
        assert_eq!(whole.charset, Some(Charset::UTF_8));
        let late = [&ascii[..], b"\xe9"].concat();
        assert_eq!(start(&late, false, None).unwrap().charset, None);
        let early = [b"Andr\xe9 \xe0 Besan\xe7on", &ascii[..]].concat();
        let early = start(&early, false, None).unwrap();
        assert_eq!(early.charset, Some(Charset::WINDOWS_1252));
    }

    #[test]
    fn charsets_know_their_kind() {
        assert!(Charset::UTF_8.is_utf8() && !Charset::UTF_8.is_single_byte());
        assert!(Charset::UTF_16BE.is_utf16() && !Charset::UTF_8.is_utf16());
        assert!(Charset::CP850.is_single_byte() && Charset::WINDOWS_1252.is_single_byte());
        assert!(!Charset::SHIFT_JIS.is_single_byte());
        assert_eq!(format!("{:?}", Charset::CP850), "Charset(\"cp850\")");
    }
}
