//! Tests of the detection, with texts in the encodings that real files have.

use super::*;

fn detected(bytes: &[u8]) -> &'static str {
    detect(bytes, true).unwrap().value.name()
}

fn encoded(charset: Charset, text: &str) -> Vec<u8> {
    match charset.standard() {
        Some(encoding) => encoding.encode(text).0.into_owned(),
        None => {
            let upper_half = charset.upper_half().unwrap();
            let byte = |c: char| match upper_half.iter().position(|other| *other == c) {
                Some(at) => 0x80 | u8::try_from(at).unwrap(),
                None => u8::try_from(c).unwrap(),
            };
            text.chars().map(byte).collect()
        }
    }
}

fn assert_detected(cases: &[(Charset, &str)]) {
    for (charset, text) in cases {
        let detection = detect(&encoded(*charset, text), true);
        let found = detection.unwrap_or_else(|fault| panic!("{text}: {}", fault.message));
        assert_eq!(found.value, *charset, "{text}: {}", found.evidence);
    }
}

#[test]
fn ascii_and_mostly_valid_samples_are_utf8() {
    assert_eq!(detected(b"plain"), "utf-8");
    assert_eq!(detected("née à Besançon".as_bytes()), "utf-8");
    let mostly = ["é".repeat(20).as_bytes(), b"\xe9,"].concat();
    assert_eq!(detected(&mostly), "utf-8");
    let one_row = ["Jos\u{e9},".repeat(6).as_bytes(), b"Zo\xeb,"].concat();
    assert_eq!(detected(&one_row), "utf-8");
    let mixed = ["Jos\u{e9},".repeat(2).as_bytes(), b"Zo\xeb,"].concat();
    let refused = detect(&mixed, true).unwrap_err().message;
    assert!(
        refused.contains("encoding=utf-8 or encoding=windows-1252"),
        "{refused}"
    );
}

#[test]
fn a_sample_may_end_in_the_middle_of_a_character() {
    let cut = [b"a", &"é".as_bytes()[..1]].concat();
    assert_eq!(detect(&cut, false).unwrap().value, Charset::UTF_8);
    let whole = detect(&cut, true).unwrap_err();
    assert_eq!(whole.code, "unknown_encoding");
    let text = "番号,名前\n1,山田太郎\n2,鈴木一郎\n".repeat(50);
    let mut japanese = encoded(Charset::SHIFT_JIS, &text);
    japanese.extend(encoded(Charset::SHIFT_JIS, "3,佐"));
    japanese.pop();
    let found = detect(&japanese, false).unwrap();
    assert_eq!(found.value, Charset::SHIFT_JIS);
}

#[test]
fn utf16_without_a_mark_is_recognised_by_its_nuls() {
    let text = "id,name\n1,Zoë\n2,山田\n";
    let low_first: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let high_first: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(detected(&low_first), "utf-16le");
    assert_eq!(detected(&high_first), "utf-16be");
    assert_eq!(detected(b"id,name\n1,Ada\0\0\0\0\0\0\0\0"), "utf-8");
}

#[test]
fn symbols_are_those_of_windows_1252() {
    let texts = [
        "price (£)",
        "£0.99",
        "PM2.5 (µg/m³)",
        "10µF",
        "45°12'N",
        "0½",
        "3×4",
        "5¢",
        "±0.1",
        "Ø 5 mm",
        "¥5",
        "5 €",
        "5–7",
        "it’s",
        "“quoted”",
        "1\u{a0}000",
        "ACME™",
        "© X",
        "§ 5",
    ];
    for text in texts {
        let one = format!("id,v\n1,{text}\n");
        assert_detected(&[(Charset::WINDOWS_1252, &one)]);
        assert_detected(&[(Charset::WINDOWS_1252, &one.repeat(300))]);
    }
}

#[test]
fn words_are_detected_in_the_encoding_of_their_language() {
    let czech = "id,jméno\n1,Jiří Dvořák, Plzeň, Třebíč\n";
    assert_detected(&[
        (Charset::WINDOWS_1252, "a naïve approach"),
        (Charset::WINDOWS_1252, "José,Bogotá"),
        (Charset::WINDOWS_1252, "maçã,João"),
        (Charset::WINDOWS_1252, "Søren,François,Åse,Nuñez,Zoë"),
        (Charset::WINDOWS_1250, "imię,Łukasz"),
        (Charset::WINDOWS_1250, "Łukasz"),
        (Charset::WINDOWS_1250, czech),
        (Charset::WINDOWS_1250, "név,Győr"),
        (Charset::WINDOWS_1254, "Şükrü,İstanbul,Iğdır"),
        (Charset::WINDOWS_1257, "Žemaitė"),
        (Charset::WINDOWS_1251, "имя,Иван"),
        (Charset::KOI8_U, "имя,Иван"),
        (Charset::IBM866, "имя,Иван"),
    ]);
}

#[test]
fn halfwidth_kana_are_not_letters_of_other_scripts() {
    // By their frequencies, these bytes are Cyrillic: ISO-8859-5 or windows-1251.
    let names = ["ﾔﾏﾀﾞ ﾀﾛｳ", "ｽｽﾞｷ ﾊﾅｺ", "ｻﾄｳ ｹﾝｼﾞ", "ﾔﾏﾀﾞ ﾀﾛｳ,ｽｽﾞｷ ﾊﾅｺ"];
    for name in names {
        let one = format!("id,name\n1,{name}\n");
        assert_detected(&[(Charset::SHIFT_JIS, name)]);
        assert_detected(&[(Charset::SHIFT_JIS, &one)]);
        assert_detected(&[(Charset::SHIFT_JIS, &one.repeat(300))]);
    }
}

#[test]
fn dos_and_old_macs_are_recognised() {
    assert_detected(&[
        (Charset::CP850, "José,Bogotá"),
        (Charset::CP850, "Größe,Müller"),
        (Charset::CP850, "København,Århus,Ærø,Søren"),
        (Charset::CP852, "Łukasz,imię,źródło,Gdańsk,Śruba"),
        (Charset::MACINTOSH, "José,Bogotá"),
        (Charset::MACINTOSH, "Größe,Müller"),
        (Charset::MACINTOSH, "España,León,García,niño"),
    ]);
}

#[test]
fn a_file_that_several_encodings_explain_is_refused_with_their_names() {
    let fault = detect(b"id,name\n1,\x93\x8c\x8b\x9e\n", true).unwrap_err();
    assert_eq!(fault.code, "unknown_encoding");
    for name in ["encoding=shift_jis", "encoding=ibm866"] {
        assert!(fault.message.contains(name), "{}", fault.message);
    }
}

#[test]
fn the_evidence_tells_what_was_seen_and_how_sure_it_is() {
    let evidence = |bytes: &[u8]| detect(bytes, true).unwrap().evidence;
    assert_eq!(evidence(b"plain"), "the first 5 bytes are ASCII");
    assert_eq!(
        evidence(b"\xa35"),
        "1 of 1 non-ASCII sequences are not UTF-8; all of them are symbols such as £ in windows-1252"
    );
    assert!(evidence(b"Gr\x94\xe1e M\x81ller").contains("cp850; this is likely"));
}
