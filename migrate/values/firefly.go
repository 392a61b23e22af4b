package values

import (
	"slices"
	"strconv"
	"strings"
)

// What the program behind Firefly's charts takes where its ConfigMap says nothing.
const (
	fireflyEndpoint = "https://gateway.firefly.ai"
	fireflyLogin    = "https://prod.external.api.infralight.cloud"
)

// firefly is of Firefly's firefly-k8s-collector chart, 1.4 to 1.5.
func firefly(t *translator) {
	inventory(t)
	if on, _, ok := take[bool](t, "argocd.enabled", boolean); ok && on {
		t.tell("The crawler of Argo CD (argocd.enabled) has no counterpart here: it goes with the old release.")
	}
	t.drop("there is no counterpart here", "argocd", "existingFireFlyArgocdCredentialsSecret")
	t.drop("nothing signs the cluster on or off at the service here; the hook of the old release that signs it off is not run",
		"offBoarderImage", "onBoarder", "onBoarderImage", "appApiEndpoint", "isProduction")
}

// infralight is of the infralight-k8s-collector chart, up to 1.3.1.
func infralight(t *translator) {
	inventory(t)
}

// inventory is what both have in common: a CronJob, which stays one, and sends by
// the contract runs.
func inventory(t *translator) {
	t.set("stream.enabled", false)
	t.set("webhook.enabled", false)
	t.set("inventory.enabled", true)
	t.set("inventory.mode", "CronJob")
	t.set("inventory.contract", "runs")
	t.tell("The old release had no stream of metadata for Falco, so the new one has none; it is switched on with helm upgrade --reuse-values --set stream.enabled=true,webhook.enabled=true.")
	always(t, "clusterId", "clusterID")
	always(t, "schedule", "inventory.schedule")
	t.endpoints()
	t.credentials()
	t.move("image.pullPolicy", text, "image.pullPolicy")
	t.imageHost()
	t.drop("it names the predecessor's program", "image.tag", "image.repository")
	t.move("imagePullSecrets", list, "imagePullSecrets")
	t.move("serviceAccount.annotations", object, "inventory.serviceAccount.annotations")
	t.drop("a name for the whole cluster, the same in every release; the new release has names of its own", "serviceAccount.name", "serviceAccount.create", "clusterRole")
	t.resources()
	t.move("podSecurityContext", object, "collector.podSecurityContext")
	t.move("securityContext", object, "collector.containerSecurityContext")
	t.move("tolerations", list, "collector.tolerations")
	t.move("nodeSelector", object, "collector.nodeSelector")
	t.move("affinity", object, "collector.affinity")
	t.override()
	t.types()
	t.config()
	t.tell("The predecessor sent objects as they are. Metawire replaces credentials before anything is sent (values of Secrets and of environment variables by digests); inventory.redaction=none switches that off.")
}

// always gives a value to the new release, also if it was the old chart's default:
// ours is another.
func always(t *translator, key, to string) {
	if v, _, ok := take[string](t, key, text); ok && v != "" {
		t.set(to, v)
		t.note(key, Mapped, "", to)
	} else if ok && t.has(key) {
		t.note(key, Dropped, "it is empty")
	}
}

// endpoints carries over what the program made of its ConfigMap, or would.
func (t *translator) endpoints() {
	for _, e := range []struct{ key, live, to, usual string }{
		{"apiEndpoint", "endpoint", "inventory.endpoint", fireflyEndpoint},
		{"loginEndpoint", "loginEndpoint", "inventory.loginEndpoint", fireflyLogin},
	} {
		given, _, ok := take[string](t, e.key, text)
		if !ok {
			continue
		}
		used := endpoint(given, e.usual)
		if live := endpoint(t.Config[e.live], e.usual); t.Config != nil && live != used {
			used = live
			t.edited(e.live, Mapped, "it was edited in the cluster, which counts", e.to)
		}
		t.set(e.to, used)
		if strings.HasPrefix(used, "http://") {
			t.set("inventory.insecure", true)
			t.tell("What is sent to %s, and who sends it, can be read on the way, as before: it has no TLS.", Redacted(used))
		}
		switch {
		case !t.has(e.key):
		case given == "":
			t.note(e.key, Mapped, "as the predecessor's program has it where nothing is given", e.to)
		default:
			t.note(e.key, Mapped, "", e.to)
		}
	}
}

// endpoint is what the program makes of what it is given.
func endpoint(given, usual string) string {
	given = strings.TrimSuffix(strings.TrimSpace(given), "/")
	if given == "" || given == fireflyEndpoint+"/api" {
		return usual
	}
	return given
}

