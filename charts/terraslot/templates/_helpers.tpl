{{- define "terraslot.fullname" -}}
{{- .Values.fullnameOverride | default (contains "terraslot" .Release.Name | ternary .Release.Name (printf "%s-terraslot" .Release.Name) | replace "." "-") | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "terraslot.agentsNamespace" -}}
{{- .Values.agents.namespace | default .Release.Namespace }}
{{- end }}

{{/* What selects every pod of the control plane of this release. */}}
{{- define "terraslot.instance" -}}
app.kubernetes.io/instance: {{ include "terraslot.instanceName" . }}
{{- end }}

{{/* Helm takes dots in a release's name. */}}
{{- define "terraslot.instanceName" -}}
{{- .Release.Name | replace "." "-" }}
{{- end }}

{{/*
What selects the agents of this release: the label that the platform gives to each pod that it creates or adopts, and
that no pool can change. Of the recommended labels an adopted pod keeps those that its Deployment gave it.
*/}}
{{- define "terraslot.agentLabels" -}}
terraslot.dev/instance: {{ include "terraslot.instanceName" . }}
{{- end }}

{{/* Of a dict "root" "component": what selects the pods of one part. */}}
{{- define "terraslot.selector" -}}
app.kubernetes.io/name: terraslot
{{ include "terraslot.instance" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "terraslot.labels" -}}
{{ include "terraslot.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Name, namespace and labels of one part's objects. */}}
{{- define "terraslot.metadata" -}}
name: {{ include "terraslot.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "terraslot.labels" . | nindent 2 }}
{{- end }}

{{/* Of a dict "image" "default": an image by its digest, or else its tag. */}}
{{- define "terraslot.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .default }}
{{- end }}
{{- end }}

{{/* No pod of this release is root, or can become it. */}}
{{- define "terraslot.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "terraslot.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "terraslot.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
