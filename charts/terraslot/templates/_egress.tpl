{{- define "terraslot.egress.dns" -}}
- to:
    {{- toYaml .Values.networkPolicies.dns | nindent 4 }}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* Of "to" and "ports": peers that are no pods of this release; without peers, all that listen on these ports. */}}
{{- define "terraslot.egress.external" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Of "root" "component" "external": the server that this chart brings, or else the one outside. */}}
{{- define "terraslot.egress.server" -}}
{{- if (get .root.Values .component).enabled -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}
      podSelector:
        matchLabels:
          {{- include "terraslot.selector" . | nindent 10 }}
  ports: [{port: {{ eq .component "valkey" | ternary "redis" "postgresql" }}}]
{{- else -}}
{{ include "terraslot.egress.external" .external }}
{{- end }}
{{- end }}
