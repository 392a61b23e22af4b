package values

import "strings"

// metacollector is of Falco's k8s-metacollector chart, 0.1 to 0.3.
func metacollector(t *translator) {
	t.set("stream.plaintext.enabled", true)
	t.replicas()
	t.image("image.registry")
	t.drop("it names the predecessor's program", "image.repository", "image.tag")
	t.pullSecrets("image.pullSecrets")
	t.drop("the new release runs beside the old one, under names of its own; the old Service keeps its name", "nameOverride", "fullnameOverride")
	t.drop("the new release is installed into that namespace, unless --to-namespace says otherwise", "namespaceOverride")
	t.account()
	for from, to := range map[string]string{
		"podAnnotations": "collector.podAnnotations", "podLabels": "collector.podLabels", "resources": "collector.resources",
		"nodeSelector": "collector.nodeSelector", "affinity": "collector.affinity",
		"podSecurityContext": "collector.podSecurityContext", "containerSecurityContext": "collector.containerSecurityContext",
	} {
		t.move(from, object, to)
	}
	t.move("tolerations", list, "collector.tolerations")
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		for _, timing := range []string{"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold", "successThreshold"} {
			t.move("healthChecks."+probe+"."+timing, number, "collector."+probe+"."+timing)
		}
		t.drop("our pods have paths and ports of their own", "healthChecks."+probe+".httpGet")
	}
	t.service()
	t.serviceMonitor()
	t.dashboard()
}

// dashboard has ours take the place of the predecessor's, whose metrics we have
// not got.
func (t *translator) dashboard() {
	const old, ours = "grafana.dashboards.", "monitoring.dashboard."
	switch on, _, ok := take[bool](t, old+"enabled", boolean); {
	case !ok || !on:
		if ok && t.has(old+"enabled") {
			t.note(old+"enabled", Defaulted, "")
		}
		t.drop("there is no dashboard", "grafana")
	default:
		t.set(ours+"enabled", true)
		t.note(old+"enabled", Mapped, "", ours+"enabled")
		t.move(old+"configMaps.collector.namespace", text, ours+"namespace")
		t.drop("ours has a name of its own, and goes to the folder that annotations say (monitoring.dashboard.annotations)", "grafana")
	}
}

func (t *translator) replicas() {
	if !t.has("replicaCount") {
		return
	}
	switch n, changed, ok := take[int64](t, "replicaCount", number); {
	case !ok:
	case !changed:
		t.note("replicaCount", Defaulted, "two collectors, so that one can go")
	default:
		t.set("collector.replicas", n)
		t.note("replicaCount", Mapped, "", "collector.replicas")
	}
}

// ourImage is what the chart pulls unless its values say otherwise.
const ourImage = "metawire/metawire"

// image carries over from where images are pulled, and when.
func (t *translator) image(registryKey string) {
	t.move("image.pullPolicy", text, "image.pullPolicy")
	if registryKey == "" || !t.has(registryKey) {
		return
	}
	switch registry, changed, ok := take[string](t, registryKey, text); {
	case !ok:
	case !changed || registry == "":
		t.note(registryKey, Defaulted, "")
	default:
		t.mirror(registryKey, registry)
	}
}

// mirror has the image come from the registry that the old one came from.
func (t *translator) mirror(key, registry string) {
	repository := strings.TrimSuffix(registry, "/") + "/" + ourImage
	t.set("image.repository", repository)
	t.note(key, Mapped, "", "image.repository")
	t.tell("Images come from %s: put ghcr.io/%s there as %s first, or say where it is: --set image.repository=REPOSITORY", registry, ourImage, repository)
}

// pullSecrets are of the pods; those in another namespace are not there.
func (t *translator) pullSecrets(key string) {
	t.move(key, list, "imagePullSecrets")
}

// account carries an account of the user's over; one of the old release goes.
func (t *translator) account() {
	t.move("serviceAccount.annotations", object, "collector.serviceAccount.annotations")
	create, _, ok1 := take[bool](t, "serviceAccount.create", boolean)
	name, _, ok2 := take[string](t, "serviceAccount.name", text)
	if !ok1 || !ok2 {
		return
	}
	if v, _ := at(t.all, "serviceAccount.create"); v == nil || create {
		t.note("serviceAccount.create", Defaulted, "")
		if name != "" {
			t.note("serviceAccount.name", Dropped, "the old release has an account of that name, and goes with it; the new one has one of its own")
		} else {
			t.note("serviceAccount.name", Defaulted, "")
		}
		return
	}
	t.set("collector.serviceAccount.create", false)
	t.note("serviceAccount.create", Mapped, "", "collector.serviceAccount.create")
	if name == "" {
		t.note("serviceAccount.name", Defaulted, "")
		return
	}
	t.set("collector.serviceAccount.name", name)
	t.note("serviceAccount.name", Mapped, "", "collector.serviceAccount.name")
	t.tell("ServiceAccount %s is yours: it must be in the new release's namespace, and gets the roles of the new collectors.", name)
}

// service says what becomes of the old Service, which stays as it is.
func (t *translator) service() {
	const stays = "the old Service stays, with its type and its ports, and leads to the new collectors"
	create, _, ok := take[bool](t, "service.create", boolean)
	if v, _ := at(t.all, "service.create"); ok && v != nil {
		if create {
			t.note("service.create", Dropped, stays)
		} else {
			t.note("service.create", Dropped, "there is no old Service that could lead to the new collectors")
			t.tell("The old release has no Service (service.create: false): whoever connects to its pods in another way must be led to the new collectors by hand.")
		}
	}
	t.drop(stays, "service.type", "service.ports")
}

// serviceMonitor carries over how Prometheus is told of the collectors.
func (t *translator) serviceMonitor() {
	const ours = "monitoring.serviceMonitor."
	on, _, ok := take[bool](t, "serviceMonitor.create", boolean)
	if !ok || !on {
		if ok && t.has("serviceMonitor.create") {
			t.note("serviceMonitor.create", Defaulted, "")
		}
		t.drop("there is no ServiceMonitor", "serviceMonitor")
		return
	}
	t.set(ours+"enabled", true)
	t.note("serviceMonitor.create", Mapped, "", ours+"enabled")
	t.move("serviceMonitor.labels", object, ours+"labels")
	t.move("serviceMonitor.interval", text, ours+"interval")
	t.move("serviceMonitor.scrapeTimeout", text, ours+"scrapeTimeout")
	t.move("serviceMonitor.relabelings", list, ours+"relabelings")
	t.move("serviceMonitor.targetLabels", list, ours+"targetLabels")
	t.move("serviceMonitor.namespace", text, ours+"namespace")
	t.drop("our metrics are at /metrics, without TLS", "serviceMonitor.path", "serviceMonitor.scheme", "serviceMonitor.tlsConfig")
}
