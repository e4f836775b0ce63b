//! TLS with a private certificate authority, as companies have their own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::home::Home;
use crate::server::free_port;

/// The settings of OpenSSL, written out so that those of the machine do not matter.
const SETTINGS: &str = "\
[req]
distinguished_name = name
prompt = no
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// A certificate authority that no system trusts, and its certificate for servers on this machine.
/// Dropping the handle removes the files, so it must outlive the servers that use them.
#[derive(Debug)]
pub struct Authority {
    home: Home,
}

impl Authority {
    /// Makes the authority's certificate and the one for servers.
    pub fn new() -> Result<Self> {
        let authority = Self {
            home: Home::private("tls")?,
        };
        fs::write(authority.file("openssl.cnf"), SETTINGS)?;
        // Each authority has a name of its own: a client that trusts another one must not find it.
        let name = format!("/CN=Carga test authority {}", uuid::Uuid::new_v4());
        authority.issue("ca", &["-subj", &name])?;
        authority.issue(
            "server",
            &[
                "-extensions",
                "server",
                "-subj",
                "/CN=localhost",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
            ],
        )?;
        Ok(authority)
    }

    /// The authority's own certificate, which clients have to trust.
    pub fn certificate(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The certificate for servers.
    pub fn server_certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The key of the certificate for servers.
    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn issue(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-config", "openssl.cnf", "-days", "2"])
            .args(["-newkey", "rsa:2048", "-nodes"])
            .args(["-keyout", &format!("{name}.key")])
            .args(["-out", &format!("{name}.pem")])
            .args(arguments)
            .current_dir(self.home.path())
            .output()
            .context("cannot run openssl; install the package openssl")?;
        ensure!(
            output.status.success(),
            "openssl made no certificate: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn server_config(&self) -> Result<ServerConfig> {
        let certificates = CertificateDer::pem_file_iter(self.server_certificate())?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.server_key())?;
        // The provider is named, because a test may have no default provider yet.
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?)
    }

    fn client_config(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate())?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

/// Accepts TLS, and forwards the bytes to a server of this machine that has no TLS. Dropping the
/// handle closes every connection.
#[derive(Debug)]
pub struct TlsProxy {
    port: u16,
    accepting: JoinHandle<()>,
}

impl TlsProxy {
    /// Starts a proxy in front of `server_port`.
    pub async fn start(authority: &Authority, server_port: u16) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config()?));
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let acceptor = acceptor.clone();
                // An error means that the client or the server has closed the connection, or that
                // the client does not trust the authority.
                connections.spawn(async move { forward(acceptor, client, server_port).await.ok() });
            }
        });
        Ok(Self { port, accepting })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    acceptor: TlsAcceptor,
    client: TcpStream,
    server_port: u16,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Accepts connections without TLS, and forwards the bytes with TLS to a server of this machine
/// that has a certificate of the authority. So a client without TLS can reach it. Dropping the
/// handle closes every connection.
#[derive(Debug)]
pub struct TlsTunnel {
    port: u16,
    accepting: JoinHandle<()>,
}

impl TlsTunnel {
    /// Starts a tunnel to the server on `server_port`.
    pub async fn start(authority: &Authority, server_port: u16) -> Result<Self> {
        let connector = TlsConnector::from(Arc::new(authority.client_config()?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let connector = connector.clone();
                // After an error, the client sees a closed connection.
                connections
                    .spawn(async move { encrypt(connector, client, server_port).await.ok() });
            }
        });
        Ok(Self { port, accepting })
    }

    /// The URL of the server as a client without TLS reaches it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for TlsTunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn encrypt(
    connector: TlsConnector,
    mut client: TcpStream,
    server_port: u16,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    server.set_nodelay(true)?;
    let name = ServerName::IpAddress(std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into());
    let mut server = connector.connect(name, server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
