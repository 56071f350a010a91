//! What starts guests for a shim with the `remote` hypervisor: `hypervisor.Hypervisor` over ttrpc, for one guest that
//! runs already.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ttrpc::r#async::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::{Code, Request, Response, get_status};

/// The service, until it is dropped.
pub(super) struct Hypervisor {
    _server: Server,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

/// One method and its only answer.
struct Method {
    name: &'static str,
    answer: Vec<u8>,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl MethodHandler for Method {
    async fn handler(&self, _: TtrpcContext, _: Request) -> ttrpc::Result<Response> {
        self.calls.lock().unwrap().push(self.name);
        let mut response = Response::new();
        response.set_status(get_status(Code::OK, ""));
        response.payload.clone_from(&self.answer);
        Ok(response)
    }
}

impl Hypervisor {
    /// Listens at `socket` and says of every guest that its agent is at `agent`.
    pub(super) async fn start(socket: &Path, agent: &Path) -> Self {
        let calls = Arc::<Mutex<_>>::default();
        // Field 1 of either message, a text.
        let text = |text: &str| [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let agent = text(agent.to_str().unwrap());
        let answers = [("CreateVM", agent), ("StartVM", vec![]), ("StopVM", vec![]), ("Version", text("1"))];
        let method = |(name, answer): (&'static str, Vec<u8>)| {
            let method = Method { name, answer, calls: Arc::clone(&calls) };
            (name.to_owned(), Box::new(method) as Box<dyn MethodHandler + Send + Sync>)
        };
        let methods = answers.into_iter().map(method).collect();
        let service = Service { methods, streams: HashMap::new() };
        let services = HashMap::from([("hypervisor.Hypervisor".to_owned(), service)]);
        let mut server =
            Server::new().bind(&format!("unix://{}", socket.display())).unwrap().register_service(services);
        server.start().await.unwrap();
        Self { _server: server, calls }
    }

    /// The methods that were called, in their order.
    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}
