//! The server behind its own TLS: versions, certificates renewed under connections, clients' certificates, stalled peers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use support::{NOW, World, raw};

/// Roots and what they vouch for, in a folder.
struct Pki(PathBuf);

impl Pki {
    /// A root, another root, and a server's certificate by the first.
    fn new(folder: &Path) -> Self {
        let pki = Self(folder.to_owned());
        for root in ["root", "other"] {
            pki.openssl(&format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {root}.key -out {root}.pem -days 2 -subj /CN={root}"));
        }
        pki.issue("server", "root", "subjectAltName=IP:127.0.0.1");
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.0).output().unwrap();
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn issue(&self, name: &str, root: &str, extensions: &str) {
        std::fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!("x509 -req -in {name}.csr -CA {root}.pem -CAkey {root}.key -CAcreateserial -days 1 -extfile extensions -out {name}.pem"));
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()
    }

    /// A client that trusts `root`, speaks one version, and shows the certificate `own`.
    fn client(&self, root: &str, version: &'static SupportedProtocolVersion, own: Option<&str>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate(root)).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![self.certificate(name)], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// An attestor behind TLS, with `more` in its configuration.
async fn world(more: &str) -> (World, Pki) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::new(directory.path());
    let folder = directory.path().display().to_string();
    let text = format!("[tls]\ncertificate = \"{folder}/server.pem\"\nkey = \"{folder}/server.key\"\n{more}")
        .replace("FOLDER", &folder);
    (World::edited(directory, "development", |before| format!("{before}\n{text}")).await, pki)
}

async fn connect(world: &World, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(world.address).await?;
    client.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

/// GET on a connection that is kept; gives the answer's first line.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await?;
    if read == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer[..read]).lines().next().unwrap().to_owned())
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn both_versions_serve_http_1_1_and_nothing_is_served_without_tls() {
    let (world, pki) = world("").await;
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(&world, &pki.client("root", version, None)).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(get(&mut stream, "/healthz").await.unwrap(), "HTTP/1.1 200 OK");
        assert!(connect(&world, &pki.client("other", version, None)).await.is_err());
    }
    let (status, body) = raw(world.address, "GET", "/healthz", &[], vec![]).await;
    assert_eq!((status, body.as_str()), (0, ""));
    let mut stream = connect(&world, &pki.client("root", &TLS13, None)).await.unwrap();
    assert_eq!(get(&mut stream, "/healthz").await.unwrap(), "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_to_none() {
    let (world, pki) = world("").await;
    let client = || pki.client("root", &TLS13, None);
    let mut kept = connect(&world, &client()).await.unwrap();
    let first = shown(&kept);
    assert!(!world.tls().refresh().unwrap(), "nothing new");

    pki.issue("server", "root", "subjectAltName=IP:127.0.0.1");
    assert!(world.tls().refresh().unwrap());
    let second = shown(&connect(&world, &client()).await.unwrap());
    assert_eq!(second, pki.certificate("server"));
    assert_ne!(second, first);
    assert_eq!(get(&mut kept, "/healthz").await.unwrap(), "HTTP/1.1 200 OK", "who is there stays");

    // Another key, a cut file, no file: by themselves and at a reload, what was shown stays.
    let files = ["server.pem", "server.key"].map(|name| (pki.path(name), std::fs::read(pki.path(name)).unwrap()));
    for (path, good) in &files {
        for broken in [&b""[..], &good[..good.len() / 2], &std::fs::read(pki.path("other.key")).unwrap()] {
            std::fs::write(path, broken).unwrap();
            assert!(world.tls().refresh().is_err());
            assert!(world.reload().await.unwrap_err().contains("tls"));
            assert_eq!(shown(&connect(&world, &client()).await.unwrap()), second);
        }
        std::fs::remove_file(path).unwrap();
        assert!(world.tls().refresh().is_err());
        std::fs::write(path, good).unwrap();
    }
    pki.issue("server", "root", "subjectAltName=IP:127.0.0.1");
    world.reload().await.unwrap();
    assert_eq!(shown(&connect(&world, &client()).await.unwrap()), pki.certificate("server"));

    world.edit(|text| text.split("[tls]").next().unwrap().to_owned());
    assert!(world.reload().await.unwrap_err().contains("tls"), "needs a restart");
}

#[tokio::test]
async fn a_listed_certificate_administers_and_no_other_connects() {
    let (world, pki) = world(
        "[[admin.certificate]]\nname = \"operations\"\nroot = \"FOLDER/root.pem\"\nsan = \"uri:spiffe://example/ops\"\n\
         roles = [\"audit\"]\n",
    )
    .await;
    // By the attestor's clock, which stands still, no certificate may be from the future.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    world.pass(now + 60 - NOW);
    pki.issue("listed", "root", "subjectAltName=URI:spiffe://example/ops");
    pki.issue("unlisted", "root", "subjectAltName=URI:spiffe://example/other");
    pki.issue("foreign", "other", "subjectAltName=URI:spiffe://example/ops");
    for version in [&TLS12, &TLS13] {
        for (own, status) in [(Some("listed"), "404"), (Some("unlisted"), "403"), (None, "403")] {
            let mut stream = connect(&world, &pki.client("root", version, own)).await.unwrap();
            let answer = get(&mut stream, "/tcl/v1/verdicts/none").await.unwrap();
            assert!(answer.contains(status), "{own:?}: {answer}");
            assert_eq!(get(&mut stream, "/healthz").await.unwrap(), "HTTP/1.1 200 OK");
        }
        // In TLS 1.3 the client learns of the refusal when it reads.
        let foreign = async {
            let mut stream = connect(&world, &pki.client("root", version, Some("foreign"))).await?;
            get(&mut stream, "/healthz").await
        };
        assert!(foreign.await.is_err());
    }
}

/// The clock jumps whenever everything waits, so that waiting costs no time.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_in_the_handshake_is_cut_off() {
    let (world, _pki) = world("").await;
    for begun in [&b""[..], &[0x16, 3, 1, 1, 0]] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(11), stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn connections_that_are_idle_or_in_a_handshake_end_with_the_server() {
    let (mut world, pki) = world("").await;
    let mut idle = connect(&world, &pki.client("root", &TLS13, None)).await.unwrap();
    assert_eq!(get(&mut idle, "/healthz").await.unwrap(), "HTTP/1.1 200 OK");
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::timeout(Duration::from_secs(5), world.stop()).await.unwrap();
    // Ended by TLS's own word, not cut.
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap(), 0);
    assert!(TcpStream::connect(world.address).await.is_err());
}
