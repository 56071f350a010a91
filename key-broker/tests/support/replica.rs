//! A second attestor on the first one's store, key and configuration.

use std::sync::Arc;

use broker_store::Store;
use kbs_client::Client;
use key_broker::broker::Broker;
use key_broker::config::Config;
use key_broker::http::router;
use key_broker::server::serve;
use protocols::environment::Environment;
use protocols::time::Timestamp;
use registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::World;

/// Serves until it is ended.
pub(crate) struct Replica {
    pub(crate) client: Client,
    served: JoinHandle<()>,
}

impl Replica {
    /// Starts one beside `world`, with a way to the registry and a clock of its own.
    pub(crate) async fn start(
        world: &World,
        registry: Arc<dyn Registry>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let settings = Config::read(&world.directory.path().join("broker.toml")).unwrap().settings().unwrap();
        let store: Arc<dyn Store> = world.store();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let broker = Broker::new(settings, store, registry, Arc::new(clock)).await.unwrap();
        let served = tokio::spawn(serve(listener, router(Arc::new(broker)), std::future::pending()));
        Self { client: super::client(&url, &world.key_pem, Environment::Development), served }
    }

    /// Ends it at once, as a kill does; nothing of it is left.
    pub(crate) async fn kill(self) {
        self.served.abort();
        let _ = self.served.await;
    }
}
