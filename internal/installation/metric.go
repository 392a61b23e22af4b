package installation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
)

// Metric returns the sum of all samples of a metric over the pods of a part that
// are ready, each read through the API server. A metric that a pod has not got is
// an error, as is no pod.
func (i *Installation) Metric(ctx context.Context, component, name string) (float64, error) {
	pods, err := i.Pods(ctx, component)
	if err != nil {
		return 0, err
	}
	sum, asked := 0.0, 0
	for p := range pods {
		if !Ready(&pods[p]) {
			continue
		}
		n, err := i.podMetric(ctx, &pods[p], name)
		if err != nil {
			return 0, fmt.Errorf("metric %s of pod %s/%s: %w", name, i.Namespace, pods[p].Name, err)
		}
		sum += n
		asked++
	}
	if asked == 0 {
		return 0, fmt.Errorf("metric %s: no %s in namespace %q is ready", name, component, i.Namespace)
	}
	return sum, nil
}

func (i *Installation) podMetric(ctx context.Context, pod *corev1.Pod, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	port, err := portOf(pod, "metrics")
	if err != nil {
		return 0, err
	}
	// One connection, through the tunnel; it ends with the answer.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return i.DialPod(ctx, pod.Name, port)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Name+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("its metrics page answers %s", answer.Status)
	}
	return sumOf(answer.Body, name)
}

// portOf returns the port of a pod that has a name.
func portOf(pod *corev1.Pod, name string) (int, error) {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return int(p.ContainerPort), nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s/%s has no port named %s", pod.Namespace, pod.Name, name)
}

// maxPage bounds a page of metrics.
const maxPage = 16 << 20

// sumOf adds the samples of a counter or gauge on a page in Prometheus' text
// format.
func sumOf(page io.Reader, name string) (float64, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(page, maxPage))
	if err != nil {
		return 0, err
	}
	family := families[name]
	if family == nil {
		return 0, errors.New("there is none of that name")
	}
	sum := 0.0
	for _, m := range family.Metric {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum, nil
}
