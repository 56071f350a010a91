//! The program itself as a process that can be killed, and guests that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use kbs_client::{Client, ClientError, Question, Session};
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::events::{Image, hash_str};
use protocols::golden::{self, Issue, PAYLOAD_TYPE};
use protocols::image::ImageMeasurement;
use protocols::keys::{KeyKind, SigningKey};
use protocols::tcl::{GoldenResource, RecordBytes};
use protocols::time::Timestamp;

use super::guest::{Guest, question};
use super::tpm::SoftTpm;
use super::{ADMIN, ISSUER, digest, image, issue, raw};

/// What every replica of one attestor shares.
pub(crate) struct Shared {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) tpm: SoftTpm,
    signer: SigningKey,
    /// A registry that has nothing: golden values are the attestor's own.
    registry: SocketAddr,
    key_pem: String,
    /// TOML of the store, after everything else.
    store: String,
}

impl Shared {
    pub(crate) async fn new(store: impl FnOnce(&std::path::Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let signing = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        std::fs::write(path("signing.pem"), signing.to_pem().unwrap().as_bytes()).unwrap();
        std::fs::write(path("admin.token"), format!("{ADMIN}\n")).unwrap();
        std::fs::write(path("store.key"), "5a".repeat(32)).unwrap();
        let store = store(directory.path());
        let signer = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap();
        // With a route-less router everything is 404.
        tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await.unwrap() });
        Self {
            tpm: SoftTpm::new(1),
            signer,
            registry,
            key_pem: signing.verifying_key().to_pem().unwrap(),
            store,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configuration(&self, listen: SocketAddr) -> String {
        let Self { directory, tpm, signer, registry, store, .. } = self;
        let directory = directory.path().display();
        format!(
            r#"
environment = "development"
listen = "{listen}"
store_key = {{ file = "{directory}/store.key" }}
signing_key = "{directory}/signing.pem"
challenge_seconds = 3600
token_seconds = 300
revocation_seconds = 0
admin_token = "{directory}/admin.token"
signers = [{{ issuer = "{ISSUER}", key = """{key}""", min_version = 1, revocations = "optional" }}]
registry = {{ plain_http = ["{registry}"] }}
policy = {{ registers = ["tpm-listed"] }}
tpm = {{ ak = [{{ key = """{ak}""", simulated = true }}] }}
reference = {{ values = {{ "tpm.pcr4" = ["{pcr4}"] }} }}
{store}
"#,
            key = signer.verifying_key().to_pem().unwrap(),
            ak = tpm.ak_pem(),
            pcr4 = tpm.pcrs[4].hex(),
        )
    }

    /// Starts a replica, and waits until it answers.
    pub(crate) async fn start(&self, listen: SocketAddr) -> Process {
        let config = self.path(&format!("broker-{}.toml", listen.port()));
        std::fs::write(&config, self.configuration(listen)).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_key-broker"));
        command.arg("--config").arg(&config).env("KEY_BROKER_LOG", "warn").stderr(log);
        let mut process = Process(command.spawn().unwrap());
        for _ in 0..1000 {
            if tokio::net::TcpStream::connect(listen).await.is_ok() {
                return process;
            }
            assert!(process.0.try_wait().unwrap().is_none(), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not listen: {}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Gives the attestor a golden value of its own for the image.
    pub(crate) async fn put_golden(&self, replica: SocketAddr) {
        let now = Timestamp::now();
        let issue = Issue { issued_at: Timestamp(now.0 - 1000), expires: now.plus(1_000_000), ..issue(1) };
        let payload = golden::statement(&image(), issue).payload().unwrap();
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload, &self.signer).to_bytes();
        let resource = GoldenResource { envelopes: vec![RecordBytes(envelope)], revocations: None };
        let body = serde_json::to_vec(&resource).unwrap();
        let path = format!("/kbs/v0/resource/{}", GoldenResource::path(&image().manifest));
        let admin = format!("Bearer {ADMIN}");
        let (status, body) = raw(replica, "POST", &path, &[("authorization", &admin)], body).await;
        assert_eq!(status, 200, "{body}");
    }

    pub(crate) fn client(&self, url: &str) -> Client {
        super::client(url, &self.key_pem, Environment::Development)
    }

    fn reference(&self) -> String {
        format!("{}/app:latest", self.registry)
    }

    /// Logs the image as launch 1.
    pub(crate) fn push_image(&self, guest: &mut Guest, good: bool) {
        let ImageMeasurement { manifest, config, rootfs, .. } = image_of(good);
        guest.push(Image { seq: 1, ref_h: hash_str(&self.reference()), manifest, config, rootfs });
    }

    /// The decision on that launch: its name, and `pass` or the code.
    pub(crate) async fn decided(
        &self,
        guest: &Guest,
        session: &Session,
        good: bool,
    ) -> Result<(String, &'static str), ClientError> {
        let question = Question { reference: self.reference(), ..question(1, &image_of(good)) };
        let verdict = session.decide(&question, &guest.receipts).await?;
        let code = verdict.refusal().map_or("pass", |refusal| refusal.code.as_str());
        Ok((verdict.id().unwrap().to_owned(), code))
    }

    /// Guest number so many: each has a boot of its own.
    pub(crate) fn guest(&self, number: u32) -> Guest {
        let tpm = SoftTpm { reset_count: number, ..self.tpm.clone() };
        Guest::boot(&tpm, 1)
    }
}

/// A running replica, killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// SIGKILL, at once.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A free port of the loopback address, most likely still free in a moment.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An image that the golden value is for, or one that it is not for.
pub(crate) fn image_of(good: bool) -> ImageMeasurement {
    if good { image() } else { ImageMeasurement { config: digest("another config"), ..image() } }
}

/// What the decision must be.
pub(crate) const fn right(good: bool) -> &'static str {
    if good { "pass" } else { "image.config" }
}
