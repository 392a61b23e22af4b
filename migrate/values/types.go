package values

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// fireflyTypes are what the program collects unless it is told otherwise.
func fireflyTypes() []string {
	return strings.Fields(`apiservices analysistemplates clusteranalysistemplates clusterroles clusterrolebindings configmaps
		controllerrevisions cronjobs csinodes customresourcedefinitions daemonsets deployments endpoints endpointslices
		flowschemas ingresses jobs leases namespaces networkpolicies nodes persistentvolumeclaims persistentvolumes pods
		priorityclasses prioritylevelconfigurations replicasets replicationcontrollers roles rolebindings rollouts
		rollouts/finalizers rollouts/status serviceaccounts services services/status statefulsets storageclasses
		poddisruptionbudgets podsecuritypolicies ingressclasses volumeattachments csidrivers
		validatingwebhookconfigurations mutatingwebhookconfigurations runtimeclasses horizontalpodautoscalers`)
}

const secrets = "secrets"

// types finds out what the predecessor collected, and has the new release collect
// the same: what differs from our defaults is in addTypes and removeTypes.
func (t *translator) types() {
	collected, everything, ok := t.collected()
	if !ok {
		return
	}
	var add, remove []string
	want := map[string]bool{}
	for _, name := range collected {
		for _, known := range t.known(name) {
			want[known] = true
			if def, ours := t.Types[known]; !ours || !def {
				add = append(add, known)
			}
		}
	}
	for name, def := range t.Types {
		if def && !want[name] {
			remove = append(remove, name)
		}
	}
	t.setList("addTypes", add)
	t.setList("removeTypes", t.removable(remove, everything))
	if want[secrets] {
		t.set("inventory.helmReleases", true)
	} else {
		t.tell("The predecessor reported Helm releases, for which its role read all Secrets. Metawire does so only when it may: --set addTypes={...,secrets} --set inventory.helmReleases=true.")
	}
	t.custom(everything)
}

// removable leaves out what the chart would not take beside the groups of custom
// resources: the types of those groups, and the type that they are found by. The
// predecessor collected them whatever its removeTypes said.
func (t *translator) removable(remove []string, everything bool) []string {
	if !everything || len(t.CustomGroups) == 0 {
		return remove
	}
	return slices.DeleteFunc(remove, func(name string) bool {
		_, group, _ := strings.Cut(name, ".")
		kept := slices.Contains(t.CustomGroups, group) || name == "customresourcedefinitions.apiextensions.k8s.io"
		if kept {
			t.tell("Type %s is collected although it was taken out: the predecessor collected all custom resources whatever it was told. To take it out, take its group out of inventory.customResourceGroups.", name)
		}
		return kept
	})
}

func (t *translator) setList(key string, all []string) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	var list []any
	for _, s := range slices.Compact(all) {
		list = append(list, s)
	}
	t.set(key, list)
}

// collected is what the predecessor collects: what its ConfigMap says, or else
// what its values would make of it. everything says that its role let it read all.
func (t *translator) collected() (all []string, everything, ok bool) {
	removed, _, ok1 := take[[]any](t, "removeTypes", names)
	added, _, ok2 := take[[]any](t, "addTypes", names)
	withSecrets, _, ok3 := take[bool](t, "collectSecrets", boolean)
	withEvents, _, ok4 := take[bool](t, "collectEvents", boolean)
	withArgo, _, ok5 := take[bool](t, "collectArgoApplications", boolean)
	everything, _, ok6 := take[bool](t, "fetchEverything", boolean)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
		return nil, false, false
	}
	if v, _ := at(t.all, "fetchEverything"); v == nil && t.Chart == Infralight {
		everything = true // before there was the key
	}
	all = slices.DeleteFunc(fireflyTypes(), func(name string) bool { return slices.Contains(removed, any(name)) })
	for _, name := range added {
		all = append(all, name.(string)) //nolint:errcheck // names are texts
	}
	for name, on := range map[string]bool{secrets: withSecrets, "events": withEvents, "applications": withArgo && len(t.Served["applications"]) > 0} {
		if on {
			all = append(all, name)
		}
	}
	t.typeNotes(len(removed) > 0, len(added) > 0)
	return t.live(all), everything, true
}