// credentials are never values: a Secret has them.
func (t *translator) credentials() {
	t.set("inventory.credentials.mode", "accessKeys")
	t.set("inventory.credentials.existingSecret", t.Credentials)
	for _, key := range []string{"accessKey", "secretKey", "existingFireFlyCredentialsSecret"} {
		if v, _ := t.value(key); t.has(key) {
			if empty(v) {
				t.note(key, Defaulted, "")
				continue
			}
			t.note(key, Mapped, "the new release reads Secret "+t.Credentials, "inventory.credentials.existingSecret")
		}
	}
}

// imageHost finds the registry in an image's name.
func (t *translator) imageHost() {
	const key = "image.repository"
	v, changed, ok := take[string](t, key, text)
	host, _, found := strings.Cut(v, "/")
	if ok && changed && found && strings.ContainsAny(host, ".:") {
		t.mirror(key, host)
	}
}

// resources carries over what was asked for on purpose; the old default, a whole
// CPU and 2 GiB, is not needed.
func (t *translator) resources() {
	key := "resources"
	if _, changed := t.value(key); !changed && t.has("reousrces") {
		key = "reousrces" // as one version of the chart wrote it
	}
	t.taken = append(t.taken, "resources")
	for _, k := range []string{"resources", "reousrces"} {
		if k != key && t.has(k) {
			t.value(k)
			t.note(k, Defaulted, "")
		}
	}
	v, changed, ok := take[map[string]any](t, key, object)
	switch {
	case !t.has(key) || !ok:
		return
	case !changed && key == "resources":
		t.note(key, Defaulted, "a run needs far less memory than the predecessor's")
		return
	}
	kept := map[string]any{}
	for _, what := range []string{"requests", "limits"} {
		given, _ := v[what].(map[string]any)
		for _, name := range []string{"cpu", "memory"} {
			if amount, ok := given[name]; ok && !empty(amount) {
				under, _ := kept[what].(map[string]any)
				kept[what] = coalesce(under, map[string]any{name: amount})
			}
		}
	}
	if len(kept) == 0 {
		t.note(key, Dropped, "neither cpu nor memory in requests or limits")
		return
	}
	t.set("inventory.resources", kept)
	reason := "cpu and memory; ephemeralStorage was for the crawler of Argo CD only"
	if key == "reousrces" {
		reason = "as that version of the chart spelled resources; " + reason
	}
	t.note(key, Mapped, reason, "inventory.resources")
}

// override: the chart wrote another key than the program read, so that only who
// edited the ConfigMap by hand was heard.
func (t *translator) override() {
	const key, live = "overrideUniqueClusterId", "collector.OverrideUniqueClusterId"
	t.drop("it was never honored: the chart wrote another key than the program read. With true, the service would give the cluster id to this cluster", key)
	if on, err := strconv.ParseBool(strings.TrimSpace(t.Config[live])); err == nil && on {
		t.set("inventory.overrideUniqueClusterId", true)
		t.edited(live, Mapped, "it was edited in the cluster, which counts", "inventory.overrideUniqueClusterId")
	}
}

// edited notes a key of the ConfigMap.
func (t *translator) edited(key string, o Outcome, reason string, to ...string) {
	value := show(key, strings.Join(strings.Fields(t.Config[key]), ", "))
	if o == Unknown {
		value = "" // it may be a secret
	}
	t.notes = append(t.notes, Note{Key: "configmap: " + key, Outcome: o, Value: value, Reason: reason, To: to})
}

// config says what becomes of the rest of the ConfigMap.
func (t *translator) config() {
	if t.Config == nil {
		return
	}
	const namespaces = "it is in the ConfigMap and was never honored: all namespaces were collected, and are"
	if size, err := strconv.Atoi(strings.TrimSpace(t.Config["collector.PageSize"])); err == nil && size > 0 && size != 1200 {
		t.set("inventory.pageBytes", strconv.Itoa(size*1000))
		t.edited("collector.PageSize", Mapped, "", "inventory.pageBytes")
	}
	known := []string{"endpoint", "loginEndpoint", "collector.resources", "collector.PageSize", "collector.OverrideUniqueClusterId", "collector.overrideUniqueClusterId"}
	for _, key := range sorted(t.Config) {
		switch {
		case key == "collector.watchNamespace", key == "collector.ignoreNamespaces":
			t.edited(key, Dropped, namespaces)
		case slices.Contains([]string{"collector.MaxGoRoutines", "collector.MongoMaxGoRoutines", "collector.MongoMaxRetries", "collector.PageTimeoutDuration"}, key):
			t.edited(key, Dropped, "there is no counterpart here: pages are sent again with a delay that grows, four at a time")
		case slices.Contains(known, key), strings.HasPrefix(key, "collector.resources."):
		default:
			t.edited(key, Unknown, "no such key is known")
		}
	}
}
