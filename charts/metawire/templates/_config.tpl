{{- /* The collector's configuration file. */}}
{{- define "metawire.collector.config" -}}
apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
{{- if .Values.inventory.enabled }}
clusterID: {{ required "clusterID: a name for this cluster is required when inventory.enabled is true" .Values.clusterID | quote }}
{{- else if .Values.clusterID }}
clusterID: {{ .Values.clusterID | quote }}
{{- end }}
health:
  address: {{ printf ":%v" .Values.collector.ports.health | quote }}
metrics:
  address: {{ printf ":%v" .Values.collector.ports.metrics | quote }}
stream:
  enabled: {{ .Values.stream.enabled }}
  address: {{ printf ":%v" .Values.stream.port | quote }}
  tls:
    mode: disabled
  {{- with .Values.stream.pacing }}
  pacing:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if ne (toString .Values.stream.maxAge) "" }}
  maxAge: {{ .Values.stream.maxAge | toString | quote }}
  {{- end }}
  authorization: disabled
inventory:
  enabled: {{ .Values.inventory.enabled }}
  resources:
    {{- (include "metawire.types" . | fromJson).inventory | toYaml | nindent 4 }}
{{- end }}
