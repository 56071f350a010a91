{{/* Values as TOML. Helm's own toToml writes whole numbers as floats, which a strict reader refuses. */}}
{{- define "tcl.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ . | toJson }}{{- end -}}
{{- end -}}

{{- define "tcl.toml.value" -}}
{{- if kindIs "string" . -}}
{{ . | toJson }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "tcl.toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . -}}
{{- $map := . -}}
{ {{ range $index, $key := keys $map | sortAlpha }}{{ if $index }}, {{ end }}{{ include "tcl.toml.key" $key }} = {{ include "tcl.toml.value" (get $map $key) }}{{ end }} }
{{- else if kindIs "invalid" . -}}
{{- fail "attestor.configuration: a value is null, which TOML cannot say" -}}
{{- else if eq (floor .) (float64 .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{- define "tcl.toml.entries" -}}
{{- range $key := keys . | sortAlpha }}
{{ include "tcl.toml.key" $key }} = {{ include "tcl.toml.value" (get $ $key) }}
{{- end }}
{{- end -}}

{{/* A document: plain values first, then a table for each map and an array of tables for each list of maps. */}}
{{- define "tcl.toml" -}}
{{- $plain := dict -}}
{{- $tables := dict -}}
{{- $arrays := dict -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $_ := set $tables $key $value -}}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) -}}
{{- $_ := set $arrays $key $value -}}
{{- else -}}
{{- $_ := set $plain $key $value -}}
{{- end -}}
{{- end -}}
{{- include "tcl.toml.entries" $plain | trim }}
{{- range $key := keys $tables | sortAlpha }}

[{{ include "tcl.toml.key" $key }}]
{{- include "tcl.toml.entries" (get $tables $key) }}
{{- end }}
{{- range $key := keys $arrays | sortAlpha }}
{{- range get $arrays $key }}

[[{{ include "tcl.toml.key" $key }}]]
{{- include "tcl.toml.entries" . }}
{{- end }}
{{- end }}
{{- end -}}
