//! The parameters of a header's value, such as `; name="a"; charset=utf-8` (RFC 9110, 5.6.6).

/// The parameters of one header.
#[derive(Debug)]
pub(crate) struct HeaderParameters(Vec<(String, Vec<u8>)>);

impl HeaderParameters {
    /// Reads the parameters behind the first semicolon. Their names become lower case, and their
    /// values lose their quotes. A parameter without `=` is skipped.
    pub(crate) fn of(header: &[u8]) -> Self {
        let mut parameters = Vec::new();
        let (_, mut rest) = split_before(header, b";");
        while let [b';', parameter @ ..] = rest {
            let (name, mut after) = split_before(parameter, b"=;");
            if let [b'=', value @ ..] = after {
                let name = text(name.trim_ascii()).to_ascii_lowercase();
                let (value, after_value) = unquoted(value.trim_ascii_start());
                parameters.push((name, value));
                after = after_value;
            }
            (_, rest) = split_before(after, b";");
        }
        Self(parameters)
    }

    pub(crate) fn bytes(&self, wanted: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, wanted: &str) -> Option<String> {
        self.bytes(wanted).map(text)
    }
}

/// The value at the beginning of the text, and what follows it.
fn unquoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let [b'"', quoted @ ..] = text else {
        let (value, rest) = split_before(text, b";");
        return (value.trim_ascii_end().to_vec(), rest);
    };
    let mut value = Vec::new();
    let mut rest = quoted;
    loop {
        let (byte, after) = match rest {
            // A backslash hides only these two: some clients send the path of a file on Windows.
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] => (*byte, after),
            [b'"', after @ ..] => return (value, after),
            [byte, after @ ..] => (*byte, after),
            [] => return (value, rest),
        };
        value.push(byte);
        rest = after;
    }
}

/// Splits the bytes before the first of `ends`, or at their end.
fn split_before<'a>(bytes: &'a [u8], ends: &[u8]) -> (&'a [u8], &'a [u8]) {
    let end = bytes.iter().position(|byte| ends.contains(byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// UTF-8, or else Latin-1, which old clients send.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => latin1(bytes),
    }
}

pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
