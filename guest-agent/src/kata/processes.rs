//! Handlers of processes: exec, signals, waiting, streams.
//!
//! `exec_id` names the container's first process when it is empty (as one shim has it) or the container's own id (as
//! the other has it).

use protocols::rpc::kata::agent as pb;
use protocols::rpc::kata::oci;

use super::KataAgent;
use crate::containers::OutputStream;
use crate::error::AgentError;
use crate::processes::{CapabilitySets, ExecRequest, ExecUser, Rights};

impl KataAgent {
    pub(super) async fn exec_process(&self, request: pb::ExecProcessRequest) -> Result<pb::Empty, AgentError> {
        let pb::ExecProcessRequest { container_id, exec_id, .. } = &request;
        let (container_id, exec_id) = (container_id.clone(), exec_id.clone());
        self.agent.exec(&container_id, &exec_id, exec_request(request)?).await?;
        Ok(pb::Empty::default())
    }

    pub(super) async fn signal_process(&self, request: pb::SignalProcessRequest) -> Result<pb::Empty, AgentError> {
        self.agent.signal_process(&request.container_id, &request.exec_id, request.signal).await?;
        Ok(pb::Empty::default())
    }

    pub(super) async fn wait_process(
        &self,
        request: pb::WaitProcessRequest,
    ) -> Result<pb::WaitProcessResponse, AgentError> {
        let status = self.agent.wait_process(&request.container_id, &request.exec_id).await?;
        Ok(pb::WaitProcessResponse { status: i32::try_from(status).unwrap_or(i32::MAX), ..Default::default() })
    }

    pub(super) async fn read_stdout(
        &self,
        request: &pb::ReadStreamRequest,
    ) -> Result<pb::ReadStreamResponse, AgentError> {
        self.read(request, OutputStream::Stdout).await
    }

    pub(super) async fn read_stderr(
        &self,
        request: &pb::ReadStreamRequest,
    ) -> Result<pb::ReadStreamResponse, AgentError> {
        self.read(request, OutputStream::Stderr).await
    }

    async fn read(
        &self,
        request: &pb::ReadStreamRequest,
        stream: OutputStream,
    ) -> Result<pb::ReadStreamResponse, AgentError> {
        let data = self.agent.read_process(&request.container_id, &request.exec_id, stream, request.len).await?;
        Ok(pb::ReadStreamResponse { data, ..Default::default() })
    }

    /// No data is the end of the input: one of the shims closes it that way.
    pub(super) async fn write_stdin(
        &self,
        request: pb::WriteStreamRequest,
    ) -> Result<pb::WriteStreamResponse, AgentError> {
        let len = self.agent.write_process(&request.container_id, &request.exec_id, &request.data).await?;
        Ok(pb::WriteStreamResponse { len, ..Default::default() })
    }

    pub(super) async fn close_stdin(&self, request: pb::CloseStdinRequest) -> Result<pb::Empty, AgentError> {
        self.agent.close_stdin(&request.container_id, &request.exec_id).await?;
        Ok(pb::Empty::default())
    }

    pub(super) async fn tty_win_resize(&self, request: pb::TtyWinResizeRequest) -> Result<pb::Empty, AgentError> {
        // No terminal has more.
        let size = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
        let (rows, columns) = (size(request.row), size(request.column));
        self.agent.resize(&request.container_id, &request.exec_id, rows, columns).await?;
        Ok(pb::Empty::default())
    }
}

impl KataAgent {
    /// A long poll for the whole sandbox: it stays until something runs out of memory.
    pub(super) async fn get_oom_event(&self, _: pb::GetOOMEventRequest) -> Result<pb::OOMEvent, AgentError> {
        let container_id = self.agent.oom_event().await?;
        Ok(pb::OOMEvent { container_id, ..Default::default() })
    }
}

/// What is asked for, or why it cannot be: nothing that is not honoured is taken silently where it would give a
/// process more, or send its streams elsewhere.
fn exec_request(request: pb::ExecProcessRequest) -> Result<ExecRequest, AgentError> {
    let refused = |field, what| Err(AgentError::Request { field, what });
    let Some(process) = request.process.into_option() else { return refused("process", "is missing") };
    if request.stdin_port != 0 || request.stdout_port != 0 || request.stderr_port != 0 {
        return refused("stdin_port, stdout_port, stderr_port", "streams go through this service only");
    }
    if request.string_user.is_some() {
        return refused("string_user", "users are numbers here");
    }
    let user = process.User.into_option();
    if user.as_ref().is_some_and(|user| !user.Username.is_empty()) {
        return refused("process.User.Username", "users are numbers here");
    }
    let user = user.map(|user| ExecUser { uid: user.UID, gid: user.GID, additional: user.AdditionalGids });
    Ok(ExecRequest {
        args: process.Args,
        env: process.Env,
        cwd: process.Cwd,
        user,
        terminal: process.Terminal,
        capabilities: process.Capabilities.into_option().map(capabilities),
        no_new_privileges: process.NoNewPrivileges,
        // Whatever the policy says: more than the container's measured process has needs a launch.
        rights: Rights::Container,
    })
}

/// Shims write the names with and without their prefix.
fn capabilities(sets: oci::LinuxCapabilities) -> CapabilitySets {
    let full = |name: String| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    let names = |names: Vec<String>| names.into_iter().map(full).collect();
    CapabilitySets {
        bounding: names(sets.Bounding),
        effective: names(sets.Effective),
        permitted: names(sets.Permitted),
        inheritable: names(sets.Inheritable),
        ambient: names(sets.Ambient),
    }
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;

    use super::*;

    fn asked(process: oci::Process) -> pb::ExecProcessRequest {
        pb::ExecProcessRequest { process: MessageField::some(process), ..Default::default() }
    }

    #[test]
    fn a_process_is_taken_as_the_shims_send_it() {
        let user = oci::User { AdditionalGids: vec![0], ..Default::default() };
        let sets =
            oci::LinuxCapabilities { Bounding: vec!["CHOWN".to_owned(), "CAP_KILL".to_owned()], ..Default::default() };
        let process = oci::Process {
            User: MessageField::some(user),
            Args: vec!["/bin/sh".to_owned()],
            Env: vec!["PATH=/bin".to_owned()],
            Cwd: "/".to_owned(),
            Capabilities: MessageField::some(sets),
            ..Default::default()
        };
        let taken = exec_request(asked(process)).unwrap();
        assert_eq!((taken.args.as_slice(), taken.cwd.as_str()), (["/bin/sh".to_owned()].as_slice(), "/"));
        assert_eq!(taken.user, Some(ExecUser { uid: 0, gid: 0, additional: vec![0] }));
        assert_eq!(taken.capabilities.unwrap().bounding, ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(taken.rights, Rights::Container);
    }

    #[test]
    fn what_is_not_honoured_is_not_taken() {
        let named = oci::User { Username: "root".to_owned(), ..Default::default() };
        let by_name = oci::Process { User: MessageField::some(named), ..Default::default() };
        let ports = pb::ExecProcessRequest { stdout_port: 7, ..asked(oci::Process::default()) };
        let string_user = pb::ExecProcessRequest {
            string_user: MessageField::some(pb::StringUser::default()),
            ..asked(oci::Process::default())
        };
        for request in [pb::ExecProcessRequest::default(), asked(by_name), ports, string_user] {
            assert!(matches!(exec_request(request), Err(AgentError::Request { .. })));
        }
    }
}
