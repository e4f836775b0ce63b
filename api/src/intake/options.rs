//! What a client may say about its file, in the query or as form fields before the file.

use carga_common::upload::sha256_hex;

use crate::problem::Refusal;

/// The options known so far. Everything else is refused, never ignored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The name to keep for the file.
    pub(crate) filename: Option<String>,
    /// The SHA-256 the file must have, in lower-case hex.
    pub(crate) sha256: Option<String>,
}

/// The longest file name kept.
const FILENAME_CHARS: usize = 255;

impl Options {
    /// Takes the query.
    pub(crate) fn from_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (name, value) in query {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Takes one option; twice is once too often.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let place = match name {
            "filename" => &mut self.filename,
            "sha256" => &mut self.sha256,
            _ => return Err(unknown(name, &["filename", "sha256"])),
        };
        if place.is_some() {
            let message = format!("option `{name}` is given twice");
            return Err(Refusal::bad_request("repeated_option", message));
        }
        *place = Some(match name {
            "sha256" => digest(value)?,
            _ => clean_filename(value),
        });
        Ok(())
    }

    /// The part's own file name, where no option names one.
    pub(crate) fn default_filename(&mut self, name: Option<&str>) {
        if self.filename.is_none() {
            self.filename = name.map(clean_filename).filter(|name| !name.is_empty());
        }
    }

    /// Checks the digest of what came against the one announced.
    pub(crate) fn check_sha256(&self, found: [u8; 32]) -> Result<(), Refusal> {
        match &self.sha256 {
            Some(announced) if *announced != sha256_hex(found) => {
                let message = format!(
                    "the file has SHA-256 {}, {announced} was announced",
                    sha256_hex(found)
                );
                Err(Refusal::unprocessable("sha256_mismatch", message))
            }
            _ => Ok(()),
        }
    }
}

/// The refusal of an option that is not known, with those that are.
pub(crate) fn unknown(name: &str, known: &[&str]) -> Refusal {
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let message = format!("option `{name}` is not known here; known: {known}");
    Refusal::bad_request("unknown_option", message)
}

fn digest(text: &str) -> Result<String, Refusal> {
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    let message = "option `sha256` takes 64 hexadecimal digits";
    Err(Refusal::bad_request("malformed_option", message))
}

/// A label for people: never a path, never anything that a terminal or the database chokes on.
fn clean_filename(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(FILENAME_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_options_are_refused_by_name() {
        let mut options = Options::default();
        let refusal = options.set("delimiter", ";").unwrap_err();
        assert_eq!(refusal.failure.code, "unknown_option");
        assert!(refusal.failure.message.contains("delimiter"));
        options.set("filename", "a.csv").unwrap();
        let refusal = options.set("filename", "b.csv").unwrap_err();
        assert_eq!(refusal.failure.code, "repeated_option");
    }

    #[test]
    fn a_digest_is_taken_in_either_case_and_checked() {
        let mut options = Options::default();
        assert!(options.set("sha256", "abc").is_err());
        options.set("sha256", &"AB".repeat(32)).unwrap();
        assert!(options.check_sha256([0xab; 32]).is_ok());
        let refusal = options.check_sha256([0xcd; 32]).unwrap_err();
        assert_eq!(refusal.failure.code, "sha256_mismatch");
    }
}
