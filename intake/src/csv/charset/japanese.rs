//! Recognises Japanese in Shift_JIS, which chardetng confuses with other encodings if it is short
//! or written with half-width kana.

use super::Charset;

/// Whether the text is Japanese with common characters. Rare ones are chance hits of other
/// encodings.
pub(super) fn is_common_japanese(text: &[char], sample: &[u8]) -> bool {
    let is_kana = |c: &&char| matches!(**c, '\u{ff61}'..='\u{ff9f}');
    let has_kana = text.iter().any(|c| is_kana(&c));
    if has_kana {
        return has_halfwidth_kana(sample);
    }
    let (mut common, mut rare) = (0, 0);
    let mut bytes = sample.iter();
    while let Some(lead) = bytes.next() {
        if lead.is_ascii() {
            continue;
        }
        // Kana and the kanji of the first level.
        match lead {
            0x81..=0x98 => common += 1,
            _ => rare += 1,
        }
        bytes.next();
    }
    common >= 9 * rare
}

/// Whether the sample has words of half-width kana in Shift_JIS. Japanese banks write names so.
pub(super) fn has_halfwidth_kana(sample: &[u8]) -> bool {
    let text = Charset::SHIFT_JIS.decode(sample);
    if text.contains(&'\u{fffd}') {
        return false;
    }
    let is_kana = |c: &char| matches!(c, '\u{ff66}'..='\u{ff9f}');
    let (mut kana, mut in_words, mut first_rows, mut malformed, mut others) = (0, 0, 0, 0, 0);
    for (index, c) in text.iter().enumerate() {
        if !is_kana(c) {
            others += usize::from(!c.is_ascii());
            continue;
        }
        kana += 1;
        let previous = index.checked_sub(1).map_or('\n', |at| text[at]);
        let next = text.get(index + 1).copied().unwrap_or('\n');
        in_words += usize::from(is_kana(&previous) || is_kana(&next));
        first_rows += usize::from(matches!(c, '\u{ff70}'..='\u{ff7f}'));
        // A voicing mark follows a letter that can be voiced.
        let can_be_voiced =
            matches!(previous, '\u{ff73}' | '\u{ff76}'..='\u{ff84}' | '\u{ff8a}'..='\u{ff8e}');
        malformed += usize::from(matches!(c, '\u{ff9e}' | '\u{ff9f}') && !can_be_voiced);
    }
    // The letters of the first three rows are common in Japanese. Their bytes are symbols in the
    // encodings of other languages, whose capitals have the bytes of the remaining rows.
    kana >= 3
        && kana >= others
        && in_words * 10 >= kana * 8
        && first_rows * 8 >= kana
        && malformed * 20 <= kana
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Vec<u8> {
        Charset::SHIFT_JIS
            .standard()
            .unwrap()
            .encode(text)
            .0
            .into_owned()
    }

    #[test]
    fn halfwidth_kana_form_words() {
        assert!(has_halfwidth_kana(&encoded("ｺｰﾄﾞ,値\n1,ｱｲｳ\n")));
        assert!(has_halfwidth_kana(&encoded("ﾔﾏﾀﾞ ﾀﾛｳ,ｽｽﾞｷ ﾊﾅｺ")));
    }

    #[test]
    fn capitals_of_other_encodings_are_not_halfwidth_kana() {
        let russian = encoding_rs::WINDOWS_1251.encode("МОСКВА,ТВЕРЬ").0;
        assert!(!has_halfwidth_kana(&russian));
        let german = encoding_rs::WINDOWS_1252.encode("GRÖßE,ÄRZTE,ÜBUNG").0;
        assert!(!has_halfwidth_kana(&german));
    }

    #[test]
    fn common_kanji_are_told_from_rare_ones() {
        let common = encoded("東京,山田");
        assert!(is_common_japanese(
            &Charset::SHIFT_JIS.decode(&common),
            &common
        ));
        let rare = encoded("鞨,黹");
        assert!(!is_common_japanese(
            &Charset::SHIFT_JIS.decode(&rare),
            &rare
        ));
    }
}
