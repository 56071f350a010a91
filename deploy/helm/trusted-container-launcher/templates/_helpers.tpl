{{- define "tcl.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "tcl.fullname" -}}
{{- $name := include "tcl.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tcl.attestor" -}}{{ include "tcl.fullname" . }}-attestor{{- end -}}
{{- define "tcl.installer" -}}{{ include "tcl.fullname" . }}-installer{{- end -}}

{{- define "tcl.labels" -}}
app.kubernetes.io/name: {{ include "tcl.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tcl.selector" -}}
app.kubernetes.io/name: {{ include "tcl.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tcl.attestor.image" -}}
{{- $image := .Values.attestor.image -}}
{{- $repository := required "attestor.image.repository: name where the attestor's image lies" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else if ne .Values.attestor.environment "development" -}}
{{- fail "attestor.image.digest: production names the image by digest" -}}
{{- else -}}
{{- printf "%s:%s" $repository (required "attestor.image.tag: name a digest, or in development a tag" $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "tcl.embedded" -}}
{{- $kind := required "attestor.store.kind: say embedded or postgres" .Values.attestor.store.kind -}}
{{- if eq $kind "embedded" -}}yes{{- end -}}
{{- end -}}
