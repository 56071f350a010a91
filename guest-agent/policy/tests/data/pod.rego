# A pod of one container, in the dialect of generated policies: defaults, policy data, state kept by operations.
package agent_policy

import future.keywords.in
import future.keywords.every
import future.keywords.if

default AddARPNeighborsRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default GetOOMEventRequest := true
default ReadStreamRequest := false
default SetPolicyRequest := false
default SignalProcessRequest := true
default StartContainerRequest := true
default UpdateRoutesRequest := false
default WriteStreamRequest := false

default AllowRequestsFailingPolicy := false

NAME_KEY = "io.kubernetes.cri.sandbox-name"

CreateContainerRequest := {"ops": ops, "allowed": true} if {
    print("CreateContainerRequest: container_id =", input.container_id)
    count(input.shared_mounts) == 0
    is_null(input.string_user)
    is_null(input.OCI.Hooks)

    name_op := keep("sandbox_name", input.OCI.Annotations[NAME_KEY])

    some idx, container in policy_data.containers
    print("CreateContainerRequest: trying container", idx)
    container.Args == input.OCI.Process.Args
    every variable in input.OCI.Process.Env {
        allowed_variable(container, variable)
    }

    id_op := keep(input.container_id, idx)
    ops := [op | some op in [name_op, id_op]; op != null]
}

allowed_variable(container, variable) if {
    variable in container.Env
}
allowed_variable(container, variable) if {
    some pattern in container.EnvPatterns
    regex.match(pattern, variable)
}

# First seen: kept.
keep(key, value) = op if {
    not data["pstate"][key]
    op := {"op": "add", "path": concat("/", ["/pstate", key]), "value": value}
}
# Seen before: only the same again.
keep(key, value) = op if {
    data.pstate[key] == value
    op := null
}

ExecProcessRequest if {
    idx := data.pstate[input.container_id]
    some command in policy_data.containers[idx].commands
    command == input.process.Args
}

RemoveContainerRequest := {"ops": ops, "allowed": true} if {
    ops := [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}]
}

CopyFileRequest if {
    input.file_type == "Regular"
    not regex.match("(^|/)\\.\\.($|/)", input.path)
    startswith(input.path, policy_data.shared)
}
CopyFileRequest if {
    input.file_type == "Symlink"
    not startswith(input.symlink_target, "/")
}

CreateSandboxRequest if {
    count(input.guest_hook_path) == 0
    input.sandbox_pidns == false
}

UpdateRoutesRequest if {
    every route in input.routes.Routes {
        not route.device in {"lo"}
        not regex.match("^127\\.", route.source)
    }
}

ReadStreamRequest if {
    policy_data.streams.read == true
}

WriteStreamRequest if {
    policy_data.streams.write == true
}

policy_data := {
    "containers": [
        {"Args": ["/pause"], "Env": ["PATH=/bin"], "EnvPatterns": [], "commands": []},
        {
            "Args": ["/app", "serve"],
            "Env": ["PATH=/bin", "MODE=safe"],
            "EnvPatterns": ["^HOSTNAME=[a-z0-9-]+$"],
            "commands": [["/bin/health", "--quick"]]
        }
    ],
    "shared": "/run/kata-containers/shared/containers/",
    "streams": {"read": true, "write": false}
}
