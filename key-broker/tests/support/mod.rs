//! A whole world around one attestor: software TPMs, guests with their logs, a registry in memory, a clock.
//!
//! Nothing is mocked that is checked: quotes are signed, records encoded, golden values signed, answers verified.

#![allow(dead_code)] // shared by several tests, none of which needs all of it
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

pub(crate) mod guest;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod replica;
pub(crate) mod round_robin;
pub(crate) mod stock;
pub(crate) mod tpm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_store::Store;
use kbs_client::{Attestor, AttestorConfig, Client};
use key_broker::broker::Broker;
use key_broker::config::{Config, public_key_pem};
use key_broker::http::router;
use key_broker::server::{Listener, serve};
use key_broker::tls::Tls;
use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::golden::{
    self, Issue, PAYLOAD_TYPE, REVOCATION_PREDICATE_TYPE, RevocationList, STATEMENT_TYPE, Statement,
};
use protocols::image::{ImageMeasurement, ImageProcess, Layout, Platform, RootfsMeasurement};
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use registry::MemoryRegistry;
use tpm::SoftTpm;

pub(crate) const ISSUER: &str = "release@example.com";
pub(crate) const SERIES: &str = "registry.example/app linux/amd64 latest";
pub(crate) const REFERENCE: &str = "registry.example/app:latest";
pub(crate) const ADMIN: &str = "an-administrators-token-of-enough-length";
pub(crate) const NOW: u64 = 1_750_000_000;

/// The attestor, its files, and everything it can reach.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) tpm: SoftTpm,
    pub(crate) registry: Arc<MemoryRegistry>,
    pub(crate) signer: SigningKey,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) key_pem: String,
    pub(crate) address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    store: Arc<dyn Store>,
    broker: Arc<Broker>,
    tls: Option<Arc<Tls>>,
}

impl World {
    /// A development attestor with one enrolled software TPM.
    pub(crate) async fn new() -> Self {
        Self::of("development").await
    }

    /// An attestor of `environment`.
    pub(crate) async fn of(environment: &str) -> Self {
        Self::edited(tempfile::tempdir().unwrap(), environment, |text| text).await
    }

    /// An attestor in `directory` with `edit` made to its configuration.
    pub(crate) async fn edited(
        directory: tempfile::TempDir,
        environment: &str,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let path = |name: &str| directory.path().join(name);
        let signing = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        std::fs::write(path("signing.pem"), signing.to_pem().unwrap().as_bytes()).unwrap();
        std::fs::write(path("admin.token"), format!("{ADMIN}\n")).unwrap();
        std::fs::write(path("store.key"), "5a".repeat(32)).unwrap();
        let signer = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let tpm = SoftTpm::new(1);
        let simulated = environment == "development";
        // A simulated platform is graded a warning: whoever wants its secrets released says so.
        let release = if simulated { "[release]\nstatus = [\"affirming\", \"warning\"]\n" } else { "" };
        let text = format!(
            r#"
environment = "{environment}"
listen = "127.0.0.1:0"
store = "{directory}/broker.redb"
store_key = {{ file = "{directory}/store.key" }}
signing_key = "{directory}/signing.pem"
challenge_seconds = 120
token_seconds = 300
revocation_seconds = 0
admin_token = "{directory}/admin.token"

[[signers]]
issuer = "{ISSUER}"
key = """{signer}"""
min_version = 1
revocations = "optional"

[policy]
registers = ["tpm-listed"]

[[tpm.ak]]
key = """{ak}"""
simulated = {simulated}

[reference.values]
"tpm.pcr4" = ["{pcr4}"]

{release}"#,
            directory = directory.path().display(),
            signer = signer.verifying_key().to_pem().unwrap(),
            ak = tpm.ak_pem(),
            pcr4 = tpm.pcrs[4].hex(),
        );
        std::fs::write(path("broker.toml"), edit(text)).unwrap();
        let mut world = Self {
            directory,
            tpm,
            registry: Arc::new(MemoryRegistry::default()),
            signer,
            clock: Arc::new(AtomicU64::new(NOW)),
            key_pem: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: None,
        };
        Box::pin(world.start()).await;
        world
    }

    /// Starts the attestor anew, as after a restart of the machine: only its files are left.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Ends the attestor; its files are left.
    pub(crate) async fn stop(&mut self) {
        let Running { stop, served, .. } = self.running.take().unwrap();
        stop.send(()).unwrap();
        served.await.unwrap();
    }

    /// Reads the files again, as on SIGHUP; the text of what is wrong with them, if anything is.
    pub(crate) async fn reload(&self) -> Result<Sha256Digest, String> {
        let path = self.directory.path().join("broker.toml");
        let settings = Config::read(&path).and_then(Config::settings).map_err(|error| error.to_string())?;
        let (running, identity) = (self.running.as_ref().unwrap(), settings.tls.clone());
        let policy = running.broker.reload(settings).await.map_err(|error| error.to_string())?;
        if let (Some(tls), Some(identity)) = (&running.tls, identity) {
            tls.put(identity);
        }
        Ok(policy)
    }

