//! Reads the certificate and its key.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};

use super::TlsError;
use crate::settings::TlsSettings;

const CERTIFICATE: &str = "CARGA_TLS_CERT";
const KEY: &str = "CARGA_TLS_KEY";

/// The largest file. A chain has a few certificates of a few KiB each.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The certificate with its chain and its key, which belong together.
pub(super) fn load(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let TlsSettings { certificate, key } = settings;
    let chain = certificates(certificate)?;
    let pem = read(KEY, key)?;
    if is_open_to_others(key) {
        tracing::warn!(
            file = %key.display(),
            "every user of this machine can read the key in CARGA_TLS_KEY; run `chmod o-r` on the file"
        );
    }
    let private_key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        TlsError::unfit(
            KEY,
            key,
            match error {
                pem::Error::NoItemsFound => {
                    "the file has no private key in PEM; a key with a passphrase is not supported"
                }
                // The error may quote a part of the file.
                _ => "the file is not valid PEM",
            },
        )
    })?;
    CertifiedKey::from_der(chain, private_key, provider).map_err(|error| {
        let (certificate, key) = (certificate.clone(), key.clone());
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { certificate, key }
            }
            error => TlsError::Unusable {
                certificate,
                key,
                source: error.into(),
            },
        }
    })
}

/// The certificates of a file, in their order: at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(CERTIFICATE, file)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::unfit(
            CERTIFICATE,
            file,
            "the file has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)",
        )),
        Err(_) => Err(TlsError::unfit(
            CERTIFICATE,
            file,
            "the file is not valid PEM",
        )),
    }
}

fn read(variable: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = read_at_most(file, MAX_FILE_BYTES).map_err(|source| TlsError::Unreadable {
        variable,
        file: file.to_owned(),
        source,
    })?;
    bytes.ok_or_else(|| {
        let fault = format!("the file has more than {MAX_FILE_BYTES} bytes, the most allowed");
        TlsError::unfit(variable, file, fault)
    })
}

/// Whether users other than the owner and the group of a file may read it.
fn is_open_to_others(file: &Path) -> bool {
    const READ_BY_OTHERS: u32 = 0o004;
    let metadata = file.metadata();
    metadata.is_ok_and(|metadata| metadata.mode() & READ_BY_OTHERS != 0)
}

/// The content of a file, or `None` if it is longer.
fn read_at_most(file: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use carga_testkit::Authority;
    use tokio_rustls::rustls::crypto::aws_lc_rs;

    use super::*;

    /// The reason why these files cannot be used, or nothing if they can.
    fn fault(certificate: PathBuf, key: PathBuf) -> String {
        let settings = TlsSettings { certificate, key };
        match load(&settings, &aws_lc_rs::default_provider()) {
            Ok(_) => String::new(),
            Err(error) => error.chain(),
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_with_their_setting_and_the_reason() {
        let authority = Authority::new().unwrap();
        let (certificate, key) = (authority.server_certificate(), authority.server_key());
        assert_eq!(fault(certificate.clone(), key.clone()), "");

        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.pem");
        let large = directory.path().join("large.pem");
        fs::write(&large, vec![b'x'; MAX_FILE_BYTES as usize + 1]).unwrap();
        let cut = directory.path().join("cut.pem");
        fs::write(&cut, &fs::read(&key).unwrap()[..200]).unwrap();
        for (certificate, key, expected) in [
            (&missing, &key, "CARGA_TLS_CERT=.*cannot read the file: No"),
            (&large, &key, "CARGA_TLS_CERT=.*more than 1048576 bytes"),
            (&key, &key, "CARGA_TLS_CERT=.*no certificate in PEM"),
            (&cut, &key, "CARGA_TLS_CERT=.*not valid PEM"),
            (&certificate, &missing, "CARGA_TLS_KEY=.*cannot read"),
            (&certificate, &certificate, "CARGA_TLS_KEY=.*passphrase"),
            (&certificate, &cut, "CARGA_TLS_KEY=.*not valid PEM"),
        ] {
            let fault = fault(certificate.clone(), key.clone());
            let (start, end) = expected.split_once(".*").unwrap();
            assert!(fault.starts_with(start) && fault.contains(end), "{fault}");
        }
    }

    #[test]
    fn a_key_that_every_user_can_read_is_open_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        fs::write(&file, "").unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&file), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (Authority::new().unwrap(), Authority::new().unwrap());
        let fault = fault(one.server_certificate(), other.server_key());
        for expected in ["does not belong", "CARGA_TLS_CERT", "CARGA_TLS_KEY"] {
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
