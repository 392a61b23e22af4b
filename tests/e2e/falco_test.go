package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/tests/falco/image"
	"github.com/metawire/metawire/tests/falco/plugin"
)

// falcos is a namespace of pods that know nothing of Metawire.
const falcos = "falco"

// statePort is where the stand-in for Falco shows its state, as Falco's web
// server does.
const statePort = 8765

// daemon is a DaemonSet as Falco's chart makes it: an emptyDir over /etc/falco, in
// it by subPath the ConfigMap's falco.yaml, plugins in an emptyDir, and the host.
type daemon struct {
	name   string
	config string // falco.yaml
	port   int    // of the state, default statePort
	change func(*corev1.PodTemplateSpec)
}

// stock is the falco.yaml of Falco's chart, as far as it matters here.
const stock = `config_files: [/etc/falco/config.d]
plugins:
- {name: container, library_path: libcontainer.so}
load_plugins: [container]
`

// byHand is a falco.yaml that configures the plugin without Metawire's help.
func byHand(host string, port int, nodeName, ca string) string {
	config, _ := json.Marshal(map[string]any{ //nolint:errchkjson // strings and a number only
		"collectorHostname": host, "collectorPort": port, "nodeName": nodeName, "caPEMBundle": ca,
	})
	return fmt.Sprintf("plugins:\n- {name: k8smeta, library_path: %s, init_config: %s}\nload_plugins: [k8smeta]\n", image.LibraryPath, config)
}

func (d daemon) labels() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "falco", "variant": d.name}
}

func (d daemon) selector() string {
	return metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: d.labels()})
}

// object makes the DaemonSet.
func (d daemon) object() *appsv1.DaemonSet {
	port := d.port
	if port == 0 {
		port = statePort
	}
	volume := func(name string, source corev1.VolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: source}
	}
	grace := int64(1)
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: d.labels()},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "falco", Image: image.Falco, ImagePullPolicy: corev1.PullNever,
				Args: []string{"/usr/bin/falco", "-o", "webserver.listen_port=" + strconv.Itoa(port)},
				Env: []corev1.EnvVar{
					{Name: "HOST_ROOT", Value: "/host"},
					{Name: "FALCO_K8S_NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
				},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: healthz(port)}},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "root-falco-fs", MountPath: "/root/.falco"},
					{Name: "proc-fs", MountPath: "/host/proc", ReadOnly: true},
					{Name: "etc-falco", MountPath: "/etc/falco"},
					{Name: "falco-yaml", MountPath: "/etc/falco/falco.yaml", SubPath: "falco.yaml"},
				},
			}},
			Volumes: []corev1.Volume{
				volume("root-falco-fs", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
				volume("etc-falco", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
				volume("proc-fs", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/proc"}}),
				volume("falco-yaml", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: d.name}}}),
			},
		},
	}
	if d.change != nil {
		d.change(&template)
	}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: d.name, Namespace: falcos},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: d.labels()}, Template: template},
	}
}

// trusting mounts the release's authority for a Falco that is configured by
// hand, at byHandCA.
func trusting(t *corev1.PodTemplateSpec) {
	t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: "ca", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "metawire-authority"}},
	}})
	c := &t.Spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "ca", MountPath: "/etc/metawire"})
}

const byHandCA = "/etc/metawire/ca.crt"

// unseen keeps the webhook away from a pod.
func unseen(t *corev1.PodTemplateSpec) {
	trusting(t)
	t.Annotations = map[string]string{wiring.InjectAnnotation: "false"}
}

// createFalcos makes the namespace, with the authority in it for those who
// configure Falco by hand.
func (w *world) createFalcos(t *testing.T) {
	t.Helper()
	if _, err := w.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: falcos}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, soon, func(ctx context.Context) error { // which makes a namespace usable
		_, err := w.api.CoreV1().ServiceAccounts(falcos).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	w.putConfigMap(t, "metawire-authority", "ca.crt", string(w.bundle(t)))
}