    /// Changes the configuration's file.
    pub(crate) fn edit(&self, edit: impl FnOnce(String) -> String) {
        let path = self.directory.path().join("broker.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, edit(text)).unwrap();
    }

    /// Starts the attestor that was stopped.
    pub(crate) async fn begin(&mut self) {
        self.start().await;
    }

    /// Why an attestor that was stopped does not start.
    pub(crate) async fn try_begin(&mut self) -> Result<(), String> {
        self.try_start().await
    }

    async fn start(&mut self) {
        self.try_start().await.unwrap();
    }

    async fn try_start(&mut self) -> Result<(), String> {
        let settings = Config::read(&self.directory.path().join("broker.toml")).unwrap().settings().unwrap();
        self.key_pem = public_key_pem(&settings.signing).unwrap();
        let store = settings.store.open().await.unwrap();
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let tls = settings.tls.clone().map(|identity| Arc::new(Tls::new(identity)));
        self.address = listener.local_addr().unwrap();
        let clock = Arc::clone(&self.clock);
        let now = Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)));
        let broker = Broker::new(settings, Arc::clone(&store), Arc::clone(&self.registry) as _, now);
        let broker = Arc::new(Box::pin(broker).await.map_err(|error| error.to_string())?);
        let (stop, stopped) = oneshot::channel();
        let listener = Listener::from(listener).tls(tls.clone());
        let served = tokio::spawn(serve(listener, router(Arc::clone(&broker)), async move {
            let _ = stopped.await;
        }));
        self.running = Some(Running { stop, served, store, broker, tls });
        Ok(())
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.running.as_ref().unwrap().broker
    }

    pub(crate) fn tls(&self) -> &Tls {
        self.running.as_ref().unwrap().tls.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.running.as_ref().unwrap().store)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that pins this attestor's key.
    pub(crate) fn client(&self) -> Client {
        self.client_pinning(&self.key_pem, Environment::Development)
    }

    pub(crate) fn client_pinning(&self, key: &str, environment: Environment) -> Client {
        client(&self.url(), key, environment)
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Signs a golden value of `version` for `image` and stores it in the registry.
    pub(crate) async fn push_golden(&self, image: &ImageMeasurement, version: u64) {
        self.push(image, self.envelope(image, issue(version))).await;
    }

    pub(crate) fn envelope(&self, image: &ImageMeasurement, issue: Issue) -> Vec<u8> {
        Envelope::sign(PAYLOAD_TYPE, golden::statement(image, issue).payload().unwrap(), &self.signer).to_bytes()
    }

    pub(crate) async fn push(&self, image: &ImageMeasurement, envelope: Vec<u8>) {
        self.registry.push_golden(REFERENCE, image.manifest, &envelope).await;
    }

    /// A raw request, for what no client of ours would send.
    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
        raw(self.address, method, path, headers, body).await
    }
}

pub(crate) fn client(url: &str, key: &str, environment: Environment) -> Client {
    let config = AttestorConfig::Tcl {
        url: url.into(),
        key: key.into(),
        timeout_seconds: Some(10),
        root: None,
        root_digest: None,
        server_keys: None,
    };
    Client::new(Attestor::new(&config, environment).unwrap()).unwrap()
}

/// One request over a connection of its own; gives status and body.
pub(crate) async fn raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, String) {
    let (head, body) = exchange(address, method, path, headers, body).await;
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body)
}

/// The same; gives head and body.
pub(crate) async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

pub(crate) fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

pub(crate) fn image() -> ImageMeasurement {
    ImageMeasurement {
        manifest: digest("manifest"),
        config: digest("config"),
        layers: vec![digest("layer 0")],
        rootfs: RootfsMeasurement { layout: Layout::TreeV1, digest: digest("rootfs") },
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
        process: ImageProcess {
            args: vec!["/app".into()],
            env: vec!["PATH=/bin".into()],
            user: String::new(),
            cwd: "/".into(),
        },
    }
}

/// A revocation list of the issuer's, signed.
pub(crate) fn revocations(version: u64, revoked: Vec<Sha256Digest>, signer: &SigningKey) -> Vec<u8> {
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![],
        predicate_type: REVOCATION_PREDICATE_TYPE.to_owned(),
        predicate: RevocationList {
            issuer: ISSUER.to_owned(),
            version,
            issued_at: Timestamp(NOW),
            expires: Timestamp(NOW + 1_000_000),
            revoked,
        },
    };
    Envelope::sign(PAYLOAD_TYPE, statement.payload().unwrap(), signer).to_bytes()
}

pub(crate) fn issue(version: u64) -> Issue {
    Issue {
        name: "registry.example/app".into(),
        issuer: ISSUER.into(),
        series: SERIES.into(),
        version,
        issued_at: Timestamp(NOW - 1000),
        expires: Timestamp(NOW + 1_000_000),
        environment: Environment::Development,
        process: None,
    }
}
