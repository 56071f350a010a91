//! A client of the Kata service that says its requests as JSON, and a world whose agent is a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protobuf::reflect::MessageDescriptor;
use protocols::rpc::kata::{agent, health};
use serde_json::Value;
use toml::Table;
use ttrpc::r#async::Client;
use ttrpc::{Code, Request};

use crate::command::{run, tclctl};
use crate::process::program;
use crate::{Options, World};

/// How long a call that is not a long poll may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The process of the pause bundle.
const PAUSE_ARGS: [&str; 3] = ["/busybox", "sleep", "2147483647"];
const PAUSE_ENV: [&str; 1] = ["PATH=/"];

/// What a call that was not answered with a message was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The transport's code.
    pub code: Code,
    /// The text.
    pub text: String,
}

impl Failure {
    /// The reason code, which is the first word.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }
}

/// A connection to the service.
#[derive(Clone)]
pub struct Shim(Arc<Client>);

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shim")
    }
}

impl Shim {
    /// Connects to `unix://…`.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: &str) -> Self {
        Self(Arc::new(Client::connect(address).await.unwrap()))
    }

    /// Calls a method of the agent's service within [`DEADLINE`].
    ///
    /// # Errors
    /// The service's own answer.
    ///
    /// # Panics
    /// When the JSON is no request of the method.
    #[allow(clippy::needless_pass_by_value)] // tests write them in place
    pub async fn call(&self, method: &str, request: Value) -> Result<Value, Failure> {
        self.call_within(method, request, DEADLINE).await
    }

    /// As [`Shim::call`], without a deadline: a long poll.
    ///
    /// # Errors
    /// As [`Shim::call`].
    pub async fn poll(&self, method: &str, request: Value) -> Result<Value, Failure> {
        self.call_within(method, request, Duration::ZERO).await
    }

    #[allow(clippy::needless_pass_by_value)]
    async fn call_within(&self, method: &str, request: Value, deadline: Duration) -> Result<Value, Failure> {
        let answer = self.raw("grpc.AgentService", method, encode(method, &request), deadline).await?;
        let message = types(method).1.parse_from_bytes(&answer).unwrap();
        Ok(serde_json::from_str(&protobuf_json_mapping::print_to_string(&*message).unwrap()).unwrap())
    }

    /// Sends bytes as the message of a method, which may be none.
    ///
    /// # Errors
    /// The service's own answer.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn raw(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            timeout_nano: i64::try_from(deadline.as_nanos()).unwrap(),
            payload,
            ..Default::default()
        };
        match self.0.request(request).await {
            Ok(response) if response.status().code() == Code::OK => Ok(response.payload),
            Ok(response) => {
                let status = response.status();
                Err(Failure { code: status.code(), text: status.message().to_owned() })
            }
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err(Failure { code: status.code(), text: status.message().to_owned() })
            }
            Err(error) => panic!("{service}/{method}: {error}"),
        }
    }

    /// `Health.Check`.
    ///
    /// # Panics
    /// When the agent does not serve.
    pub async fn healthy(&self) {
        let answer = self.raw("grpc.Health", "Check", Vec::new(), DEADLINE).await.unwrap();
        let answer = <health::HealthCheckResponse as protobuf::Message>::parse_from_bytes(&answer).unwrap();
        assert_eq!(answer.status, health::health_check_response::ServingStatus::SERVING.into());
    }

    /// Reads a stream to its end; the process may be gone by then.
    ///
    /// # Panics
    /// When it answers anything but data and either form of the end.
    pub async fn read_all(&self, method: &str, container: &str, exec: &str) -> String {
        let mut all = Vec::new();
        loop {
            let request = serde_json::json!({ "container_id": container, "exec_id": exec, "len": 8192 });
            match self.poll(method, request).await {
                Ok(answer) => match bytes(&answer["data"]) {
                    data if data.is_empty() => break,
                    data => all.extend(data),
                },
                Err(failure) if failure.code == Code::NOT_FOUND => break,
                Err(failure) => panic!("{method}: {failure:?}"),
            }
        }
        String::from_utf8(all).unwrap()
    }
}

