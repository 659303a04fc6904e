{{/* Pools and workspaces of the values: the files in which the command line finds them, and what is refused of them. */}}

{{- define "terraslot.specifications" -}}
{{- $image := include "terraslot.image" (dict "image" .Values.agents.image "default" .Chart.AppVersion) }}
{{- $pod := dict "image" $image "service_account" (printf "%s-agent" (include "terraslot.fullname" .)) }}
{{- with .Values.pools }}
pools.yaml: |
  {{- range $pool, $values := . }}
  {{- $spec := merge (dict "name" $pool) ($values | default dict) (dict "type" "kubernetes") }}
  {{- if eq $spec.type "kubernetes" }}{{ $_ := set $spec "kubernetes" (merge (dict) ($spec.kubernetes | default dict) $pod) }}{{ end }}
  ---
  {{- toYaml $spec | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.workspaces }}
workspaces.yaml: |
  {{- range $workspace, $values := . }}
  ---
  {{- toYaml (merge (dict "name" $workspace) ($values | default dict)) | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Of "root" and "option": the command of a job that reads them. */}}
{{- define "terraslot.applySpecifications" -}}
- sh
- -ec
- |
  {{- range $kind, $given := dict "pool" .root.Values.pools "workspace" .root.Values.workspaces }}
  {{- if $given }}
  terraslot {{ $kind }} apply {{ $.option }}-f /etc/terraslot/specifications/{{ $kind }}s.yaml
  {{- end }}
  {{- end }}
{{- end }}

{{- define "terraslot.refuseSpecifications" -}}
{{- range $name, $pool := .Values.pools }}
{{- include "terraslot.refusePool" (dict "path" (printf "pools.%s" $name) "pool" ($pool | default dict)) }}
{{- end }}
{{- range $name, $values := .Values.workspaces }}
{{- $workspace := $values | default dict }}
{{- $url := dig "source" "url" "" $workspace }}
{{- $token := "give it with `terraslot workspace update %s --sensitive-env %s` once the workspace is there" }}
{{- $password := ternary "ARCHIVE_PASSWORD" "GIT_PASSWORD" (eq (dig "source" "type" "" $workspace) "archive") }}
{{- if regexMatch "^(https?://[^/?#]*|[a-z]+://[^/?#@]*:[^/?#]*)@" $url }}
{{- fail (printf (printf "workspaces.%%s.source.url holds a password or a token, which everybody would see: leave it out, and %s." $token) $name $name $password) }}
{{- end }}
{{- range list "GIT_PASSWORD" "GIT_SSH_KEY" "ARCHIVE_PASSWORD" }}
{{- if hasKey ($workspace.environment | default dict) . }}
{{- fail (printf (printf "workspaces.%%s.environment holds %%s, which everybody would see: leave it out, and %s." $token) $name . $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "terraslot.refusePool" -}}
{{- $limits := merge (dict) (.pool.limits | default dict) (dict "min_agents" 0 "max_agents" 3) }}
{{- if gt (int $limits.min_agents) (int $limits.max_agents) }}
{{- fail (printf "%s.limits: min_agents (%v) is above max_agents (%v): lower one or raise the other." .path $limits.min_agents $limits.max_agents) }}
{{- end }}
{{- $timeouts := merge (dict) (.pool.timeouts | default dict) (dict "silent" 30 "dead" 300) }}
{{- if ge (float64 $timeouts.silent) (float64 $timeouts.dead) }}
{{- fail (printf "%s.timeouts: silent (%v s) must be shorter than dead (%v s)." .path $timeouts.silent $timeouts.dead) }}
{{- end }}
{{- $pods := .pool.kubernetes | default dict }}
{{- if and $pods (ne (.pool.type | default "kubernetes") "kubernetes") }}
{{- fail (printf "%s: the section 'kubernetes' is for pools of that type; this one is of type '%s'." .path .pool.type) }}
{{- end }}
{{- $spec := ($pods.pod_template | default dict).spec | default dict }}
{{- range list "hostNetwork" "hostPID" "hostIPC" }}
{{- if get $spec . }}
{{- fail (printf "%s.kubernetes.pod_template.spec.%s: a pod that runs Terraform may not share this with its node." $.path .) }}
{{- end }}
{{- end }}
{{- range concat ($pods.volumes | default list) ($spec.volumes | default list) }}
{{- if hasKey . "hostPath" }}
{{- fail (printf "%s.kubernetes: the volume '%v' is a directory of its node, which a pod that runs Terraform may not mount." $.path .name) }}
{{- end }}
{{- end }}
{{- end }}
