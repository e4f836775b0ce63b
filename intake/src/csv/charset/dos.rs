//! The code pages of DOS, which the WHATWG Encoding Standard lacks (except 866).
//!
//! Old programs, tills and mainframe exports still write them.

/// A DOS code page. Its lower half is ASCII.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DosPage {
    pub(super) name: &'static str,
    /// The 128 characters of the bytes from 0x80. All of them exist.
    pub(super) upper_half: &'static str,
}

/// United States.
pub(super) static CP437: DosPage = DosPage {
    name: "cp437",
    upper_half: "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// Western Europe.
pub(super) static CP850: DosPage = DosPage {
    name: "cp850",
    upper_half: "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
        └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}",
};

/// Central Europe.
pub(super) static CP852: DosPage = DosPage {
    name: "cp852",
    upper_half: "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐\
        └┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}",
};

/// Western Europe with the euro sign.
pub(super) static CP858: DosPage = DosPage {
    name: "cp858",
    upper_half: "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
        └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈ€ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}",
};

/// Portugal.
pub(super) static CP860: DosPage = DosPage {
    name: "cp860",
    upper_half: "ÇüéâãàÁçêÊèÍÔìÃÂÉÀÈôõòÚùÌÕÜ¢£Ù₧ÓáíóúñÑªº¿Ò¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// Iceland.
pub(super) static CP861: DosPage = DosPage {
    name: "cp861",
    upper_half: "ÇüéâäàåçêëèÐðÞÄÅÉæÆôöþûÝýÖÜø£Ø₧ƒáíóúÁÍÓÚ¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// Israel.
pub(super) static CP862: DosPage = DosPage {
    name: "cp862",
    upper_half: "אבגדהוזחטיךכלםמןנסעףפץצקרשת¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// French Canada.
pub(super) static CP863: DosPage = DosPage {
    name: "cp863",
    upper_half: "ÇüéâÂà¶çêëèïî‗À§ÉÈÊôËÏûù¤ÔÜ¢£ÙÛƒ¦´óú¨¸³¯Î⌐¬½¼¾«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// Denmark and Norway.
pub(super) static CP865: DosPage = DosPage {
    name: "cp865",
    upper_half: "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø₧ƒáíóúñÑªº¿⌐¬½¼¡«¤░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
        └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
};

/// All of them.
pub(super) static PAGES: [&DosPage; 9] = [
    &CP437, &CP850, &CP852, &CP858, &CP860, &CP861, &CP862, &CP863, &CP865,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_128_characters() {
        for page in PAGES {
            assert_eq!(page.upper_half.chars().count(), 128, "{}", page.name);
        }
    }

    #[test]
    fn bytes_have_the_characters_of_their_page() {
        let of = |page: &DosPage, byte: u8| page.upper_half.chars().nth(usize::from(byte - 0x80));
        assert_eq!(of(&CP437, 0x81), Some('ü'));
        assert_eq!(of(&CP437, 0x9b), Some('¢'));
        assert_eq!(of(&CP437, 0xff), Some('\u{a0}'));
        assert_eq!(of(&CP850, 0x9b), Some('ø'));
        assert_eq!(of(&CP850, 0xf0), Some('\u{ad}'));
        assert_eq!(of(&CP858, 0xd5), Some('€'));
        assert_eq!(of(&CP852, 0xa5), Some('ą'));
    }
}
