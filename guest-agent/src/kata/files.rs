//! Handlers of files: copied in by the host, and the end of a termination log.

use protocols::digest::Sha384Digest;
use protocols::events::{Copied as Content, CopyFile, hash_str};
use protocols::rpc::kata::agent as pb;
use sandbox::{Copied, CopyRequest, FileKind};

use super::KataAgent;
use crate::error::{AgentError, blocking};

/// The most of a termination log, in bytes: what Kubernetes takes.
const MAX_LOG: u64 = 4096;

/// What the host asks for, as the sandbox takes it.
#[must_use]
pub fn copy_request(request: &pb::CopyFileRequest) -> CopyRequest<'_> {
    CopyRequest {
        path: &request.path,
        file_size: request.file_size,
        file_mode: request.file_mode,
        dir_mode: request.dir_mode,
        uid: request.uid,
        gid: request.gid,
        offset: request.offset,
        data: &request.data,
    }
}

impl KataAgent {
    /// A file becomes visible when its last piece has come and the log holds its digest.
    pub(super) async fn copy_file(&self, request: pb::CopyFileRequest) -> Result<pb::Empty, AgentError> {
        let sandbox = self.sandbox.ready()?;
        // A link comes whole, and its target need not be text.
        let target = Sha384Digest::of(&request.data);
        let prepare = move || sandbox.shared.prepare(&copy_request(&request));
        let Some(ready) = blocking(prepare).await?? else { return Ok(pb::Empty::default()) };
        self.agent.journal.record(event(ready.copied(), target)?).await?;
        let copied = blocking(move || ready.commit()).await??;
        tracing::debug!(path = copied.path, size = copied.size, "a file of the host is visible");
        Ok(pb::Empty::default())
    }

    /// The end of the termination log of a container that was copied in for it.
    pub(super) async fn get_diagnostic_data(
        &self,
        request: pb::GetDiagnosticDataRequest,
    ) -> Result<pb::GetDiagnosticDataResponse, AgentError> {
        if request.log_type != "termination_log" {
            return Err(AgentError::Request { field: "log_type", what: "only termination_log is known" });
        }
        let sandbox = self.sandbox.ready()?;
        let path = sandbox.logs().get(&request.container_id).cloned();
        let Some(path) = path else {
            let what = "it has no termination log";
            return Err(AgentError::Container { id: request.container_id, what });
        };
        let data = blocking(move || sandbox.shared.read_end(&path, MAX_LOG)).await??;
        let data = String::from_utf8_lossy(&data).into_owned();
        Ok(pb::GetDiagnosticDataResponse { data, ..Default::default() })
    }
}

/// What the log says of it; `target` is the hash of a link's.
fn event(copied: &Copied, target: Sha384Digest) -> Result<CopyFile, AgentError> {
    let content = match copied.kind {
        FileKind::Regular => Content::File(copied.sha256),
        FileKind::Symlink => Content::Symlink(target),
        FileKind::Directory => Content::Directory,
    };
    let id = |id: u32| i32::try_from(id).map_err(|_| AgentError::Request { field: "uid, gid", what: "too large" });
    let mode = if copied.kind == FileKind::Symlink { 0 } else { copied.mode };
    Ok(CopyFile { path_h: hash_str(&copied.path), content, mode, uid: id(copied.uid)?, gid: id(copied.gid)? })
}
