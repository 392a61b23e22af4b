{{- /*
metawire.types: the one place that applies addTypes and removeTypes. Both the
RBAC rules and the collector's configuration come from what it returns, as JSON:

  collector   RBAC rules of the collectors: the configured types, nothing else
  cronJob     those of the inventory's own pods, with inventory.mode CronJob
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
{{- $groups := and .Values.inventory.enabled .Values.inventory.customResources | ternary .Values.inventory.customResourceGroups list | default list -}}
{{- range $entry := .Values.inventory.enabled | ternary .Values.removeTypes list -}}
  {{- $name := get $nameOf $entry | default $entry -}}
  {{- if and $groups (eq $name "customresourcedefinitions.apiextensions.k8s.io") -}}
    {{- fail (printf "removeTypes: %s cannot be taken out with inventory.customResources, which finds by them what there is to collect; leave them, or write the types that you want in addTypes instead" $entry) -}}
  {{- end -}}
  {{- $of := regexReplaceAll "^[^.]*[.]?" $name "" -}}
  {{- range $group := $groups -}}
    {{- if or (eq $of $group) (not (or $of (hasKey $nameOf $name))) -}}
      {{- fail (printf "removeTypes: %s cannot be taken out of inventory.customResourceGroups: %s, which is every resource of that API group; write the types that you want in addTypes instead" $entry $group) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $everyGroup := list -}}
{{- range $name := keys $inventory | sortAlpha -}}
  {{- if not (or (contains "." $name) (hasKey $nameOf $name)) -}}
    {{- $everyGroup = append $everyGroup $name -}}
  {{- end -}}
{{- end -}}
{{- $own := .Values.inventory.mode | eq "CronJob" -}}
{{- $rules := dict
  "collector" (list $stream ($own | ternary dict $inventory) ($own | ternary list $groups) $nameOf | include "metawire.types.rules" | fromJsonArray)
  "cronJob" (list dict ($own | ternary $inventory dict) ($own | ternary $groups list) $nameOf | include "metawire.types.rules" | fromJsonArray) -}}
{{- $collected := list -}}
{{- range $sensitive -}}
  {{- if hasKey $inventory . -}}{{- $collected = append $collected . -}}{{- end -}}
{{- end -}}
{{- merge $rules (dict "inventory" (keys $inventory | sortAlpha) "everyGroup" $everyGroup "sensitive" $collected "unmatched" $unmatched) | toJson -}}
{{- end }}

{{- /*
RBAC rules, as JSON, that grant what these sets of names say. Arguments: what is
watched, what is listed, groups of which everything is listed, resource -> name
of the known types.
*/}}
{{- define "metawire.types.rules" -}}
{{- $stream := index . 0 -}}
{{- $inventory := index . 1 -}}
{{- $nameOf := index . 3 -}}
{{- $resources := dict -}}{{- /* "group verbs" -> resources */ -}}
{{- range $group := index . 2 -}}
  {{- $_ := set $resources (printf "%s list" $group) (list "*") -}}
{{- end -}}
{{- range $name := concat (keys $stream) (keys $inventory) | uniq | sortAlpha -}}
  {{- $resource := index (splitList "." $name) 0 -}}
  {{- $group := trimPrefix $resource $name | trimPrefix "." -}}
  {{- if not (or $group (hasKey $nameOf $name)) -}}
    {{- $group = "*" -}}
  {{- end -}}
  {{- $key := printf "%s %s" $group (hasKey $stream $name | ternary "list,watch" "list") -}}
  {{- $is := get $resources $key | default list -}}
  {{- if not (has "*" $is) -}}
    {{- $_ := set $resources $key (append $is $resource) -}}
  {{- end -}}
{{- end -}}
{{- $rules := list -}}
{{- range $key := keys $resources | sortAlpha -}}
  {{- $group := index (splitList " " $key) 0 -}}
  {{- $verbs := index (splitList " " $key) 1 | splitList "," -}}
  {{- $rules = append $rules (dict "apiGroups" (list $group) "resources" (get $resources $key | sortAlpha) "verbs" $verbs) -}}
{{- end -}}
{{- $rules | toJson -}}
{{- end }}
