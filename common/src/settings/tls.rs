//! The certificate of the API's own port.

use std::path::PathBuf;

use super::reader::Reader;

const CERTIFICATE: &str = "CARGA_TLS_CERT";
const KEY: &str = "CARGA_TLS_KEY";

/// The files with which the API encrypts its port. Without them, it speaks HTTP without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `CARGA_TLS_CERT`: the certificate and the chain up to its authority (PEM).
    pub certificate: PathBuf,
    /// `CARGA_TLS_KEY`: the private key of the certificate (PEM).
    pub key: PathBuf,
}

impl TlsSettings {
    /// Reads both variables. One without the other is a fault: an API without TLS would send keys
    /// in the clear although its operator has a certificate.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let certificate = reader.optional(CERTIFICATE, None);
        let key = reader.optional(KEY, None);
        let (set, missing) = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                return Some(Self {
                    certificate: certificate.into(),
                    key: key.into(),
                });
            }
            (None, None) => return None,
            (Some(_), None) => (CERTIFICATE, KEY),
            (None, Some(_)) => (KEY, CERTIFICATE),
        };
        reader.fault(format!(
            "{missing} is not set, and {set} is; TLS needs both, so set both or neither"
        ));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Mode, Settings, SettingsError};

    fn read(variables: &[(&str, &str)]) -> Result<Option<TlsSettings>, SettingsError> {
        let settings = Settings::read(Mode::Embedded, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        settings.map(|settings| settings.intake.tls)
    }

    #[test]
    fn a_certificate_and_a_key_are_set_together_or_not_at_all() {
        let (certificate, key) = ((CERTIFICATE, "/etc/cert.pem"), (KEY, "/etc/key.pem"));
        let both = TlsSettings {
            certificate: "/etc/cert.pem".into(),
            key: "/etc/key.pem".into(),
        };
        assert_eq!(read(&[certificate, key]).unwrap(), Some(both));
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[(CERTIFICATE, ""), (KEY, "")]).unwrap(), None);
        for (given, missing) in [(certificate, KEY), (key, CERTIFICATE)] {
            let fault = read(&[given, (missing, "")]).unwrap_err().to_string();
            let expected = format!("{missing} is not set, and {} is", given.0);
            assert!(fault.contains(&expected), "{fault}");
        }
    }
}
