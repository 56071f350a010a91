//! A registry behind TLS, and what stands between it and those who may not reach it directly.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::command::tool;
use crate::process::{Service, address, program};
use crate::registry::Registry;

/// A registry with the images of another, over TLS under a root that nobody knows.
#[derive(Debug)]
pub struct TlsRegistry {
    /// `127.0.0.1:port`.
    pub address: String,
    /// The root's certificate, PEM.
    pub root: PathBuf,
    _service: Service,
}

impl TlsRegistry {
    /// Starts one beside `plain`, with its files in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, plain: &Registry) -> Self {
        let Certificate { root, key, chain } = certificate(folder, "IP:127.0.0.1");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: \"{}\"}}\nhttp:\n  addr: \"127.0.0.1:0\"\n  tls: {{certificate: \"{}\", key: \"{}\"}}\n",
            plain.storage().display(),
            chain.display(),
            key.display()
        );
        fs::write(folder.join("registry.yml"), config).unwrap();
        let mut command = Command::new(program("docker-registry"));
        command.arg("serve").arg(folder.join("registry.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let mut service = Service::start("docker-registry", &command, &folder.join("registry.log"));
        let address = service.wait_for(|log| address(log, "listening on "));
        Self { address, root, _service: service }
    }
}

/// A server's certificate under a root of its own.
#[derive(Debug)]
pub struct Certificate {
    /// The root's certificate, PEM.
    pub root: PathBuf,
    /// The server's key, PEM.
    pub key: PathBuf,
    /// The server's certificate, PEM.
    pub chain: PathBuf,
}

/// Makes one for this `subjectAltName`, in `folder`.
///
/// # Panics
/// When openssl fails.
#[must_use]
pub fn certificate(folder: &Path, name: &str) -> Certificate {
    fs::create_dir_all(folder).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let (root, root_key, key, request, chain) =
        (at("root.pem"), at("root.key"), at("server.key"), at("server.csr"), at("server.pem"));
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &[&str]| _ = tool("openssl", arguments).ok();
    openssl(
        &[&["req", "-x509", "-subj", "/CN=root", "-days", "2", "-keyout", &root_key, "-out", &root], &new[..]].concat(),
    );
    openssl(&[&["req", "-subj", "/CN=server", "-keyout", &key, "-out", &request], &new[..]].concat());
    let extensions = at("extensions");
    fs::write(&extensions, format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n")).unwrap();
    let signed = ["x509", "-req", "-in", &request, "-CA", &root, "-CAkey", &root_key, "-CAcreateserial", "-days", "2"];
    openssl(&[&signed[..], &["-extfile", &extensions, "-out", &chain]].concat());
    Certificate { root: root.into(), key: key.into(), chain: chain.into() }
}

/// A proxy for HTTP's CONNECT, which remembers whom it was asked for.
#[derive(Debug)]
pub struct Tunnel {
    /// `http://127.0.0.1:port`.
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// Starts one; its threads end with the process.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || _ = tunnel(stream, &heard));
            }
        });
        Self { url, asked }
    }

    /// The `host:port`s it was asked for, in order.
    ///
    /// # Panics
    /// When one of its threads did.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(target) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
    };
    heard.lock().unwrap().push(target.to_owned());
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}
