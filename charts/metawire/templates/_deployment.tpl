{{- /* The Deployment of a daemon. Arguments: root context, component, the values of
it. What a daemon has of its own are templates metawire.<component>.*: config,
args, ports, env, mounts, volumes, strategy, livenessProbe, readinessProbe,
podSpec. */}}
{{- define "metawire.deployment" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- $own := printf "metawire.%s" $component -}}
{{- $selector := include "metawire.selectorLabels" (list $root $component) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include (printf "%s.name" $own) $root }}
  namespace: {{ include "metawire.namespace" $root | quote }}
  labels:
    {{- include "metawire.labels" (list $root $component) | nindent 4 }}
  {{- with $values.deploymentAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  replicas: {{ $values.replicas }}
  strategy:
    {{- include "metawire.strategy" (list $root (printf "%s.strategy" $own) $values.updateStrategy) | nindent 4 }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "metawire.podLabels" (list $root $component $values.podLabels) | nindent 8 }}
      annotations:
        {{- merge (dict "checksum/config" (include (printf "%s.config" $own) $root | sha256sum)) ($values.podAnnotations | default dict) | toYaml | nindent 8 }}
    spec:
      {{- include "metawire.pod" (list $root $values (include (printf "%s.serviceAccountName" $own) $root)) | nindent 6 }}
      {{- include (printf "%s.podSpec" $own) $root | nindent 6 }}
      topologySpreadConstraints:
        {{- include "metawire.topologySpread" (list $values $selector) | trim | nindent 8 }}
      containers:
        - name: {{ $component }}
          command:
            - /usr/local/bin/{{ $component }}
          args:
            - --config
            - /etc/metawire/{{ $component }}.yaml
            - --log-level
            - {{ $values.logLevel }}
            - --log-format
            - {{ $values.logFormat }}
            {{- with $values.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- with include (printf "%s.ports" $own) $root }}
            {{- . | nindent 12 }}
            {{- end }}
            - name: health
              containerPort: {{ $values.ports.health }}
              protocol: TCP
            - name: metrics
              containerPort: {{ $values.ports.metrics }}
              protocol: TCP
          # /healthz waits for nothing, only /readyz does. Over HTTP: a bare
          # connection to a TLS port would be logged as a failed handshake.
          startupProbe:
            httpGet: {path: /healthz, port: health}
            periodSeconds: 2
            failureThreshold: 60
            timeoutSeconds: 2
          livenessProbe:
            {{- include "metawire.overlaid" (list $root "metawire.livenessProbe" $values.livenessProbe) | nindent 12 }}
          readinessProbe:
            {{- include "metawire.overlaid" (list $root (printf "%s.readinessProbe" $own) $values.readinessProbe) | nindent 12 }}
          {{- include "metawire.container" (list $root $values $values.resources (include (printf "%s.env" $own) $root) (include (printf "%s.mounts" $own) $root)) | nindent 10 }}
      volumes:
        {{- include "metawire.volumes" (list (include (printf "%s.name" $own) $root) $values (include (printf "%s.volumes" $own) $root)) | nindent 8 }}
{{- end }}

{{- define "metawire.livenessProbe" -}}
httpGet: {path: /healthz, port: health}
periodSeconds: 10
failureThreshold: 6
timeoutSeconds: 5
{{- end }}

{{- define "metawire.readinessProbe" -}}
httpGet: {path: /readyz, port: health}
periodSeconds: 2
failureThreshold: 3
timeoutSeconds: 2
{{- end }}

{{- /* Arguments: as of metawire.overlaid. Recreate takes no numbers. */}}
{{- define "metawire.strategy" -}}
{{- $strategy := include "metawire.overlaid" . | fromYaml -}}
{{- if eq $strategy.type "Recreate" }}{{ $strategy = omit $strategy "rollingUpdate" }}{{ end -}}
{{- toYaml $strategy -}}
{{- end }}

{{- /* By default over nodes, as far as that goes. A constraint that does not say
which pods it counts, counts those of its own version: else a rollout counts the
pods that are about to go. Arguments: the values of the daemon, its selector. */}}
{{- define "metawire.topologySpread" -}}
{{- $constraints := (index . 0).topologySpreadConstraints | default (list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway")) -}}
{{- $counted := dict "labelSelector" (dict "matchLabels" (index . 1 | fromYaml)) "matchLabelKeys" (list "pod-template-hash") -}}
{{- range $constraint := $constraints }}
- {{ hasKey $constraint "labelSelector" | ternary $constraint (merge (deepCopy $constraint) $counted) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
