//! The four methods.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use ttrpc::r#async::{Server, TtrpcContext};
use ttrpc::{Code, get_status};

use crate::config::Config;
use crate::generated::hypervisor::{
    CreateVMRequest, CreateVMResponse, StartVMRequest, StartVMResponse, StopVMRequest, StopVMResponse, VersionRequest,
    VersionResponse,
};
use crate::generated::hypervisor_ttrpc::{Hypervisor, create_hypervisor};
use crate::initdata;
use crate::pods::Pods;

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serves until it is dropped; its guests end with it.
pub struct Service {
    server: Server,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl Service {
    /// Listens at the configured socket.
    ///
    /// # Errors
    /// It cannot.
    pub async fn start(config: Config) -> Result<Self> {
        let listen = config.listen.clone();
        match std::fs::remove_file(&listen) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| listen.display().to_string());
            }
            _ => {}
        }
        let service = create_hypervisor(Arc::new(Methods { pods: Arc::new(Pods::new(config)) }));
        let server = Server::new().bind(&format!("unix://{}", listen.display()));
        let mut server = server.context("listen")?.register_service(service);
        server.start().await.context("listen")?;
        Ok(Self { server })
    }

    /// Stops listening and ends what is served.
    ///
    /// # Errors
    /// A connection does not end.
    pub async fn stop(mut self) -> Result<()> {
        self.server.shutdown().await.context("shutdown")
    }
}

struct Methods {
    pods: Arc<Pods>,
}

#[async_trait]
impl Hypervisor for Methods {
    async fn create_vm(&self, _: &TtrpcContext, request: CreateVMRequest) -> ttrpc::Result<CreateVMResponse> {
        let initdata = request.annotations.get(initdata::ANNOTATION).filter(|text| !text.is_empty());
        let socket = self.pods.create(&request.id, initdata.map(String::as_str)).map_err(|e| told("CreateVM", &e))?;
        tracing::info!(id = %request.id, initdata = initdata.is_some(), "a guest is prepared");
        let mut answer = CreateVMResponse::new();
        answer.agentSocketPath = socket.display().to_string();
        Ok(answer)
    }

    async fn start_vm(&self, _: &TtrpcContext, request: StartVMRequest) -> ttrpc::Result<StartVMResponse> {
        self.pods.start(&request.id).await.map_err(|e| told("StartVM", &e))?;
        tracing::info!(id = %request.id, "its agent listens");
        Ok(StartVMResponse::new())
    }

    async fn stop_vm(&self, _: &TtrpcContext, request: StopVMRequest) -> ttrpc::Result<StopVMResponse> {
        self.pods.stop(&request.id).map_err(|e| told("StopVM", &e))?;
        tracing::info!(id = %request.id, "the guest is ended");
        Ok(StopVMResponse::new())
    }

    async fn version(&self, _: &TtrpcContext, _: VersionRequest) -> ttrpc::Result<VersionResponse> {
        let mut answer = VersionResponse::new();
        answer.version = VERSION.to_owned();
        Ok(answer)
    }
}

/// The shim is the host's, as this is: it gets the reason.
fn told(method: &str, error: &anyhow::Error) -> ttrpc::Error {
    tracing::error!(method, "{error:#}");
    ttrpc::Error::RpcStatus(get_status(Code::INTERNAL, format!("{error:#}")))
}
