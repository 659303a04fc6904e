{{/* What no schema can say: values that contradict one another end the installation with a sentence. */}}
{{- define "terraslot.refuse" -}}
{{- range $what, $server := dict "redis" "valkey" "database" "postgresql" }}
{{- $given := list }}
{{- with get $.Values $what }}
{{- if .url }}{{ $given = append $given (printf "%s.url" $what) }}{{ end }}
{{- if .existingSecret.name }}{{ $given = append $given (printf "%s.existingSecret.name" $what) }}{{ end }}
{{- end }}
{{- if (get $.Values $server).enabled }}{{ $given = append $given (printf "%s.enabled" $server) }}{{ end }}
{{- if ne (len $given) 1 }}
{{- fail (printf "Exactly one of %s.url, %s.existingSecret.name and %s.enabled says where the %s is; given: %s." $what $what $server $what (join ", " $given | default "none")) }}
{{- end }}
{{- end }}
{{- with .Values.flower }}
{{- if and .ingress.enabled (not .auth.existingSecret) }}
{{- fail "flower.ingress.enabled shows runs and their outputs to everyone who reaches it: name a Secret with FLOWER_BASIC_AUTH or FLOWER_AUTH_PROVIDER and its variables in flower.auth.existingSecret." }}
{{- end }}
{{- if and $.Values.monitoring.serviceMonitor.enabled (not .enabled) }}
{{- fail "monitoring.serviceMonitor.enabled needs flower.enabled: Flower is what serves the metrics." }}
{{- end }}
{{- end }}
{{- with .Values.control.autoscaling }}
{{- if and .enabled (not $.Values.valkey.enabled) (not .redis.address) }}
{{- fail "control.autoscaling.enabled needs control.autoscaling.redis.address (HOST:PORT): KEDA can't read it from a URL in a Secret." }}
{{- end }}
{{- end }}
{{- include "terraslot.refuseSpecifications" . }}
{{- end }}
