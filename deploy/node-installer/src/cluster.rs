//! The Kubernetes API, as a pod's service account reaches it: a node's label, and the end of a DaemonSet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::settings::Label;

/// Where a pod finds its credentials.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(2);

/// The API server, known by the cluster's roots.
pub(crate) struct Cluster {
    client: reqwest::Client,
    base: Url,
    token: String,
    namespace: String,
}

impl Cluster {
    /// By the environment and the files that every pod has.
    pub(crate) fn of_this_pod() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not in the environment"));
        let account = std::env::var("SERVICE_ACCOUNT").unwrap_or_else(|_| ACCOUNT.to_owned());
        let read = |name: &str| {
            let path = Path::new(&account).join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        // An address of IPv6 stands in brackets.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let base = Url::parse(&format!("https://{host}:{}", variable("KUBERNETES_SERVICE_PORT")?))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(read("ca.crt")?.as_bytes()) {
            roots.add(certificate.context("ca.crt")?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            base,
            token: read("token")?.trim().to_owned(),
            namespace: read("namespace")?.trim().to_owned(),
        })
    }

    async fn ask(&self, method: Method, path: &str, patch: Option<Value>) -> Result<Value> {
        let mut request = self.client.request(method, self.base.join(path)?).bearer_auth(&self.token);
        if let Some(patch) = patch {
            request = request.header("content-type", "application/merge-patch+json").body(patch.to_string());
        }
        let response = request.send().await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| path.to_owned())
    }

    /// Sets a node's label, or takes it away.
    pub(crate) async fn label(&self, node: &str, label: &Label, there: bool) -> Result<()> {
        let value = if there { json!(label.value) } else { Value::Null };
        let patch = json!({"metadata": {"labels": {(&label.name): value}}});
        self.ask(Method::PATCH, &format!("/api/v1/nodes/{node}"), Some(patch)).await?;
        Ok(())
    }

    /// Has every pod of our DaemonSet remove what it installed, and waits until all have; it must be deleted then.
    pub(crate) async fn retire(&self, set: &str) -> Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{}/daemonsets/{set}", self.namespace);
        let found = self.ask(Method::GET, &path, None).await?;
        let mut containers = found.pointer("/spec/template/spec/containers").cloned().context("no containers")?;
        let arguments = containers.pointer_mut("/0/args/0").context("no arguments")?;
        *arguments = json!("remove");
        // All nodes at once: none of them keeps another from serving.
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}});
        let template = json!({"spec": {"containers": containers}});
        let patch = json!({"spec": {"updateStrategy": strategy, "template": template}});
        let patched = self.ask(Method::PATCH, &path, Some(patch)).await?;
        let generation = number(&patched, "/metadata/generation");
        loop {
            let now = self.ask(Method::GET, &path, None).await?;
            let [seen, wanted, updated, ready] = [
                "/status/observedGeneration",
                "/status/desiredNumberScheduled",
                "/status/updatedNumberScheduled",
                "/status/numberReady",
            ]
            .map(|pointer| number(&now, pointer));
            if seen >= generation && updated >= wanted && ready >= wanted {
                return Ok(());
            }
            println!("{ready} of {wanted} nodes are done");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is absent from a status is zero.
fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}
