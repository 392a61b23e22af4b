{{- /*
Where the certificates come from, for both daemons alike. Nothing is generated
or looked up here: two renderings are the same bytes.
*/}}

{{- /* The Secret of the authority that the daemons keep by themselves. */}}
{{- define "metawire.tls.authoritySecret" -}}
{{- include "metawire.fullname" . }}-ca
{{- end }}

{{- /* cert-manager's: a name of its own, else Helm would delete what cert-manager
has just written when tls.source changes. */}}
{{- define "metawire.tls.issuer" -}}
{{- include "metawire.fullname" . }}-authority
{{- end }}

{{- /* The Secret of a daemon's certificate, for every source but selfManaged.
Arguments: root context, component. */}}
{{- define "metawire.tls.secret" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.tls.source "provided" -}}
{{- required "tls.provided.secretName: the name of a Secret is required when tls.source is provided" $root.Values.tls.provided.secretName -}}
{{- else -}}
{{- include "metawire.fullname" $root }}-{{ index . 1 }}-tls
{{- end -}}
{{- end }}

{{- /* The Secret whose ca.crt verifies the stream. */}}
{{- define "metawire.tls.caSecret" -}}
{{- if eq .Values.tls.source "selfManaged" -}}
{{- include "metawire.tls.authoritySecret" . }}
{{- else -}}
{{- include "metawire.tls.secret" (list . "collector") }}
{{- end -}}
{{- end }}

{{- /* The names of a daemon's Service. Arguments: root context, component. */}}
{{- define "metawire.tls.dnsNames" -}}
{{- $name := printf "%s-%s" (include "metawire.fullname" (index . 0)) (index . 1) -}}
{{- $ns := include "metawire.namespace" (index . 0) -}}
- {{ $name }}
- {{ $name }}.{{ $ns }}
- {{ $name }}.{{ $ns }}.svc
{{- end }}

{{- /* tls in a daemon's configuration. Arguments: root context, component. */}}
{{- define "metawire.tls.config" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.tls.source "selfManaged" -}}
mode: selfManaged
secret:
  namespace: {{ include "metawire.namespace" $root | quote }}
  name: {{ include "metawire.tls.authoritySecret" $root }}
dnsNames:
  {{- include "metawire.tls.dnsNames" . | nindent 2 }}
{{- else -}}
mode: files
certFile: /etc/metawire-tls/tls.crt
keyFile: /etc/metawire-tls/tls.key
caFile: /etc/metawire-tls/ca.crt
{{- end -}}
{{- end }}

{{- /* Arguments of both: root context, component. */}}
{{- define "metawire.tls.mounts" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.stream.enabled (ne $root.Values.tls.source "selfManaged") -}}
# The directory, not files by subPath: so a renewed certificate arrives.
- name: tls
  mountPath: /etc/metawire-tls
  readOnly: true
{{- end -}}
{{- end }}

{{- define "metawire.tls.volumes" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.stream.enabled (ne $root.Values.tls.source "selfManaged") -}}
- name: tls
  secret:
    secretName: {{ include "metawire.tls.secret" . | quote }}
    defaultMode: 0440
{{- end -}}
{{- end }}
