use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use carga_testkit::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use super::super::connect;
use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// The files of a server's certificate, which a test can replace.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn of(authority: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Self { directory };
        files.replace(authority);
        files
    }

    fn replace(&self, authority: &Authority) {
        let TlsSettings { certificate, key } = self.settings();
        fs::copy(authority.server_certificate(), certificate).unwrap();
        fs::copy(authority.server_key(), key).unwrap();
    }

    fn settings(&self) -> TlsSettings {
        TlsSettings {
            certificate: self.directory.path().join("cert.pem"),
            key: self.directory.path().join("key.pem"),
        }
    }
}

/// A server that answers each client with `ok` and ends the connection.
async fn start(tls: &TlsServer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = tls.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = tls.accept(stream, LIMIT).await {
                let _ = stream.write_all(b"ok").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

/// What a command of this machine reads, or why it does not connect.
async fn read(address: SocketAddr, certificate: Option<&Path>) -> String {
    let mut text = String::new();
    match connect(address, certificate).await {
        Ok(mut stream) => match stream.read_to_string(&mut text).await {
            Ok(_) => text,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

/// The protocol that a client with this version and these names of protocols gets.
async fn negotiated(
    address: SocketAddr,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> io::Result<(Option<ProtocolVersion>, Option<Vec<u8>>)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.certificate()).unwrap();
    roots.add(root).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier: Arc<dyn ServerCertVerifier> = verifier.build().unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    assert_eq!(text, "ok");
    let (_, session) = stream.get_ref();
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    Ok((session.protocol_version(), protocol))
}

#[tokio::test]
async fn clients_get_tls_1_2_or_1_3_and_only_http_1_1() {
    let authority = Authority::new().unwrap();
    let tls = TlsServer::load(&Files::of(&authority).settings()).unwrap();
    let address = start(&tls).await;
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let both = negotiated(address, &authority, version, &["h2", "http/1.1"]).await;
        let expected = (Some(expected), Some(b"http/1.1".to_vec()));
        assert_eq!(both.unwrap(), expected);
        let none = negotiated(address, &authority, version, &[]).await;
        assert_eq!(none.unwrap().1, None);
        let other = negotiated(address, &authority, version, &["h2"]).await;
        other.unwrap_err();
    }
}

#[tokio::test]
async fn a_command_accepts_only_the_certificate_in_its_file() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let tls = TlsServer::load(&Files::of(&authority).settings()).unwrap();
    let address = start(&tls).await;
    assert_eq!(
        read(address, Some(&authority.server_certificate())).await,
        "ok"
    );
    // A health check sends no secret.
    assert_eq!(read(address, None).await, "ok");
    let refused = read(address, Some(&other.server_certificate())).await;
    for expected in ["CARGA_TLS_CERT", "SIGHUP"] {
        assert!(refused.contains(expected), "{refused}");
    }
    // The authority's own certificate is not the server's.
    let refused = read(address, Some(&authority.certificate())).await;
    assert!(refused.contains("CARGA_TLS_CERT"), "{refused}");
}

#[tokio::test]
async fn new_connections_get_the_reloaded_certificate_and_open_ones_go_on() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let files = Files::of(&authority);
    let tls = TlsServer::load(&files.settings()).unwrap();
    let address = start(&tls).await;
    let mut open = connect(address, Some(&authority.server_certificate()))
        .await
        .unwrap();
    files.replace(&other);
    // The files alone change nothing.
    assert_eq!(
        read(address, Some(&authority.server_certificate())).await,
        "ok"
    );
    tls.current.reload();
    assert_eq!(read(address, Some(&other.server_certificate())).await, "ok");
    let mut text = String::new();
    open.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ok");
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_current_certificate() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let files = Files::of(&authority);
    let tls = TlsServer::load(&files.settings()).unwrap();
    let address = start(&tls).await;
    let TlsSettings { certificate, key } = files.settings();
    // A certificate without its key, a file without a certificate, and no file.
    fs::copy(other.server_certificate(), &certificate).unwrap();
    tls.current.reload();
    fs::write(&certificate, "nothing").unwrap();
    tls.current.reload();
    fs::remove_file(&key).unwrap();
    tls.current.reload();
    assert_eq!(
        read(address, Some(&authority.server_certificate())).await,
        "ok"
    );
}

#[tokio::test]
async fn a_client_without_a_handshake_is_given_up_after_the_limit() {
    let authority = Authority::new().unwrap();
    let tls = TlsServer::load(&Files::of(&authority).settings()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = tls.accept(stream, Duration::from_millis(50)).await;
    assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_handshake_waits_for_a_permit_and_not_longer_than_its_limit() {
    let authority = Authority::new().unwrap();
    let tls = TlsServer::load(&Files::of(&authority).settings()).unwrap();
    let all = u32::try_from(MAX_HANDSHAKES).unwrap();
    let running = tls.handshakes.acquire_many(all).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = authority.server_certificate();
    let client = |certificate: &Path| {
        let certificate = certificate.to_owned();
        tokio::spawn(async move { connect(address, Some(&certificate)).await.map(drop) })
    };
    let given_up = client(&certificate);
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = tls.accept(stream, Duration::from_millis(50)).await;
    assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::TimedOut);
    given_up.await.unwrap().unwrap_err();

    let waiting = client(&certificate);
    let (stream, _) = listener.accept().await.unwrap();
    let (accepted, ()) = tokio::join!(tls.accept(stream, LIMIT), async { drop(running) });
    accepted.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(tls.handshakes.available_permits(), MAX_HANDSHAKES);
}

/// Silent clients would otherwise keep all others out.
#[tokio::test]
async fn only_a_client_that_has_begun_its_handshake_holds_a_permit() {
    let authority = Authority::new().unwrap();
    let tls = TlsServer::load(&Files::of(&authority).settings()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut accepted = Box::pin(tls.accept(stream, LIMIT));
    assert!(futures::poll!(accepted.as_mut()).is_pending());
    assert_eq!(tls.handshakes.available_permits(), MAX_HANDSHAKES);
    // The first byte of a handshake.
    client.write_all(&[22]).await.unwrap();
    let one_less = async {
        while tls.handshakes.available_permits() == MAX_HANDSHAKES {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        accepted = accepted => panic!("{accepted:?}"),
        () = one_less => {}
    }
    assert_eq!(tls.handshakes.available_permits(), MAX_HANDSHAKES);
}

#[test]
fn the_key_is_never_shown() {
    let authority = Authority::new().unwrap();
    let shown = format!("{:?}", TlsServer::load(&Files::of(&authority).settings()));
    assert!(shown.contains("cert.pem"), "{shown}");
    assert!(!shown.contains("CertifiedKey"), "{shown}");
}
