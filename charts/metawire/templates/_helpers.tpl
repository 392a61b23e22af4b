{{- /* Name of the chart, for labels. */}}
{{- define "metawire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* Prefix of object names; leaves room for a suffix within 63 characters. */}}
{{- define "metawire.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- /* A release's name may have dots, a Service's may not. */ -}}
{{- $full | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- /* Namespace of all objects that have one. */}}
{{- define "metawire.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{- define "metawire.collector.name" -}}
{{- include "metawire.fullname" . }}-collector
{{- end }}

{{- define "metawire.webhook.name" -}}
{{- include "metawire.fullname" . }}-webhook
{{- end }}

{{- /* Configurations are called in the order of their names: a late one sees the
containers that others added. */}}
{{- define "metawire.webhook.configurationName" -}}
zz-{{ include "metawire.webhook.name" . }}
{{- end }}

{{- /* The namespaces where Falco is wired, and reported if it is not. */}}
{{- define "metawire.webhook.namespaceSelector" -}}
{{- $user := .Values.webhook.namespaceSelector | default dict -}}
{{- with get $user "matchLabels" -}}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{ end -}}
matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}
  - {key: metawire.dev/inject, operator: NotIn, values: ["false"]}
  {{- with get $user "matchExpressions" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "metawire.viewer.name" -}}
{{- include "metawire.fullname" . }}-viewer
{{- end }}

{{- /* "true" or nothing: without a stream there is nothing to wire Falco to. */}}
{{- define "metawire.webhook.enabled" -}}
{{- if and .Values.webhook.enabled .Values.stream.enabled }}true{{ end -}}
{{- end }}

{{- /* "true" or nothing: whether subscribers are told apart, be it for the log. */}}
{{- define "metawire.authorizes" -}}
{{- if and .Values.stream.enabled (ne .Values.stream.authorization "disabled") }}true{{ end -}}
{{- end }}

{{- /* The Secret of the key that tickets are made with. */}}
{{- define "metawire.tickets.secret" -}}
{{- include "metawire.fullname" . }}-tickets
{{- end }}

{{- /* DNS name of the collector's Service, good in every namespace. */}}
{{- define "metawire.collector.host" -}}
{{- include "metawire.collector.name" . }}.{{ include "metawire.namespace" . }}.svc
{{- end }}

{{- /* "true" or nothing: without a stream, and with an inventory that has pods of
its own, collectors have nothing to do. */}}
{{- define "metawire.collector.enabled" -}}
{{- if or .Values.stream.enabled (eq (include "metawire.inventory.mode" .) "Deployment") }}true{{ end -}}
{{- end }}

{{- define "metawire.collector.serviceAccountName" -}}
{{- with .Values.collector.serviceAccount -}}
{{- .name | default (.create | ternary (include "metawire.collector.name" $) "default") -}}
{{- end -}}
{{- end }}

{{- define "metawire.webhook.serviceAccountName" -}}
{{- with .Values.webhook.serviceAccount -}}
{{- .name | default (.create | ternary (include "metawire.webhook.name" $) "default") -}}
{{- end -}}
{{- end }}

{{- /* Labels of every object. Argument: list of root context and component. */}}
{{- define "metawire.labels" -}}
{{- $own := include "metawire.ownLabels" . | fromYaml -}}
{{- merge $own ((index . 0).Values.commonLabels | default dict) | toYaml -}}
{{- end }}

{{- define "metawire.ownLabels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: metawire
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{ include "metawire.selectorLabels" . }}
{{- end }}

{{- /* Labels that never change, by which pods are selected. Argument: as above. */}}
{{- define "metawire.selectorLabels" -}}
{{ include "metawire.releaseLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Those of them that all pods of the release have. */}}
{{- define "metawire.releaseLabels" -}}
app.kubernetes.io/name: {{ include "metawire.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* Labels of a pod, and of no selector: those may not change. The first keeps
the pod away from every Metawire's webhook. Arguments: root context, component,
the user's labels. */}}
{{- define "metawire.podLabels" -}}
{{- $own := include "metawire.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "metawire.dev/own" "true" -}}
{{- merge $own (index . 2 | default dict) ((index . 0).Values.commonLabels | default dict) | toYaml -}}
{{- end }}

{{- /* Binds a role to a component. Arguments: root context, kind of the binding,
name of the role and of the binding, component, name of the ServiceAccount. */}}
{{- define "metawire.binding" }}
{{- $root := index . 0 }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ index . 1 }}
metadata:
  name: {{ index . 2 }}
  {{- if eq (index . 1) "RoleBinding" }}
  namespace: {{ include "metawire.namespace" $root | quote }}
  {{- end }}
  labels:
    {{- include "metawire.labels" (list $root (index . 3)) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ trimSuffix "Binding" (index . 1) }}
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 4 | quote }}
    namespace: {{ include "metawire.namespace" $root | quote }}
{{- end }}

{{- /* Address families of a Service. */}}
{{- define "metawire.ipFamilies" -}}
{{- with .Values.ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
