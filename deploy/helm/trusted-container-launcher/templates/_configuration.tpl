{{/* The attestor's configuration: what the chart decides, over `attestor.configuration`. */}}
{{- define "tcl.attestor.configuration" -}}
{{- $attestor := .Values.attestor -}}
{{- $configuration := deepCopy $attestor.configuration -}}
{{- if not $configuration.signers -}}
{{- fail "attestor.configuration.signers: name who may sign golden values" -}}
{{- end -}}
{{- if not (dig "policy" "registers" nil $configuration) -}}
{{- fail "attestor.configuration.policy.registers: name the kinds of registers that count" -}}
{{- end -}}
{{- $_ := set $configuration "environment" (required "attestor.environment: say production or development" $attestor.environment) -}}
{{- $_ := set $configuration "listen" (printf "%s:8080" $attestor.address) -}}
{{- $_ := set $configuration "operations" (dict "listen" (printf "%s:9090" $attestor.address)) -}}
{{- $_ := set $configuration "log_format" $attestor.logFormat -}}
{{- $_ := required "attestor.signingKey.secret: name the Secret with the signing key" $attestor.signingKey.secret -}}
{{- $_ := set $configuration "signing_key" "/etc/key-broker/signing/signing.pem" -}}
{{- $_ := required "attestor.storeKey.secret: name the Secret with the store key" $attestor.storeKey.secret -}}
{{- $_ := set $configuration "store_key" (dict "file" "/etc/key-broker/store/store.key") -}}
{{- $tls := required "attestor.tls.mode: say secret, or front where a front ends TLS" $attestor.tls.mode -}}
{{- if eq $tls "secret" -}}
{{- $_ := required "attestor.tls.secret: name the Secret with the certificate" $attestor.tls.secret -}}
{{- $_ := set $configuration "tls" (dict "certificate" "/etc/key-broker/tls/tls.crt" "key" "/etc/key-broker/tls/tls.key") -}}
{{- else -}}
{{- $_ := set $configuration "tls" "front" -}}
{{- end -}}
{{- $admin := dict -}}
{{- if hasKey $configuration "admin" -}}{{- $admin = $configuration.admin -}}{{- end -}}
{{- $who := $attestor.administrators -}}
{{- $ways := 0 -}}
{{- if $who.closed -}}{{- $ways = add1 $ways -}}{{- end -}}
{{- if or $who.tokens $admin -}}{{- $ways = add1 $ways -}}{{- end -}}
{{- if ne (int $ways) 1 -}}
{{- fail "attestor.administrators: say who administers: closed, or tokens and configuration.admin" -}}
{{- end -}}
{{- if $who.closed -}}
{{- $_ := set $admin "closed" true -}}
{{- end -}}
{{- $tokens := default (list) (get $admin "token") -}}
{{- range $who.tokens -}}
{{- $file := printf "/etc/key-broker/administrators/%s/%s" .secret .key -}}
{{- $tokens = append $tokens (dict "name" .name "file" $file "roles" .roles) -}}
{{- end -}}
{{- if $tokens -}}{{- $_ := set $admin "token" $tokens -}}{{- end -}}
{{- if $admin -}}{{- $_ := set $configuration "admin" $admin -}}{{- end -}}
{{- if include "tcl.embedded" . -}}
{{- $_ := set $configuration "store" "/var/lib/key-broker/broker.redb" -}}
{{- else -}}
{{- $database := $attestor.store.postgres -}}
{{- $postgres := dict "port" $database.port "connections" $database.connections -}}
{{- $_ := set $postgres "host" (required "attestor.store.postgres.host: name the database's host" $database.host) -}}
{{- $_ := set $postgres "user" (required "attestor.store.postgres.user: name the role" $database.user) -}}
{{- $_ := set $postgres "database" (required "attestor.store.postgres.database: name the database" $database.database) -}}
{{- if $database.password.secret -}}
{{- $_ := set $postgres "password_file" (printf "/etc/key-broker/database/%s" $database.password.key) -}}
{{- end -}}
{{- if $database.root.secret -}}
{{- $_ := set $postgres "root" (printf "/etc/key-broker/database-root/%s" $database.root.key) -}}
{{- else if ne $attestor.environment "development" -}}
{{- fail "attestor.store.postgres.root.secret: production reaches its database by TLS alone" -}}
{{- end -}}
{{- $_ := set $configuration "store" (dict "postgres" $postgres) -}}
{{- end -}}
{{- include "tcl.toml" $configuration -}}
{{- end -}}
