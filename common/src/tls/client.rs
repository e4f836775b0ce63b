//! Connections to a server of Carga on this machine.
//!
//! The certificate names the public host of the server, and commands connect to an address of this
//! machine. So they compare the whole certificate with the file instead of the name.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

use super::TlsError;
use super::certificate::certificates;

/// Connects to a server that has the first certificate in this file, and the key for it. Without a
/// file, the server may have any certificate; a request must then have no secret.
pub(crate) async fn connect(
    address: SocketAddr,
    certificate: Option<&Path>,
) -> io::Result<TlsStream<TcpStream>> {
    let expected = match certificate {
        Some(file) => certificates(file)?.into_iter().next(),
        None => None,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(OneCertificate {
        expected,
        algorithms: provider.signature_verification_algorithms,
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.map_err(explained)
}

const OTHER_CERTIFICATE: Error =
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// The error of a handshake. The library's text for another certificate does not say what to do.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause == Some(&OTHER_CERTIFICATE) {
        true => TlsError::OtherCertificate.into(),
        false => error,
    }
}

/// Accepts one certificate, or any if none is expected. In both cases the server must have its key.
#[derive(Debug)]
struct OneCertificate {
    expected: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.expected {
            Some(expected) if expected.as_ref() != end_entity.as_ref() => Err(OTHER_CERTIFICATE),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
