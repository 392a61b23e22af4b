{{- /* What the pods of all components share: those of the Deployments, of the
inventory's CronJob and of helm test. */}}

{{- /* global.imageRegistry takes the place of the repository's own registry. */}}
{{- define "metawire.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with get (.Values.global | default dict) "imageRegistry" -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- with .Values.image -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- /* Secrets for pulling the image, as a list of {name}: the umbrella chart's,
which may be written as names alone, and then this chart's. */}}
{{- define "metawire.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (get (.Values.global | default dict) "imagePullSecrets" | default list) (.Values.imagePullSecrets | default list) -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with $secrets | uniq -}}
{{- toYaml . -}}
{{- end -}}
{{- end }}

{{- /* Security contexts that Pod Security "restricted" admits. */}}
{{- define "metawire.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "metawire.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{- /* What the values lay over the chart's own. Arguments: root context, name of
the template with the own, what is laid over. */}}
{{- define "metawire.overlaid" -}}
{{- mergeOverwrite (include (index . 1) (index . 0) | fromYaml) (index . 2 | default dict | deepCopy) | include "metawire.withoutNulls" -}}
{{- end }}

{{- /* A map without the keys that are null, at any depth: who applies it, such as
Argo CD, need not know that null is as good as nothing. */}}
{{- define "metawire.withoutNulls" -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $_ := set $kept $key (include "metawire.withoutNulls" $value | fromYaml) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end }}

{{- /* Where pods may run: nodeSelector, tolerations. Argument: the values of a
daemon. */}}
{{- define "metawire.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The spec of a daemon's pod, or of the CronJob's, but what is its own.
Arguments: root context, the values of the daemon, the ServiceAccount's name. */}}
{{- define "metawire.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ index . 2 | quote }}
automountServiceAccountToken: true
{{- with include "metawire.imagePullSecrets" $root }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "metawire.overlaid" (list $root "metawire.podSecurityContext" (index . 1).podSecurityContext) | nindent 2 }}
{{- with index . 1 }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .dnsPolicy | default (get . "hostNetwork" | default false | ternary "ClusterFirstWithHostNet" "") }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "metawire.placement" . }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Their container. Arguments: root context, the values of the daemon, the
container's own resources, environment, volumeMounts. */}}
{{- define "metawire.container" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
image: {{ include "metawire.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with concat (index . 3 | fromYamlArray) ($values.extraEnv | default list) }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with index . 2 }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "metawire.overlaid" (list $root "metawire.containerSecurityContext" $values.containerSecurityContext) | nindent 2 }}
volumeMounts:
  # The directory, not the file by subPath: so an edit arrives.
  - name: config
    mountPath: /etc/metawire
    readOnly: true
  {{- with index . 4 | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Their volumes. Arguments: name of the ConfigMap, the values of the daemon,
the pod's own volumes. */}}
{{- define "metawire.volumes" -}}
- name: config
  configMap:
    name: {{ index . 0 }}
{{- with index . 2 | trim }}
{{ . }}
{{- end }}
{{- with (index . 1).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
