{{- /* What the pods of helm test share. */}}

{{- /* Arguments: root context, what is tested, when: lower ones first, and none
after one that fails. */}}
{{- define "metawire.test.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "metawire.fullname" $root }}-test-{{ index . 1 }}
namespace: {{ include "metawire.namespace" $root | quote }}
labels:
  {{- include "metawire.labels" (list $root "test") | nindent 2 }}
  metawire.dev/own: "true"
annotations:
  helm.sh/hook: test
  helm.sh/hook-weight: {{ index . 2 | quote }}
  # It stays afterwards, so that its log can be read; and after an uninstall,
  # which no hook's object goes with.
  helm.sh/hook-delete-policy: before-hook-creation
{{- end }}

{{- define "metawire.test.spec" -}}
restartPolicy: Never
automountServiceAccountToken: false
{{- with include "metawire.imagePullSecrets" . }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "metawire.overlaid" (list . "metawire.podSecurityContext" .Values.collector.podSecurityContext) | nindent 2 }}
{{- include "metawire.placement" .Values.collector }}
{{- end }}

{{- define "metawire.test.container" -}}
image: {{ include "metawire.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command:
  - /usr/local/bin/probe
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 64Mi}
securityContext:
  {{- include "metawire.overlaid" (list . "metawire.containerSecurityContext" .Values.collector.containerSecurityContext) | nindent 2 }}
{{- end }}

{{- /* How a test reaches the API server, as its ServiceAccount. */}}
{{- define "metawire.test.api.mount" -}}
- name: api
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{- define "metawire.test.api.volume" -}}
- name: api
  projected:
    sources:
      - serviceAccountToken:
          expirationSeconds: 600
          path: token
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
{{- end }}

{{- /* What a test may do: there before its pod, and gone once all have passed or
one has failed. Arguments: root context, what is tested. */}}
{{- define "metawire.test.rights" -}}
{{- $root := index . 0 -}}
name: {{ include "metawire.fullname" $root }}-test-{{ index . 1 }}
namespace: {{ include "metawire.namespace" $root | quote }}
labels:
  {{- include "metawire.labels" (list $root "test") | nindent 2 }}
annotations:
  helm.sh/hook: test
  helm.sh/hook-weight: "-1"
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}
