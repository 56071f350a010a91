//! What the host learns of an error: the transport's code, the reason code and that code's fixed text.

use protocols::reason::Class;
use ttrpc::{Code, get_status};

use crate::error::{AgentError, ProcessFault};

/// The whole error goes to the guest's own log.
pub(crate) fn of(method: &str, error: &AgentError) -> ttrpc::Error {
    let code = error.code();
    tracing::warn!(method, %code, %error, "a call of the host was refused");
    let text = format!("{code}: this check failed: {}", code.check());
    ttrpc::Error::RpcStatus(get_status(rpc_code(error), text))
}

fn rpc_code(error: &AgentError) -> Code {
    match error {
        AgentError::NotOffered { .. } => return Code::UNIMPLEMENTED,
        AgentError::Order { .. } => return Code::FAILED_PRECONDITION,
        AgentError::ContainerId { .. } | AgentError::Container { .. } | AgentError::Request { .. } => {
            return Code::INVALID_ARGUMENT;
        }
        AgentError::Process { fault, .. } => return process_code(fault),
        _ => {}
    }
    match error.code().class() {
        Class::Refused => Code::PERMISSION_DENIED,
        Class::Unavailable | Class::Io | Class::Fault => Code::INTERNAL,
    }
}

const fn process_code(fault: &ProcessFault) -> Code {
    match fault {
        ProcessFault::Unknown => Code::NOT_FOUND,
        ProcessFault::NoTerminal => Code::UNAVAILABLE,
        ProcessFault::TooMany(_) => Code::RESOURCE_EXHAUSTED,
        ProcessFault::Exceeds(_) => Code::PERMISSION_DENIED,
        ProcessFault::Taken | ProcessFault::NotStarted | ProcessFault::Malformed(_) => Code::INVALID_ARGUMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(error: &AgentError) -> (Code, String) {
        match of("test", error) {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_host_gets_codes_and_fixed_texts_and_nothing_of_the_explanation() {
        let policy = agent_policy::PolicyEngine::new(
            "package agent_policy\n\nExecProcessRequest := false if { print(\"SECRET\", input.x) }\n",
        );
        let denied = policy.unwrap().check("ExecProcessRequest", serde_json::json!({ "x": "SECRET" })).unwrap_err();
        let (code, text) = shown(&denied.into());
        assert_eq!(code, Code::PERMISSION_DENIED);
        assert!(text.starts_with("policy.gate: ") && !text.contains("SECRET"), "{text}");

        let create = AgentError::Runtime { step: crate::error::RuntimeStep::Create, message: "SECRET".to_owned() };
        let (code, text) = shown(&create);
        assert_eq!(code, Code::INTERNAL);
        assert!(text.starts_with("runtime.create: ") && !text.contains("SECRET"), "{text}");
    }

    #[test]
    fn clients_find_the_codes_they_act_on() {
        let container = AgentError::Container { id: "c".to_owned(), what: "it is not known" };
        let process = |fault| AgentError::Process { id: "c".to_owned(), process: "e".to_owned(), fault };
        for (error, expected) in [
            (process(ProcessFault::Unknown), Code::NOT_FOUND),
            (process(ProcessFault::NoTerminal), Code::UNAVAILABLE),
            (process(ProcessFault::Exceeds("its user")), Code::PERMISSION_DENIED),
            (AgentError::NotOffered { method: "add_swap" }, Code::UNIMPLEMENTED),
            (container, Code::INVALID_ARGUMENT),
            (AgentError::ContainerId { text: "a/b".to_owned() }, Code::INVALID_ARGUMENT),
            (AgentError::Order { what: "no sandbox yet" }, Code::FAILED_PRECONDITION),
            (AgentError::Poisoned, Code::PERMISSION_DENIED),
            (AgentError::Task("it panicked".to_owned()), Code::INTERNAL),
        ] {
            assert_eq!(shown(&error).0, expected, "{error}");
        }
        let (_, text) = shown(&process(ProcessFault::Exceeds("its user")));
        assert!(text.starts_with("policy.exec: "), "{text}");
    }
}
