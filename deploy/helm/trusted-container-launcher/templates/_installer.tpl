{{/* The drop-in of Kata's configuration; deploy/kata/guest.toml is the one to lay by hand. */}}
{{- define "tcl.installer.kata" -}}
{{- $installer := .Values.installer -}}
[hypervisor.{{ $installer.kata.hypervisor }}]
kernel = {{ printf "@GUEST@/%s" $installer.guest.kernel | toJson }}
initrd = {{ printf "@GUEST@/%s" $installer.guest.initrd | toJson }}
image = ""
kernel_verity_params = ""
guest_extension_images = []
kernel_params = {{ $installer.guest.kernelParameters | toJson }}
default_memory = {{ int64 $installer.guest.memoryMiB }}
shared_fs = "none"

[agent.kata]
create_container_timeout = {{ int64 $installer.kata.createContainerTimeoutSeconds }}

[runtime]
experimental = ["force_guest_pull"]
{{ end -}}

{{/* The drop-in of containerd 2, whose plugins' tables are merged; those of containerd 1 would be replaced as a whole. */}}
{{- define "tcl.installer.containerd" -}}
version = 3

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{ .Values.runtimeClass.handler }}]
runtime_type = "io.containerd.kata.v2"
runtime_path = {{ .Values.installer.kata.shim | toJson }}
privileged_without_host_devices = true
pod_annotations = ["io.katacontainers.*"]

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{ .Values.runtimeClass.handler }}.options]
ConfigPath = "@KATA@"
{{ end -}}
