package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/check"
	"github.com/metawire/metawire/internal/wiring"
)

// Where the release's objects are.
const (
	ofNamespace    = "/api/v1/namespaces/" + namespace
	deploymentsOf  = "/apis/apps/v1/namespaces/" + namespace + "/deployments"
	rbacOf         = "/apis/rbac.authorization.k8s.io/v1"
	configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	ourHook        = configurations + "/zz-metawire-webhook"
	toCollector    = deploymentsOf + "/metawire-collector"
	toWebhook      = deploymentsOf + "/metawire-webhook"
)

func (b *breakages) ofProvided() []breakage {
	year := 365 * 24 * time.Hour
	leaf := func(change func(*x509.Certificate)) func(*testing.T) func() {
		return func(t *testing.T) func() {
			b.serveLeaf(t, change)
			return func() { b.serveLeaf(t, nil) }
		}
	}
	dates := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	return []breakage{
		{name: "expired certificate", breaks: leaf(dates(-year, -time.Hour)), id: "webhooks", says: []string{"certificate has expired or is not yet valid"},
			then: map[string]string{"webhook-certificate": "is expired, since", "canary": "failed above"}},
		{name: "certificate of tomorrow", breaks: leaf(dates(24*time.Hour, year)), id: "webhooks", says: []string{"certificate has expired or is not yet valid"},
			then: map[string]string{"webhook-certificate": "is not valid yet, but from"}},
		{name: "certificate for another name", breaks: leaf(func(c *x509.Certificate) { c.DNSNames = []string{collectorHost, "elsewhere.svc"} }), id: "webhook-certificate",
			says: []string{"is not for metawire-webhook.metawire.svc, but for [metawire-collector.metawire.svc elsewhere.svc]"}, then: map[string]string{"canary": "failed above"}},
		{name: "Secret of the certificate without its authority", breaks: func(t *testing.T) func() {
			return b.replace(t, ofNamespace+"/secrets/mine", "/data/ca.crt", `""`)
		}, id: "authorities", says: []string{"Secret mine holds no certificate in ca.crt", "you provide it"}},
	}
}

// ofFalco: what is with Falco pods, while everything else is well.
func (b *breakages) ofFalco() []breakage {
	return []breakage{
		{name: "Falco trusts an authority of before", breaks: func(t *testing.T) func() {
			return func() { b.renew(t, b.falco) }
		}, id: "falco-pods", says: []string{"trusts none of the certificate authorities", "rollout restart daemonset/own"}},
		{name: "image of the init container cannot be pulled", breaks: func(t *testing.T) func() {
			d := daemon{name: "no-image", config: stock, change: neverScheduled}
			pod := b.gated(t, d)
			path := "/api/v1/namespaces/" + falcos + "/pods/" + pod
			b.patch(t, path, types.StrategicMergePatchType, `{"spec": {"initContainers": [{"name": "metawire-wire", "image": "registry.invalid/metawire:0.0.0"}]}}`)
			b.patch(t, path, types.JSONPatchType, `[{"op": "remove", "path": "/spec/schedulingGates"}]`)
			return func() { b.remove(t, d) }
		}, id: "falco-pods", says: []string{"the image of its init container metawire-wire cannot be pulled", "registry.invalid/metawire:0.0.0"}},
		{name: "a Falco that asks for another node is refused", breaks: func(t *testing.T) func() {
			b.putConfigMap(t, "metawire-authority", "ca.crt", string(b.bundle(t)))
			d := daemon{name: "thief", config: byHand(collectorHost, 45000, "no-such-node", byHandCA), change: unseen}
			b.start(t, d)
			return func() { b.remove(t, d) }
		}, id: "subscribers", says: []string{"pod falco/thief-", "was refused node no-such-node"}},
		{name: "Falco does not start, though wired", breaks: func(t *testing.T) func() {
			d := daemon{name: "broken", config: stock, change: func(p *corev1.PodTemplateSpec) {
				p.Spec.Containers[0].Image = "registry.invalid/falco:0.43.1"
			}}
			b.create(t, d)
			return func() { b.remove(t, d) }
		}, id: "falco-pods", says: []string{"falco/broken-", "it is wired, and Falco does not run: ", "registry.invalid/falco:0.43.1", "check Falco's own image"}},
		{name: "a pod that was evicted, which is no fault", breaks: func(t *testing.T) func() {
			mend := b.make(t, ofNamespace+"/pods", `{"metadata": {"name": "evicted", "labels": {"app.kubernetes.io/instance": "metawire", "app.kubernetes.io/component": "collector"}},
				"spec": {"schedulingGates": [{"name": "e2e.invalid/never"}], "containers": [{"name": "collector", "image": "old"}]}}`)
			b.patchStatus(t, ofNamespace+"/pods/evicted", `{"status": {"phase": "Failed", "reason": "Evicted"}}`)
			return mend
		}, id: "collectors", outcome: check.OK, says: []string{"2 of 2 pods are ready"}},
		{name: "opted out, which is no fault", breaks: func(t *testing.T) func() {
			d := daemon{name: "out", config: stock, change: func(t *corev1.PodTemplateSpec) {
				t.Annotations = map[string]string{wiring.InjectAnnotation: "false"}
			}}
			b.start(t, d)
			return func() { b.remove(t, d) }
		}, id: "falco-pods", outcome: check.OK, says: []string{"1 opted out", "falco/out-", "its annotation metawire.dev/inject is"}},
	}
}

