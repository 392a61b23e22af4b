{{- /* The collector's configuration file. */}}
{{- define "metawire.collector.config" -}}
apiVersion: metawire.dev/v1alpha1
kind: CollectorConfig
{{- with .Values.clusterID }}
clusterID: {{ . | quote }}
{{- end }}
health:
  address: {{ printf ":%v" .Values.collector.ports.health | quote }}
metrics:
  address: {{ printf ":%v" .Values.collector.ports.metrics | quote }}
stream:
  enabled: {{ .Values.stream.enabled }}
  address: {{ printf ":%v" .Values.stream.port | quote }}
  tls:
    {{- include "metawire.tls.config" (list . "collector") | nindent 4 }}
  {{- if .Values.stream.plaintext.enabled }}
  plaintext:
    address: {{ printf ":%v" .Values.stream.plaintext.port | quote }}
  {{- end }}
  {{- with .Values.stream.pacing }}
  pacing:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not (has .Values.stream.maxAge (list nil "")) }}
  maxAge: {{ .Values.stream.maxAge | toString | quote }}
  {{- end }}
  authorization: {{ .Values.stream.authorization }}
  {{- if include "metawire.authorizes" . }}
  trustNodeAddresses: {{ .Values.stream.trustNodeAddresses }}
  {{- end }}
  {{- if .Values.stream.enabled }}
  # While authorization is off too: pods wired now are good when it is
  # switched on.
  tickets:
    secret:
      namespace: {{ include "metawire.namespace" . | quote }}
      name: {{ include "metawire.tickets.secret" . }}
  {{- end }}
report:
  unwiredPods: {{ include "metawire.webhook.enabled" . | eq "true" }}
  {{- if include "metawire.webhook.enabled" . }}
  # That of the webhook: elsewhere nobody misses anything.
  namespaceSelector:
    {{- include "metawire.webhook.namespaceSelector" . | nindent 4 }}
  {{- end }}
inventory:
  {{- if eq (include "metawire.inventory.mode" .) "Deployment" }}
  {{- include "metawire.inventory.config" . | nindent 2 }}
  {{- else }}
  enabled: false
  {{- end }}
{{- end }}

{{- /* The webhook's configuration file. */}}
{{- define "metawire.webhook.config" -}}
apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
address: {{ printf ":%v" .Values.webhook.port | quote }}
health:
  address: {{ printf ":%v" .Values.webhook.ports.health | quote }}
metrics:
  address: {{ printf ":%v" .Values.webhook.ports.metrics | quote }}
{{- if ne .Values.tls.source "certManager" }}
configuration: {{ include "metawire.webhook.configurationName" . }}
{{- end }}
tls:
  {{- include "metawire.tls.config" (list . "webhook") | nindent 2 }}
stream:
  host: {{ include "metawire.collector.host" . }}
  port: {{ .Values.stream.port }}
  service:
    namespace: {{ include "metawire.namespace" . | quote }}
    name: {{ include "metawire.collector.name" . }}
image:
  name: {{ include "metawire.image" . | quote }}
  pullPolicy: {{ .Values.image.pullPolicy }}
  {{- with .Values.webhook.imagePullSecrets | default (include "metawire.imagePullSecrets" . | fromYamlArray) }}
  pullSecrets:
    {{- range . }}
    - {{ .name | quote }}
    {{- end }}
  {{- end }}
plugin:
  {{- with .Values.webhook.plugin }}
  source: {{ .source }}
  {{- if eq .source "registry" }}
  reference: {{ required "webhook.plugin.reference: where the plugin's artifact is, is required when webhook.plugin.source is registry" .reference | quote }}
  {{- else }}
  path: {{ required (printf "webhook.plugin.path: where the library is, is required when webhook.plugin.source is %s" .source) .path | quote }}
  {{- end }}
  {{- if eq .source "image" }}
  image: {{ required "webhook.plugin.image: an image is required when webhook.plugin.source is image" .image | quote }}
  {{- end }}
  {{- if and .plainHTTP (ne .source "preinstalled") }}
  plainHTTP: true
  {{- end }}
  {{- end }}
{{- end }}
