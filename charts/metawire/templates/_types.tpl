{{- /*
metawire.types: the one place that applies addTypes and removeTypes. Both the
RBAC rules and the collector's configuration come from what it returns, as JSON:

  rules       RBAC rules that grant the configured types and nothing else
  inventory   names of the types that the inventory lists, sorted
  everyGroup  those of them that nobody knows, written without a group, and
              thus granted in every group
  sensitive   those of them that hold credentials
  unmatched   entries of removeTypes that removed nothing

The name of a type is resource.group, or the resource alone in the core group,
as kubectl writes it. A name without a dot that the table does not know stands
for that resource in every group.
*/}}
{{- define "metawire.types" -}}
{{- $nameOf := dict -}}{{- /* resource -> name of the known type */ -}}
{{- $stream := dict -}}{{- /* sets: name -> true */ -}}
{{- $inventory := dict -}}
{{- $sensitive := list -}}
{{- $unmatched := list -}}
{{- range .Files.Get "files/resource-types.yaml" | fromYamlArray -}}
  {{- $name := printf "%s.%s" .resource .group | trimSuffix "." -}}
  {{- $_ := set $nameOf .resource $name -}}
  {{- if and .streamed $.Values.stream.enabled -}}
    {{- $_ := set $stream $name true -}}
  {{- end -}}
  {{- if and .inventory $.Values.inventory.enabled -}}
    {{- $_ := set $inventory $name true -}}
  {{- end -}}
  {{- if .sensitive -}}
    {{- $sensitive = append $sensitive $name -}}
  {{- end -}}
{{- end -}}
{{- if .Values.inventory.enabled -}}
  {{- range .Values.addTypes -}}
    {{- $_ := set $inventory (get $nameOf . | default .) true -}}
  {{- end -}}
  {{- range $entry := .Values.removeTypes -}}
    {{- $remove := get $nameOf $entry | default $entry -}}
    {{- $removeEveryGroup := not (or (contains "." $remove) (hasKey $nameOf $remove)) -}}
    {{- $found := false -}}
    {{- range $name := keys $inventory -}}
      {{- $resource := index (splitList "." $name) 0 -}}
      {{- $everyGroup := not (or (contains "." $name) (hasKey $nameOf $name)) -}}
      {{- if or (eq $name $remove) (and $removeEveryGroup (eq $resource $remove)) -}}
        {{- $_ := unset $inventory $name -}}
        {{- $found = true -}}
      {{- else if and $everyGroup (hasPrefix (printf "%s." $name) $remove) -}}
        {{- fail (printf "removeTypes: %s cannot be taken out of addTypes: %s, which is that resource in every API group; write the groups that you want instead, such as %s.example.com" $entry $name $name) -}}
      {{- end -}}
    {{- end -}}
    {{- if not $found -}}
      {{- $unmatched = append $unmatched $entry -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $everyGroup := list -}}
{{- $resources := dict -}}{{- /* "group verbs" -> resources */ -}}
{{- range $name := concat (keys $stream) (keys $inventory) | uniq | sortAlpha -}}
  {{- $resource := index (splitList "." $name) 0 -}}
  {{- $group := trimPrefix $resource $name | trimPrefix "." -}}
  {{- if not (or $group (hasKey $nameOf $name)) -}}
    {{- $group = "*" -}}
    {{- $everyGroup = append $everyGroup $name -}}
  {{- end -}}
  {{- $key := printf "%s %s" $group (hasKey $stream $name | ternary "list,watch" "list") -}}
  {{- $_ := set $resources $key (append (get $resources $key | default list) $resource) -}}
{{- end -}}
{{- $rules := list -}}
{{- range $key := keys $resources | sortAlpha -}}
  {{- $group := index (splitList " " $key) 0 -}}
  {{- $verbs := index (splitList " " $key) 1 | splitList "," -}}
  {{- $rules = append $rules (dict "apiGroups" (list $group) "resources" (get $resources $key | sortAlpha) "verbs" $verbs) -}}
{{- end -}}
{{- $collected := list -}}
{{- range $sensitive -}}
  {{- if hasKey $inventory . -}}{{- $collected = append $collected . -}}{{- end -}}
{{- end -}}
{{- dict "rules" $rules "inventory" (keys $inventory | sortAlpha) "everyGroup" $everyGroup "sensitive" $collected "unmatched" $unmatched | toJson -}}
{{- end }}
