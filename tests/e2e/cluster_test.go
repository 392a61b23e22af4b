package e2e_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/e2e/release"
	falcoimage "github.com/metawire/metawire/tests/falco/image"
)

const (
	namespace = "metawire"
	collector = "metawire-collector" // its Deployment, Service, ConfigMap and ServiceAccount
	// started bounds how long pods may take to be ready on a busy machine.
	started = 90 * time.Second
	// soon bounds what takes one step of a controller or of the kubelet.
	soon = 30 * time.Second
	// reconfigured bounds the way of an edited ConfigMap: the kubelet's and the
	// collector's looks at it, the two minutes over which replicas restart, the
	// drain, and the start.
	reconfigured = 3*time.Minute + soon
	// logTail is how many lines of a pod's log a failure shows.
	logTail = 60
)

func TestMain(m *testing.M) {
	cluster.Init()
	// What runs in parallel here waits for pods and Leases more than it works.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // before any test runs, the only way to fail
	}
	m.Run()
}

// world is a cluster with one node, whose images hold the project's.
type world struct {
	cluster  *cluster.Cluster
	config   *rest.Config
	api      kubernetes.Interface
	node     string
	image    release.Image
	helm     *release.Release
	registry *falcoimage.Registry
	temp     string // directory
	binary   string // of the command line, once it is built
}

// imageArchive is where the project's image is.
func imageArchive() string {
	return cmp.Or(os.Getenv("METAWIRE_IMAGE"), "../../bin/image/metawire.tar")
}

// newWorld boots the cluster, which ends with the test. Its node has the project's
// image, the stand-in for Falco, and those of further archives.
func newWorld(t *testing.T, name string, subnet int, archives ...string) *world {
	t.Helper()
	archive := imageArchive()
	image, err := release.ImageIn(archive)
	if err != nil {
		t.Fatal(err)
	}
	falco := filepath.Join(t.TempDir(), "falco.tar")
	if err := falcoimage.Build(t.Context(), falco); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{
		Size: cluster.Node, Name: name, Subnet: subnet, Images: append([]string{archive, falco}, archives...), Log: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := &world{cluster: c, image: image, temp: t.TempDir()}
	if w.registry, err = falcoimage.Serve(t.Context(), c.HostIP()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.registry.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		t.Fatal(err)
	}
	w.config.QPS = -1 // no limit of the client's own
	if w.api, err = kubernetes.NewForConfig(w.config); err != nil {
		t.Fatal(err)
	}
	if w.helm, err = release.New(c.Kubeconfig(), t.TempDir(), namespace, "metawire"); err != nil {
		t.Fatal(err)
	}
	nodes, err := w.api.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("want one node, got %v, %v", nodes, err)
	}
	w.node = nodes.Items[0].Name
	return w
}

// collectors returns the collector's pods that are not being deleted.
func (w *world) collectors(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := w.pods(ctx, namespace, "app.kubernetes.io/component=collector")
	if err != nil {
		return nil, err
	}
	var running []corev1.Pod
	for _, p := range pods {
		if p.DeletionTimestamp == nil {
			running = append(running, p)
		}
	}
	return running, nil
}

func (w *world) pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := w.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// mustCollectors is collectors, or the end of the test.
func (w *world) mustCollectors(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := w.collectors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// get returns the body of a page that a pod serves.
func get(ctx context.Context, pod corev1.Pod, port int, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d%s", pod.Status.PodIP, port, path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), nil
}

// eventually waits until condition returns nil, and ends the test with its last
// error if that takes longer than limit. It returns the time that it took.
func eventually(t *testing.T, limit time.Duration, condition func(context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	if err := poll(t.Context(), limit, condition); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

func poll(ctx context.Context, limit time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // else the end of ctx is what it tells
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// dump writes the pods, their logs and the events of the release and of the
// sample workload.
func (w *world) dump(ctx context.Context, out io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for _, ns := range []string{namespace, shop, falcos} {
		pods, err := w.pods(ctx, ns, "")
		fmt.Fprintf(out, "--- namespace %s, error %v\n", ns, err)
		for _, p := range pods {
			fmt.Fprintf(out, "--- pod %s: %s, address %q, deleted %v\n", p.Name, p.Status.Phase, p.Status.PodIP, p.DeletionTimestamp)
			for _, c := range p.Status.ContainerStatuses {
				fmt.Fprintf(out, "%s: ready %t, restarts %d, state %+v, last %+v\n", c.Name, c.Ready, c.RestartCount, c.State, c.LastTerminationState)
			}
			for _, previous := range []bool{true, false} {
				log, err := w.log(ctx, p, previous)
				if err == nil && ns != shop {
					fmt.Fprintf(out, "log (previous container: %t):\n%s\n", previous, log)
				}
			}
		}
		events, err := w.api.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			fmt.Fprintln(out, "events:", err)
			continue
		}
		for _, e := range events.Items {
			fmt.Fprintf(out, "event %s %s/%s %s: %s\n", e.LastTimestamp.Format(time.TimeOnly), e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}

func (w *world) log(ctx context.Context, p corev1.Pod, previous bool) (string, error) {
	lines := int64(logTail)
	log, err := w.api.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{TailLines: &lines, Previous: previous}).DoRaw(ctx)
	return string(log), err
}