/// A request of a method, said as JSON, as it goes over the wire.
///
/// # Panics
/// When the JSON is no request of the method.
#[must_use]
pub fn encode(method: &str, request: &Value) -> Vec<u8> {
    let message = protobuf_json_mapping::parse_dyn_from_str(&types(method).0, &request.to_string())
        .unwrap_or_else(|error| panic!("{method} {request}: {error}"));
    message.write_to_bytes_dyn().unwrap()
}

/// Bytes as protobuf's JSON has them.
///
/// # Panics
/// When they are none.
#[must_use]
pub fn bytes(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    value.as_str().map(|text| base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap_or_default()
}

/// Every method of the agent's service.
///
/// # Panics
/// When the description has no service.
#[must_use]
pub fn methods() -> Vec<String> {
    let service = agent::file_descriptor().services().next().unwrap();
    service.methods().map(|method| method.proto().name().to_owned()).collect()
}

fn types(method: &str) -> (MessageDescriptor, MessageDescriptor) {
    let service = agent::file_descriptor().services().next().unwrap();
    let found = service.methods().find(|known| known.proto().name() == method);
    let found = found.unwrap_or_else(|| panic!("{method} is no method"));
    (found.input_type(), found.output_type())
}

/// A policy that allows every request, written rule by rule.
///
/// # Panics
/// Never.
#[must_use]
pub fn open_policy() -> String {
    let mut rules: Vec<String> = methods().iter().map(|method| types(method).0.name().to_owned()).collect();
    rules.sort();
    rules.dedup();
    let lines: Vec<String> = rules.iter().map(|rule| format!("default {rule} := true\n")).collect();
    format!("package agent_policy\n\n{}", lines.concat())
}

/// A world whose agent is a sandbox: its own run directory, pause bundle and an open policy in the world's folder.
///
/// # Panics
/// When anything does not start.
#[must_use]
pub fn world(options: Options) -> World {
    let mut world = World::without_agent(options);
    let folder = world.path("");
    pause_bundle(&folder.join("pause"));
    fs::write(folder.join("policy.rego"), open_policy()).unwrap();
    let table = configuration(&folder);
    world.edit_agent(|agent| {
        agent.insert("kata".into(), toml::Value::Table(table));
    });
    world.start_agent();
    world
}

/// `unix://` address of a world's Kata service.
#[must_use]
pub fn address(world: &World) -> String {
    format!("unix://{}", world.path("kata.sock").display())
}

/// What the host calls `/run/kata-containers`.
#[must_use]
pub fn run_dir(world: &World) -> PathBuf {
    world.path("kata")
}

fn configuration(folder: &Path) -> Table {
    let folder_name = folder.display().to_string();
    let folder_name = folder_name.trim_end_matches('/');
    let digest = pause_digest(&folder.join("pause"));
    fs::write(folder.join("resolv.conf"), "").unwrap();
    format!(
        r#"listen = "unix://{folder_name}/kata.sock"
policy = "{folder_name}/policy.rego"
pause_bundle = "{folder_name}/pause"
pause_digest = "{digest}"
run_dir = "{folder_name}/kata"
namespaces_dir = "{folder_name}/namespaces"
resolv_conf = "{folder_name}/resolv.conf"
"#
    )
    .parse()
    .unwrap()
}

/// A pause bundle of busybox, which sleeps.
///
/// # Panics
/// When it cannot be written.
pub fn pause_bundle(bundle: &Path) {
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).unwrap();
    fs::copy(program("busybox"), rootfs.join("busybox")).unwrap();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": PAUSE_ARGS,
            "env": PAUSE_ENV,
            "cwd": "/",
        },
        "root": { "path": "rootfs", "readonly": true },
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
}

/// What the configuration pins, as `tclctl` says it.
///
/// # Panics
/// When the bundle cannot be measured.
#[must_use]
pub fn pause_digest(bundle: &Path) -> String {
    run(tclctl(&["pause-digest", &bundle.display().to_string()])).ok().stdout.trim().to_owned()
}
