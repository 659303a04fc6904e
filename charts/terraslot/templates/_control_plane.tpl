{{/*
The processes of the control plane are alike but for what they run and what they may know. Each is a dict of
"root", "component", "needs" (of redis, database, encryption), "api" (whether it speaks to Kubernetes) and "metrics" (whether
it serves what it counts, and exports traces).
*/}}

{{- define "terraslot.metricsPort" -}}9464{{- end }}

{{- define "terraslot.podMetadata" -}}
labels:
  {{- include "terraslot.labels" . | nindent 2 }}
annotations:
  # Processes read the connections when they start: another one starts them anew.
  checksum/connections: {{ pick .root.Values "redis" "broker" "database" "encryption" "valkey" "postgresql" | toJson | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "terraslot.podSpec" -}}
{{- include "terraslot.podSecurity" 10001 | replace "automountServiceAccountToken: false" (printf "automountServiceAccountToken: %t" (.api | default false)) }}
{{- if .api }}
serviceAccountName: {{ include "terraslot.fullname" .root }}
{{- end }}
{{- include "terraslot.scheduling" .root }}
volumes:
  - {name: home, emptyDir: {sizeLimit: 64Mi}}
  - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- with .root.Values.certificates.existingSecret }}
  - {name: certificates, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{- define "terraslot.container" -}}
image: {{ include "terraslot.image" (dict "image" .root.Values.image "default" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "terraslot.containerSecurity" . }}
env:
  {{- include "terraslot.env" . | nindent 2 }}
volumeMounts:
  - {name: home, mountPath: /var/lib/terraslot}
  - {name: tmp, mountPath: /tmp}
{{- if .root.Values.certificates.existingSecret }}
  - {name: certificates, mountPath: /etc/terraslot/certificates, readOnly: true}
{{- end }}
{{- end }}

{{- define "terraslot.env" -}}
- {name: TERRASLOT_HOME, value: /var/lib/terraslot}
- {name: TERRASLOT_LOG_FORMAT, value: json}
- {name: TERRASLOT_LOG_LEVEL, value: {{ .root.Values.settings.logLevel }}}
- {name: TERRASLOT_CYCLE_SECONDS, value: {{ .root.Values.settings.cycleSeconds | quote }}}
- {name: TERRASLOT_DISPATCH_SECONDS, value: {{ .root.Values.settings.dispatchSeconds | quote }}}
- {name: TERRASLOT_HEARTBEAT_SECONDS, value: {{ .root.Values.settings.heartbeatSeconds | quote }}}
{{- if .api }}
- {name: TERRASLOT_NAMESPACE, value: {{ include "terraslot.agentsNamespace" .root }}}
- {name: TERRASLOT_INSTANCE, value: {{ include "terraslot.instanceName" .root }}}
{{- end }}
{{- if .metrics }}
- {name: TERRASLOT_METRICS_ADDRESS, value: 0.0.0.0}
- {name: TERRASLOT_METRICS_PORT, value: {{ include "terraslot.metricsPort" .root | quote }}}
{{- with .root.Values.traces }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
{{- with .headers.existingSecret }}
{{- if .name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
- {name: TERRASLOT_CREDENTIAL_DAYS, value: {{ .root.Values.settings.credentialDays | quote }}}
- {name: TERRASLOT_RUN_RETENTION_DAYS, value: {{ .root.Values.settings.runRetentionDays | quote }}}
- {name: TERRASLOT_DECISION_RETENTION_DAYS, value: {{ .root.Values.settings.decisionRetentionDays | quote }}}
{{- if has "redis" .needs }}
{{ include "terraslot.secretVariable" (dict "root" .root "variable" "TERRASLOT_REDIS_URL" "of" "redis") }}
{{- with .root.Values.broker }}
{{- if or .url .existingSecret.name }}
{{ include "terraslot.secretVariable" (dict "root" $.root "variable" "TERRASLOT_BROKER_URL" "of" "broker") }}
{{- end }}
{{- end }}
{{- end }}
{{- if has "database" .needs }}
{{ include "terraslot.secretVariable" (dict "root" .root "variable" "TERRASLOT_DATABASE_URL" "of" "database" "secret" .databaseSecret) }}
{{- end }}
{{- if has "encryption" .needs }}
{{ include "terraslot.secretVariable" (dict "root" .root "variable" "TERRASLOT_ENCRYPTION_KEYS" "of" "encryption") }}
{{- with .root.Values.sharedAgentUser.existingSecret }}
{{- range list "TERRASLOT_SHARED_AGENT_USERNAME" "TERRASLOT_SHARED_AGENT_PASSWORD" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.sharedAgentUser.existingSecret }}, key: {{ . }}}}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .root.Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* A variable whose value no manifest shows. The Secret is the one named in the values, or one of this chart's. */}}
{{- define "terraslot.secretVariable" -}}
{{- $server := dict "redis" "valkey" "database" "postgresql" }}
{{- $values := get .root.Values .of }}
{{- $name := include "terraslot.fullname" .root }}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      {{- if $values.existingSecret.name }}
      name: {{ $values.existingSecret.name }}
      key: {{ $values.existingSecret.key }}
      {{- else }}
      name: {{ .secret | default (printf "%s-%s" $name (empty $values.url | ternary (get $server .of | default .of) "connections")) }}
      key: {{ .variable }}
      {{- end }}
{{- end }}
