{{/* The attestor's pod, the same for both kinds of stores. */}}
{{- define "tcl.attestor.pod" -}}
{{- $attestor := .Values.attestor -}}
metadata:
  labels:
    {{- include "tcl.labels" . | nindent 4 }}
    app.kubernetes.io/component: attestor
  annotations:
    # Another configuration makes other pods. The digest is of what they would read.
    checksum/configuration: {{ printf "%s%s" (include "tcl.attestor.configuration" .) (toJson $attestor.files) | sha256sum }}
    {{- with $attestor.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $attestor.drainSeconds $attestor.lingerSeconds }}
  {{- with $attestor.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: attestor
      image: {{ include "tcl.attestor.image" . }}
      imagePullPolicy: {{ $attestor.image.pullPolicy }}
      args: ["--config", "/etc/key-broker/key-broker.toml"]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      ports:
        - name: attestor
          containerPort: 8080
        - name: operations
          containerPort: 9090
      startupProbe:
        httpGet: {path: /healthz, port: operations}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: operations}
        periodSeconds: 10
      readinessProbe:
        httpGet: {path: /readyz, port: operations}
        periodSeconds: 5
        timeoutSeconds: 5
      lifecycle:
        preStop:
          # Until every proxy knows that it goes, it serves.
          sleep: {seconds: {{ $attestor.lingerSeconds }}}
      resources:
        {{- toYaml $attestor.resources | nindent 8 }}
      volumeMounts:
        - {name: configuration, mountPath: /etc/key-broker/key-broker.toml, subPath: key-broker.toml, readOnly: true}
        {{- if $attestor.files }}
        - {name: files, mountPath: /etc/key-broker/files, readOnly: true}
        {{- end }}
        - {name: signing, mountPath: /etc/key-broker/signing, readOnly: true}
        - {name: store-key, mountPath: /etc/key-broker/store, readOnly: true}
        {{- if eq $attestor.tls.mode "secret" }}
        - {name: tls, mountPath: /etc/key-broker/tls, readOnly: true}
        {{- end }}
        {{- range $index, $token := $attestor.administrators.tokens }}
        - {name: administrator-{{ $index }}, mountPath: {{ printf "/etc/key-broker/administrators/%s/%s" $token.secret $token.key }}, subPath: {{ $token.key }}, readOnly: true}
        {{- end }}
        {{- if not (include "tcl.embedded" .) }}
        {{- if $attestor.store.postgres.password.secret }}
        - {name: database, mountPath: /etc/key-broker/database, readOnly: true}
        {{- end }}
        {{- if $attestor.store.postgres.root.secret }}
        - {name: database-root, mountPath: /etc/key-broker/database-root, readOnly: true}
        {{- end }}
        {{- end }}
        - {name: state, mountPath: /var/lib/key-broker}
  volumes:
    - name: configuration
      configMap: {name: {{ include "tcl.attestor" . }}}
    {{- if $attestor.files }}
    - name: files
      configMap: {name: {{ include "tcl.attestor" . }}-files}
    {{- end }}
    - name: signing
      secret:
        secretName: {{ $attestor.signingKey.secret }}
        defaultMode: 0440
        items: [{key: {{ $attestor.signingKey.key }}, path: signing.pem}]
    - name: store-key
      secret:
        secretName: {{ $attestor.storeKey.secret }}
        defaultMode: 0440
        items: [{key: {{ $attestor.storeKey.key }}, path: store.key}]
    {{- if eq $attestor.tls.mode "secret" }}
    - name: tls
      secret: {secretName: {{ $attestor.tls.secret }}, defaultMode: 0440}
    {{- end }}
    {{- range $index, $token := $attestor.administrators.tokens }}
    - name: administrator-{{ $index }}
      secret: {secretName: {{ $token.secret }}, defaultMode: 0440}
    {{- end }}
    {{- if not (include "tcl.embedded" .) }}
    {{- with $attestor.store.postgres.password }}
    {{- if .secret }}
    - name: database
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
        items: [{key: {{ .key }}, path: {{ .key }}}]
    {{- end }}
    {{- end }}
    {{- with $attestor.store.postgres.root }}
    {{- if .secret }}
    - name: database-root
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
        items: [{key: {{ .key }}, path: {{ .key }}}]
    {{- end }}
    {{- end }}
    # Endorsements that were found; everything that must last is in the database.
    - name: state
      emptyDir: {sizeLimit: 1Gi}
    {{- end }}
  {{- with $attestor.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $attestor.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $attestor.affinity }}
  affinity:
    {{- toYaml $attestor.affinity | nindent 4 }}
  {{- else if not (include "tcl.embedded" .) }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tcl.selector" . | nindent 10 }}
          app.kubernetes.io/component: attestor
  {{- end }}
{{- end -}}
