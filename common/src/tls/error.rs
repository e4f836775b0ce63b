//! Why TLS cannot be used.

use std::error::Error as StdError;
use std::io;
#[cfg(feature = "tls")]
use std::path::Path;
use std::path::PathBuf;

/// The cause of an error, as the library for TLS reports it.
type Cause = Box<dyn StdError + Send + Sync>;

/// Why the API cannot encrypt its port, or why a command cannot connect to it. No message has a
/// part of the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The program was built without TLS.
    #[error(
        "this build has no TLS (CARGA_TLS_CERT, CARGA_TLS_KEY); rebuild with --features servers"
    )]
    NotBuilt,
    /// A file cannot be read.
    #[error("{variable}={}: cannot read the file", .file.display())]
    Unreadable {
        /// The setting that names the file.
        variable: &'static str,
        /// The file.
        file: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The content of a file is not what its setting needs.
    #[error("{variable}={}: {fault}", .file.display())]
    Unfit {
        /// The setting that names the file.
        variable: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong, and what the file must have.
        fault: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "the key in {} (CARGA_TLS_KEY) does not belong to the first certificate in {} (CARGA_TLS_CERT)",
        .key.display(),
        .certificate.display()
    )]
    Mismatch {
        /// `CARGA_TLS_CERT`
        certificate: PathBuf,
        /// `CARGA_TLS_KEY`
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that is not supported.
    #[error(
        "the certificate in {} (CARGA_TLS_CERT) and the key in {} (CARGA_TLS_KEY) cannot be used",
        .certificate.display(),
        .key.display()
    )]
    Unusable {
        /// `CARGA_TLS_CERT`
        certificate: PathBuf,
        /// `CARGA_TLS_KEY`
        key: PathBuf,
        /// The reason.
        source: Cause,
    },
    /// The server has another certificate than the command expects.
    #[error(
        "the server's certificate is not the certificate in CARGA_TLS_CERT; if the file is newer than the server, send SIGHUP to the server"
    )]
    OtherCertificate,
    /// The protocol cannot be set up.
    #[error("cannot set up TLS")]
    Setup(#[source] Cause),
    /// The handler of the signal that reloads the certificate cannot be installed.
    #[error("cannot install the handler of SIGHUP")]
    Signal(#[source] io::Error),
}

impl TlsError {
    /// The error with all its causes on one line, for a log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    #[cfg(feature = "tls")]
    pub(super) fn unfit(variable: &'static str, file: &Path, fault: impl Into<String>) -> Self {
        Self::Unfit {
            variable,
            file: file.to_owned(),
            fault: fault.into(),
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}
