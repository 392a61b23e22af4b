{{- /* What the inventory's pods need, be they the collectors or a CronJob's. */}}

{{- /* A CronJob's name has 52 characters at most. */}}
{{- define "metawire.inventory.name" -}}
{{- include "metawire.fullname" . | trunc 42 | trimSuffix "-" }}-inventory
{{- end }}

{{- /* Deployment or CronJob; nothing if there is no inventory. */}}
{{- define "metawire.inventory.mode" -}}
{{- if .Values.inventory.enabled }}{{ .Values.inventory.mode }}{{ end -}}
{{- end }}

{{- define "metawire.inventory.serviceAccountName" -}}
{{- if eq (include "metawire.inventory.mode" .) "Deployment" -}}
{{- include "metawire.collector.serviceAccountName" . -}}
{{- else -}}
{{- with .Values.inventory.serviceAccount -}}
{{- .name | default (.create | ternary (include "metawire.inventory.name" $) "default") -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* "true" or nothing: YAML takes an on without quotes for true. */}}
{{- define "metawire.inventory.redacts" -}}
{{- if ne (toString .Values.inventory.redaction) "none" }}true{{ end -}}
{{- end }}

{{- define "metawire.inventory.credentialsSecret" -}}
{{- .Values.inventory.credentials.existingSecret | default (printf "%s-credentials" (include "metawire.inventory.name" .)) -}}
{{- end }}

{{- /* inventory in the configuration of whoever sends. */}}
{{- define "metawire.inventory.config" -}}
{{- $name := include "metawire.inventory.name" . -}}
{{- $ns := include "metawire.namespace" . | quote -}}
{{- $cronJob := eq .Values.inventory.mode "CronJob" -}}
{{- with .Values.inventory -}}
enabled: true
endpoint: {{ .endpoint | quote }}
insecure: {{ .insecure }}
contract: {{ .contract }}
{{- range $key := list "schedule" "timeZone" "jitter" "compression" "loginEndpoint" }}
{{- with get $.Values.inventory $key | toString }}
{{- if and (ne . "") (ne . "<nil>") }}
{{ $key }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- range $key := list "completeEvery" "pageBytes" "maxObjectBytes" }}
{{- with get $.Values.inventory $key }}
{{ $key }}: {{ kindIs "string" . | ternary . (int64 .) }}
{{- end }}
{{- end }}
resources:
  {{- (include "metawire.types" $ | fromJson).inventory | toYaml | nindent 2 }}
customResources: {{ .customResources }}
{{- with .customResourceGroups }}
customResourceGroups:
  {{- toYaml . | nindent 2 }}
{{- end }}
helmReleases: {{ .helmReleases }}
changes: {{ .changes }}
redaction:
  {{- if not (include "metawire.inventory.redacts" $) }}
  mode: none
  {{- else }}
  mode: "on"
  secret: {namespace: {{ $ns }}, name: {{ $name }}-redaction}
  {{- end }}
{{- if not $cronJob }}
spool:
  directory: /var/lib/metawire/spool
  maxBytes: {{ .spool.size }}
{{- end }}
credentials:
  mode: {{ .credentials.mode }}
  {{- if eq .credentials.mode "bearer" }}
  tokenFile: /etc/metawire-credentials/token
  {{- else if eq .credentials.mode "accessKeys" }}
  accessKeyFile: /etc/metawire-credentials/accessKey
  secretKeyFile: /etc/metawire-credentials/secretKey
  {{- end }}
{{- if .caSecret }}
caFile: /etc/metawire-inventory-ca/ca.crt
{{- end }}
state:
  namespace: {{ $ns }}
  lease: {{ $name }}
  report: {{ $name }}-report
  {{- if .changes }}
  index: {{ $name }}-index
  {{- end }}
{{- if .overrideUniqueClusterId }}
overrideUniqueClusterId: true
{{- end }}
{{- end }}
{{- end }}

{{- /* What whoever speaks to the endpoint mounts. */}}
{{- define "metawire.inventory.endpoint.mounts" -}}
{{- with .Values.inventory -}}
{{- if ne .credentials.mode "none" }}
# Directories, not files by subPath: so a new credential arrives.
- name: inventory-credentials
  mountPath: /etc/metawire-credentials
  readOnly: true
{{- end }}
{{- if .caSecret }}
- name: inventory-ca
  mountPath: /etc/metawire-inventory-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "metawire.inventory.endpoint.volumes" -}}
{{- with .Values.inventory -}}
{{- if ne .credentials.mode "none" }}
# Whole: a key that is missing is told by the collector, by name.
- name: inventory-credentials
  secret:
    secretName: {{ include "metawire.inventory.credentialsSecret" $ | quote }}
    defaultMode: 0440
{{- end }}
{{- if .caSecret }}
- name: inventory-ca
  secret:
    secretName: {{ .caSecret | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What whoever makes runs mounts. */}}
{{- define "metawire.inventory.mounts" -}}
{{- include "metawire.inventory.endpoint.mounts" . }}
{{- if eq .Values.inventory.mode "Deployment" }}
- name: inventory-spool
  mountPath: /var/lib/metawire/spool
{{- end }}
{{- end }}

{{- define "metawire.inventory.volumes" -}}
{{- include "metawire.inventory.endpoint.volumes" . }}
{{- with .Values.inventory -}}
{{- if eq .mode "Deployment" }}
- name: inventory-spool
  emptyDir:
    # Twice what the collector keeps: who passes this is evicted, with its streams.
    sizeLimit: {{ regexFind "^[0-9]+" .spool.size | int | mul 2 }}{{ regexFind "[MG]i$" .spool.size }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The API server is never called by the proxy. */}}
{{- define "metawire.inventory.env" -}}
{{- with .Values.inventory.proxy }}
{{- if .url }}
- name: HTTPS_PROXY
  value: {{ .url | quote }}
- name: HTTP_PROXY
  value: {{ .url | quote }}
- name: NO_PROXY
  value: {{ printf "$(KUBERNETES_SERVICE_HOST),%s" (.except | default "") | trimSuffix "," | quote }}
{{- end }}
{{- end }}
{{- end }}
