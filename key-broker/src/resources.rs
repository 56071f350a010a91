//! Resources: released to sessions, kept by administrators.

use audit_log::Event;
use protocols::kbs;
use protocols::resource::ResourcePath;
use protocols::tcl::GoldenResource;

use crate::admin::{Administrator, Resources};
use crate::broker::{Broker, json_of, missing};
use crate::error::BrokerError;
use crate::posted::REPOSITORY;
use crate::sessions::Known;

impl Broker {
    /// A resource, encrypted to the session's key.
    pub(crate) async fn resource(&self, session: &Known, path: &str) -> Result<kbs::Response, BrokerError> {
        let path = resource_path(path)?;
        let rules = self.rules();
        match rules.release().to(session, &path) {
            Err(BrokerError::Refused { refusal, .. }) if rules.settings.observe => {
                self.observed(Some(*refusal), Some(session), "GET /kbs/v0/resource").await;
            }
            asked => asked?,
        }
        let Some(bytes) = self.store.resource(path.clone()).await? else { return Err(missing(path.as_str())) };
        let encrypted = session
            .recipient()
            .and_then(|recipient| recipient.encrypt(&bytes))
            .map_err(|_| BrokerError::Internal("a resource that does not encrypt"))?;
        let release =
            Event::Release { session: session.jti.clone(), path: path.as_str().to_owned(), guest: session.guest };
        self.audit.append(release).await?;
        tracing::info!(session = session.jti, resource = path.as_str(), "released");
        Ok(encrypted)
    }

    /// Stores a resource. Golden values must be what agents will read.
    pub(crate) async fn put_resource(
        &self,
        by: &Administrator<Resources>,
        path: &str,
        bytes: Vec<u8>,
    ) -> Result<(), BrokerError> {
        let path = resource_path(path)?;
        if path.as_str().starts_with("golden/dsse/") {
            json_of::<GoldenResource>(&bytes, "golden values with their envelopes")?;
        }
        self.changes(by, "resource.put", &path).await?;
        tracing::info!(by = by.name(), resource = path.as_str(), bytes = bytes.len(), "stored");
        Ok(self.store.put_resource(path, bytes).await?)
    }

    /// Forgets a resource; whoever was given it before has it still.
    pub(crate) async fn delete_resource(&self, by: &Administrator<Resources>, path: &str) -> Result<(), BrokerError> {
        let path = resource_path(path)?;
        self.changes(by, "resource.delete", &path).await?;
        tracing::info!(by = by.name(), resource = path.as_str(), "deleted");
        if self.store.delete_resource(path.clone()).await? { Ok(()) } else { Err(missing(path.as_str())) }
    }

    /// Writes down who changes which resource; before it is changed.
    async fn changes(
        &self,
        by: &Administrator<Resources>,
        action: &str,
        path: &ResourcePath,
    ) -> Result<(), BrokerError> {
        let change = Event::Administration {
            who: by.name().to_owned(),
            action: action.to_owned(),
            subject: path.as_str().to_owned(),
            digest: None,
        };
        self.audit.append(change).await
    }
}

fn resource_path(path: &str) -> Result<ResourcePath, BrokerError> {
    let nowhere = || missing(&path.chars().take(100).collect::<String>());
    let parsed: ResourcePath = path.parse().map_err(|_| nowhere())?;
    // What is kept there is for another role, and for no session.
    if parsed.as_str().split('/').next() == Some(REPOSITORY) { Err(nowhere()) } else { Ok(parsed) }
}