func (w *world) putConfigMap(t *testing.T, name, key, value string) {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: falcos}, Data: map[string]string{key: value}}
	maps := w.api.CoreV1().ConfigMaps(falcos)
	_, err := maps.Create(t.Context(), m, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = maps.Update(t.Context(), m, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// start makes the daemon, as somebody does who knows nothing of Metawire, and
// returns its pod once it runs.
func (w *world) start(t *testing.T, d daemon) corev1.Pod {
	t.Helper()
	w.create(t, d)
	return w.falcoPod(t, d)
}

// create makes the DaemonSet, whatever becomes of its pod.
func (w *world) create(t *testing.T, d daemon) {
	t.Helper()
	w.putConfigMap(t, d.name, "falco.yaml", d.config)
	if _, err := w.api.AppsV1().DaemonSets(falcos).Create(t.Context(), d.object(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// falcoPod returns the daemon's one pod once it is ready.
func (w *world) falcoPod(t *testing.T, d daemon) (pod corev1.Pod) {
	t.Helper()
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.pods(ctx, falcos, d.selector())
		if err != nil {
			return err
		}
		if len(pods) != 1 {
			return fmt.Errorf("%d pods", len(pods))
		}
		pod = pods[0]
		for _, c := range pod.Status.ContainerStatuses {
			if c.Ready {
				return nil
			}
		}
		return fmt.Errorf("pod %s is not ready: init %+v, containers %+v, annotations %v",
			pod.Name, pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Annotations)
	})
	return pod
}

// remove deletes the daemon and waits until its pod is gone.
func (w *world) remove(t *testing.T, d daemon) {
	t.Helper()
	if err := w.api.AppsV1().DaemonSets(falcos).Delete(t.Context(), d.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.pods(ctx, falcos, d.selector())
		if err == nil && len(pods) > 0 {
			err = errors.New("the pod is still there")
		}
		return err
	})
}

// removeAll deletes all daemons and waits until their pods are gone.
func (w *world) removeAll(t *testing.T) {
	t.Helper()
	if err := w.api.AppsV1().DaemonSets(falcos).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, started, func(ctx context.Context) error {
		pods, err := w.pods(ctx, falcos, "app.kubernetes.io/name=falco")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are still there", len(pods))
		}
		return err
	})
}

// state returns what the stand-in in a pod knows.
func (d daemon) state(ctx context.Context, pod corev1.Pod) (plugin.State, error) {
	port := d.port
	if port == 0 {
		port = statePort
	}
	var s plugin.State
	body, err := get(ctx, pod, port, "/k8smeta")
	if err == nil {
		err = json.Unmarshal([]byte(body), &s)
	}
	return s, err
}

// exactly waits until the daemon's Falco knows exactly what concerns its node,
// and nothing that it was told broke the contract.
func (w *world) exactly(t *testing.T, d daemon, pod corev1.Pod) (s plugin.State) {
	t.Helper()
	eventually(t, soon, func(ctx context.Context) error {
		var err error
		if s, err = d.state(ctx, pod); err != nil {
			return err
		}
		if !s.Loaded {
			return fmt.Errorf("the plugin is not loaded: %v", pod.Annotations)
		}
		want, err := w.expected(ctx)
		if err != nil {
			return err
		}
		if err := viewOf(s.Table).diff(want); err != nil {
			return fmt.Errorf("%w (streams ended: %v)", err, s.Ends)
		}
		return nil
	})
	for _, fault := range s.Faults {
		t.Errorf("pod %s: the contract is broken: %s", pod.Name, fault)
	}
	return s
}

// ended reports how a stand-in's streams ended, from the first to the last.
func ended(s plugin.State) string {
	var codes []string
	for _, e := range s.Ends {
		codes = append(codes, e.Code.String())
	}
	return strings.Join(codes, " ")
}