// typeNotes says what becomes of the values that decide what is collected.
func (t *translator) typeNotes(removed, added bool) {
	for _, n := range []struct {
		key, to string
		given   bool
	}{{"removeTypes", "removeTypes", removed}, {"addTypes", "addTypes", added}} {
		switch {
		case !t.has(n.key):
		case n.given:
			t.note(n.key, Mapped, "with the API groups of the types", n.to)
		default:
			t.note(n.key, Defaulted, "")
		}
	}
	for key, type_ := range map[string]string{"collectSecrets": secrets, "collectEvents": "events", "collectArgoApplications": "applications"} {
		v, _ := at(t.all, key)
		switch on, _ := v.(bool); {
		case !t.has(key):
		case on && type_ == "applications" && len(t.Served[type_]) == 0:
			t.note(key, Dropped, "the cluster has no Argo CD applications")
		case on:
			t.note(key, Mapped, "it is the type "+type_, "addTypes")
		default:
			t.note(key, Defaulted, "")
		}
	}
}

// live lets what stands in the ConfigMap decide.
func (t *translator) live(rendered []string) []string {
	all := rendered
	if lines := strings.Fields(t.Config["collector.resources"]); len(lines) > 0 {
		all = lines
		if !equal(lines, rendered) && !equal(lines, withoutNew(rendered)) {
			t.edited("collector.resources", Mapped, "it differs from what the values make, and counts", "addTypes", "removeTypes")
		}
	}
	for _, key := range sorted(t.Config) { // as old versions had it, a key for each
		name, single := strings.CutPrefix(key, "collector.resources.")
		if !single {
			continue
		}
		name = strings.ToLower(name)
		on, err := strconv.ParseBool(strings.TrimSpace(t.Config[key]))
		all = slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name })
		if err == nil && on {
			all = append(all, name)
		}
		t.edited(key, Mapped, "", "addTypes", "removeTypes")
	}
	return all
}

// withoutNew is what ConfigMaps of charts before 1.5 lack of the list.
func withoutNew(all []string) []string {
	later := strings.Fields(`poddisruptionbudgets podsecuritypolicies ingressclasses volumeattachments csidrivers
		validatingwebhookconfigurations mutatingwebhookconfigurations runtimeclasses horizontalpodautoscalers`)
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(later, n) })
}

func equal(a, b []string) bool {
	return slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b))))
}

// known returns our names for one of the predecessor's: with API groups. What can
// never be listed has none.
func (t *translator) known(name string) []string {
	if strings.Contains(name, "/") {
		return nil // a part of a type, which is not listed on its own
	}
	for ours := range t.Types {
		if plural, _, _ := strings.Cut(ours, "."); ours == name || plural == name {
			return []string{ours}
		}
	}
	if strings.Contains(name, ".") {
		return []string{name}
	}
	groups := t.Served[name]
	if len(groups) == 0 {
		if !slices.Contains(fireflyTypes(), name) { // of those some are gone from Kubernetes, or of products that are not there
			t.tell("Type %s is not served by the cluster: it is written as it is, which grants it in every API group. Write it with its group: addTypes={%s.GROUP}", name, name)
			return []string{name}
		}
		return nil
	}
	var all []string
	for _, g := range groups {
		all = append(all, strings.TrimSuffix(name+"."+g, "."))
	}
	return all
}

// custom carries custom resources over: what a run lacks, the service deletes.
func (t *translator) custom(everything bool) {
	const key = "fetchEverything"
	if !everything {
		if t.has(key) {
			t.note(key, Dropped, "the role is made of the types that are collected")
		}
		t.tell("What the old role could read: the types that it names, in every API group. What the new one can: the types that are collected, each in its own group, and nothing else.")
		return
	}
	t.tell("What the old role could read: everything in the cluster, the contents of all Secrets too (fetchEverything). What the new one can: list the types that are collected, and nothing else; Secrets only if they are one of them.")
	if len(t.CustomGroups) == 0 {
		t.note(key, Dropped, "the role is made of the types that are collected; the cluster has no custom resources")
		return
	}
	t.set("inventory.customResources", true)
	t.setList("inventory.customResourceGroups", slices.Clone(t.CustomGroups))
	t.note(key, Mapped, "all custom resources were collected: the groups that the cluster has are listed, others are not read", "inventory.customResources", "inventory.customResourceGroups")
	t.tell("Custom resources of groups that come to the cluster later are collected when inventory.customResourceGroups names them.")
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