func (b *breakages) ofPermissions() []breakage {
	collectorRole := rbacOf + "/clusterroles/metawire-collector"
	return []breakage{
		{name: "no ClusterRoleBinding", breaks: func(t *testing.T) func() {
			return b.take(t, rbacOf+"/clusterrolebindings", "metawire-collector")
		}, id: "permissions", says: []string{"may not: ", "list and watch services", "no ClusterRoleBinding of the release is of ClusterRole metawire-collector"}},
		{name: "a type is missing in the ClusterRole", breaks: func(t *testing.T) func() {
			var role struct {
				Rules []map[string]any `json:"rules"`
			}
			raw, err := b.api.CoreV1().RESTClient().Get().AbsPath(collectorRole).DoRaw(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &role); err != nil {
				t.Fatal(err)
			}
			before := rules(t, role.Rules)
			without := strings.Replace(before, `"services"`, `"bindings"`, 1)
			return b.change(t, collectorRole, without, before)
		}, id: "permissions", says: []string{"may not: list and watch services"}},
		{name: "too much is granted", breaks: func(t *testing.T) func() {
			return b.make(t, rbacOf+"/clusterrolebindings", `{"metadata": {"name": "too-much"},
				"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
				"subjects": [{"kind": "ServiceAccount", "name": "metawire-collector", "namespace": "`+namespace+`"}]}`)
		}, id: "permissions", outcome: check.Warning, says: []string{"may also: get and list and watch secrets, create and delete pods"}},
		{name: "the webhooks may not keep their caBundle, which is wrong", breaks: func(t *testing.T) func() {
			mend := b.take(t, rbacOf+"/clusterrolebindings", "metawire-webhook")
			b.eventuallyMayNot(t, "metawire-webhook", authorizationv1.ResourceAttributes{
				Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations", Name: "zz-metawire-webhook",
			})
			ca, _ := authority(t, nil, nil, "somebody else", nil)
			b.patch(t, ourHook, types.JSONPatchType, fmt.Sprintf(`[{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": %s}]`, inJSON(t, encoded("CERTIFICATE", ca.Raw))))
			return mend
		}, id: "permissions", says: []string{"patch mutatingwebhookconfigurations.admissionregistration.k8s.io zz-metawire-webhook"},
			then: map[string]string{"authorities": "(somebody else) holds none of the authorities of Secret metawire-ca"}},
		{name: "a ServiceAccount deleted", breaks: func(t *testing.T) func() {
			mend := b.take(t, ofNamespace+"/serviceaccounts", "metawire-webhook")
			return func() {
				mend()
				eventually(t, soon, func(ctx context.Context) error { // as long as nobody restarts the pods
					if r := resultOf(b.check(ctx, t), "accounts"); !says(r, "is older than ServiceAccount metawire-webhook") || !says(r, "rollout restart deployment") {
						return fmt.Errorf("the account made anew is not told: %s", written([]check.Result{r}))
					}
					return nil
				})
				b.deletePods(t, "webhook")
			}
		}, id: "accounts", says: []string{"ServiceAccount metawire-webhook of the webhook is not there"}},
		{name: "Secret of the tickets deleted", breaks: func(t *testing.T) func() {
			return b.take(t, ofNamespace+"/secrets", "metawire-tickets")
		}, id: "tickets", says: []string{"Secret metawire-tickets is not there", "refuse every wired Falco"}},
		{name: "a key in the configuration that is none", breaks: func(t *testing.T) func() {
			path := ofNamespace + "/configmaps/metawire-collector"
			m, err := b.api.CoreV1().ConfigMaps(namespace).Get(t.Context(), "metawire-collector", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			data := func(text string) string { return `{"data": {"collector.yaml": ` + inJSON(t, text) + `}}` }
			return b.change(t, path, data(m.Data["collector.yaml"]+"\nstreams: {}\n"), data(m.Data["collector.yaml"]))
		}, id: "configuration", says: []string{"the collector's ConfigMap is not one that it takes", `unknown key "streams"`}},
		{name: "ConfigMap of the webhooks deleted", breaks: func(t *testing.T) func() {
			return b.take(t, ofNamespace+"/configmaps", "metawire-webhook")
		}, id: "configuration", says: []string{"the webhook's ConfigMap is not there"}},
		{name: "Secret of the authority deleted", breaks: func(t *testing.T) func() {
			return b.take(t, ofNamespace+"/secrets", "metawire-ca")
		}, id: "authorities", says: []string{"Secret metawire-ca is not there"}},
	}
}

func (b *breakages) ofNetwork() []breakage {
	toService, toHook := ofNamespace+"/services/metawire-collector", ofNamespace+"/services/metawire-webhook"
	port := func(name string, port int, target string) string { // the target in JSON
		return fmt.Sprintf(`{"spec": {"ports": [{"name": %q, "port": %d, "targetPort": %s}]}}`, name, port, target)
	}
	policies := func(namespace string) string {
		return "/apis/networking.k8s.io/v1/namespaces/" + namespace + "/networkpolicies"
	}
	policy := func(component string) string {
		return `{"metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "` + component + `"}}, "policyTypes": ["Ingress"]}}`
	}
	return []breakage{
		{name: "the Service is gone", breaks: func(t *testing.T) func() {
			services := b.api.CoreV1().Services(namespace)
			s, err := services.Get(t.Context(), "metawire-collector", metav1.GetOptions{})
			if err == nil {
				err = services.Delete(t.Context(), s.Name, metav1.DeleteOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { // with its address, which wired Falcos know
				s.ResourceVersion, s.UID = "", ""
				if _, err := services.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}, id: "release", says: []string{"has a Deployment of the collectors, and no Service that leads to it", "install it again as it was installed"}},
		{name: "the Service selects other pods", breaks: func(t *testing.T) func() {
			b.patch(t, toService, types.MergePatchType, `{"spec": {"selector": {"team": "a"}}}`) // beside the chart's, which an upgrade would leave
			return nil
		}, hinted: true, id: "collector-service", says: []string{"Service metawire-collector does not select pod"}},
		{name: "the Service leads to a wrong port", breaks: func(t *testing.T) func() {
			b.patch(t, toService, types.MergePatchType, port("grpc", 45000, "45999"))
			return nil
		}, hinted: true, id: "collector-service", says: []string{"leads to port 45999", "which listens on 45000"}},
		{name: "the Service has another port than Falco is wired to", breaks: func(t *testing.T) func() {
			b.patch(t, toService, types.MergePatchType, port("grpc", 45999, `"grpc"`))
			return nil
		}, hinted: true, id: "collector-service", says: []string{"wired to port 45000", "has port 45999"}},
		{name: "the webhook's Service leads nowhere", breaks: func(t *testing.T) func() {
			b.patch(t, toHook, types.MergePatchType, port("https", 443, `"nowhere"`))
			return nil
		}, hinted: true, id: "webhook-service", says: []string{"leads to port nowhere", "which listens on 9443"}},
		{name: "traffic to the webhook goes to an address that nobody has", breaks: func(t *testing.T) func() {
			return b.make(t, "/apis/discovery.k8s.io/v1/namespaces/"+namespace+"/endpointslices", `{"metadata": {"name": "stray", "labels": {"kubernetes.io/service-name": "metawire-webhook"}},
				"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"name": "https", "port": 9443, "protocol": "TCP"}]}`)
		}, id: "webhook-service", says: []string{"leads to 192.0.2.1 as well", "EndpointSlice stray"}},
		{name: "a NetworkPolicy closes the collectors", breaks: func(t *testing.T) func() {
			return b.make(t, policies(namespace), policy("collector"))
		}, id: "network-policies", says: []string{"NetworkPolicy deny admits nobody to port 45000"}},
		{name: "a NetworkPolicy admits others only", breaks: func(t *testing.T) func() {
			return b.make(t, policies(namespace), `{"metadata": {"name": "others"}, "spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "collector"}},
				"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}}`)
		}, id: "network-policies", says: []string{"NetworkPolicy others does not admit to port 45000", "falco/own-"}},
		{name: "a NetworkPolicy lets the daemons call DNS only", breaks: func(t *testing.T) func() {
			return b.make(t, policies(namespace), `{"metadata": {"name": "dns"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}}`)
		}, id: "network-policies", says: []string{"NetworkPolicy dns keeps pod metawire-collector-", "from the API server"}},
		{name: "a NetworkPolicy keeps Falco in", breaks: func(t *testing.T) func() {
			return b.make(t, policies(falcos), `{"metadata": {"name": "no-way"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}`)
		}, id: "network-policies", says: []string{"NetworkPolicy no-way in namespace falco keeps Falco pod own-", "from the collectors"}},
		{name: "a NetworkPolicy closes the webhooks", breaks: func(t *testing.T) func() {
			return b.make(t, policies(namespace), policy("webhook"))
		}, id: "network-policies", says: []string{"NetworkPolicy deny admits nobody to port 9443"}},
	}
}

// ofWebhook: what is with the webhook's pods, and with what the API server is told.
func (b *breakages) ofWebhook() []breakage {
	hook := func(pointer, value string) func(*testing.T) func() {
		return func(t *testing.T) func() { return b.replace(t, ourHook, "/webhooks/0"+pointer, value) }
	}
	return []breakage{
		{name: "the webhook is called by a URL", breaks: func(t *testing.T) func() {
			mend := b.replace(t, ourHook, "/webhooks/0/clientConfig", "")
			b.patch(t, ourHook, types.JSONPatchType, `[{"op": "remove", "path": "/webhooks/0/clientConfig/service"}, {"op": "add", "path": "/webhooks/0/clientConfig/url", "value": "https://elsewhere.invalid/mutate"}]`)
			return mend
		}, id: "registration", says: []string{"is not called at Service metawire-webhook of namespace metawire"}},
		{name: "webhook configuration deleted", breaks: func(t *testing.T) func() {
			return b.take(t, configurations, "zz-metawire-webhook")
		}, id: "webhooks", says: []string{"there is no MutatingWebhookConfiguration zz-metawire-webhook"},
			then: map[string]string{"registration": "MutatingWebhookConfiguration is not there"}},
		{name: "the webhook sees no namespace of Falco", breaks: hook("/namespaceSelector", `{"matchLabels": {"team": "none"}}`), id: "registration", says: []string{"sees namespaces with team=none"}},
		{name: "the webhook is not called for pods", breaks: hook("/rules/0/resources", `["services"]`), id: "registration", says: []string{"is not called when pods are created"}},
		{name: "the webhook is called at a port that is none", breaks: hook("/clientConfig/service/port", `8443`), id: "registration", says: []string{"called at port 8443 of Service metawire-webhook"}},
		{name: "the webhook knows no Falco", breaks: hook("/matchConditions", `[{"name": "none", "expression": "false"}]`), id: "registration",
			says: []string{"not called for a Falco pod in namespace falco: its matchCondition none (false) is not so"}, then: map[string]string{"canary": "failed above"}},
		{name: "somebody added a matchCondition, which an upgrade would keep", breaks: func(t *testing.T) func() {
			b.patch(t, ourHook, types.JSONPatchType, `[{"op": "add", "path": "/webhooks/0/matchConditions/-", "value": {"name": "team", "expression": "object.metadata.?labels[?'team'].orValue('') == 'a'"}}]`)
			return func() { // as the hint says
				if err := b.api.AdmissionregistrationV1().MutatingWebhookConfigurations().DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=metawire,app.kubernetes.io/instance=metawire"}); err != nil {
					t.Fatal(err)
				}
				b.upgrade(t, nil)
			}
		}, id: "registration", says: []string{"its matchCondition team (object.metadata", "kubectl delete mutatingwebhookconfigurations -l app.kubernetes.io/part-of=metawire,app.kubernetes.io/instance=metawire"}},
		{name: "Deployment of the webhooks deleted", breaks: func(t *testing.T) func() {
			return b.take(t, deploymentsOf, "metawire-webhook")
		}, id: "webhooks", says: []string{"there is no Deployment of the webhook: Falco pods that are made now run unwired"}},
		{name: "left of another release", breaks: func(t *testing.T) func() {
			return b.make(t, configurations, `{"metadata": {"name": "zz-left", "labels": {"app.kubernetes.io/part-of": "metawire", "app.kubernetes.io/instance": "left"}},
				"webhooks": [{"name": "left.metawire.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
				"clientConfig": {"service": {"namespace": "elsewhere", "name": "left"}}, "namespaceSelector": {"matchLabels": {"team": "none"}}}]}`)
		}, id: "release", says: []string{"MutatingWebhookConfiguration zz-left of release left in namespace elsewhere"}},
		{name: "webhooks scaled to zero", breaks: func(t *testing.T) func() {
			return b.change(t, toWebhook, `{"spec": {"replicas": 0}}`, `{"spec": {"replicas": 2}}`)
		}, id: "webhooks", says: []string{"Deployment metawire-webhook is scaled to zero"}},
		{name: "Falco made while no webhook answered", breaks: func(t *testing.T) func() {
			b.patchDeployment(t, namespace, "metawire-webhook", `{"spec": {"replicas": 0}}`)
			d := daemon{name: "unlucky", config: stock}
			b.start(t, d)
			b.patchDeployment(t, namespace, "metawire-webhook", `{"spec": {"replicas": 2}}`)
			return func() { b.remove(t, d) }
		}, id: "falco-pods", says: []string{"Falco runs without Metawire", "rollout restart daemonset/unlucky"}},
		{name: "an image that is not there", breaks: func(t *testing.T) func() {
			return b.template(t, toWebhook, container("webhook", b.image.Repository+":0.0.0"))
		}, id: "webhooks", says: []string{"ErrImageNeverPull", ":0.0.0"}},
		{name: "the webhook crashes", breaks: func(t *testing.T) func() {
			return b.template(t, toWebhook, `{"spec": {"containers": [{"name": "webhook", "args": ["--config", "/nowhere.yaml"]}]}}`)
		}, id: "webhooks", says: []string{"CrashLoopBackOff", "/nowhere.yaml"}},
	}
}

func (b *breakages) ofInventory() []breakage {
	return []breakage{
		{name: "endpoint down", breaks: func(t *testing.T) func() { // since the inventory was switched on
			return func() { b.endpoint.listen(); b.inventoryRun(t, "up") }
		}, id: "inventory", within: 6 * time.Minute, says: []string{"connection refused"}},
		{name: "login refused", breaks: func(t *testing.T) func() {
			b.endpoint.refuses.Store(true)
			b.inventoryRun(t, "refused")
			return func() { b.endpoint.refuses.Store(false); b.inventoryRun(t, "taken") }
		}, id: "inventory", says: []string{"401"}},
		{name: "no run when one was due", breaks: func(t *testing.T) func() {
			path := ofNamespace + "/configmaps/metawire-inventory-report"
			m, err := b.api.CoreV1().ConfigMaps(namespace).Get(t.Context(), "metawire-inventory-report", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			report := map[string]any{}
			if err := json.Unmarshal([]byte(m.Data["report.json"]), &report); err != nil {
				t.Fatal(err)
			}
			report["ended"] = time.Now().Add(-400 * 24 * time.Hour)
			data := func(text string) string { return `{"data": {"report.json": ` + inJSON(t, text) + `}}` }
			return b.change(t, path, data(inJSON(t, report)), data(m.Data["report.json"]))
		}, id: "inventory", says: []string{"a run was due at"}},
	}
}

func (b *breakages) ofCollector() []breakage {
	// A plugin that found no collector waits longer each time: Falco is made anew,
	// when there are collectors that give it a ticket.
	renewed := func(t *testing.T, mend func()) func() {
		return func() {
			mend()
			b.rolledOut(t, namespace, collector)
			b.renew(t, b.falco)
		}
	}
	return []breakage{
		{name: "Deployment of the collectors deleted", breaks: func(t *testing.T) func() {
			return renewed(t, b.take(t, deploymentsOf, "metawire-collector"))
		}, id: "collectors", says: []string{"there is no Deployment of the collector: nobody streams"}},
		{name: "collectors scaled to zero", breaks: func(t *testing.T) func() {
			return renewed(t, b.change(t, toCollector, `{"spec": {"replicas": 0}}`, `{"spec": {"replicas": 2}}`))
		}, id: "collectors", says: []string{"Deployment metawire-collector is scaled to zero", "scale deployment/metawire-collector --replicas=2"}},
		{name: "an old image", breaks: func(t *testing.T) func() {
			return b.template(t, toCollector, container("collector", b.image.Repository+":0.0.1"))
		}, id: "versions", says: []string{":0.0.1", "the daemons are not of one image"}},
		{name: "no node takes the pods", breaks: func(t *testing.T) func() {
			return b.template(t, toCollector, `{"spec": {"nodeSelector": {"disk": "none"}}}`)
		}, id: "collectors", says: []string{"Unschedulable", "node affinity/selector"}},
		{name: "a quota", breaks: func(t *testing.T) func() {
			mend := b.make(t, ofNamespace+"/resourcequotas", `{"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}`)
			b.deletePods(t, "collector")
			return renewed(t, mend)
		}, id: "collectors", says: []string{"exceeded quota: small"}},
		{name: "the collectors do not sync", breaks: func(t *testing.T) func() {
			role := rbacOf + "/clusterroles/metawire-collector"
			raw, err := b.api.CoreV1().RESTClient().Get().AbsPath(role).DoRaw(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var r struct {
				Rules []map[string]any `json:"rules"`
			}
			if err := json.Unmarshal(raw, &r); err != nil {
				t.Fatal(err)
			}
			before := rules(t, r.Rules)
			mend := b.change(t, role, strings.Replace(before, `"pods"`, `"bindings"`, 1), before)
			b.deletePods(t, "collector")
			return renewed(t, mend)
		}, id: "permissions", says: []string{"may not: list and watch pods"}, then: map[string]string{"collectors": "Pod: refused: "}},
	}
}

// ofNamespace is the last: nothing comes back.
func (b *breakages) ofNamespace() []breakage {
	return []breakage{{name: "the namespace was deleted", breaks: func(t *testing.T) func() {
		if err := b.api.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		return nil
	}, id: "release", says: []string{"MutatingWebhookConfiguration zz-metawire-webhook of release metawire", "without helm uninstall"}}}
}

// rules writes a role's rules, the same each time.
func rules(t *testing.T, all []map[string]any) string {
	t.Helper()
	return `{"rules": ` + inJSON(t, all) + `}`
}

func inJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
