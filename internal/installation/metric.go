package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
)

// Metric returns the sum of all samples of a counter or gauge over the pods of a
// part that are ready, each read through the API server. A metric that a pod has
// not got is an error, as is no pod.
func (i *Installation) Metric(ctx context.Context, component, name string) (float64, error) {
	sums, err := i.MetricBy(ctx, component, name, "")
	return sums[""], err
}

// MetricBy returns such sums for each value of a label, and for "" that of the
// samples without it.
func (i *Installation) MetricBy(ctx context.Context, component, name, label string) (map[string]float64, error) {
	pods, err := i.Pods(ctx, component)
	if err != nil {
		return nil, err
	}
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !Ready(&p) })
	if len(pods) == 0 {
		return nil, fmt.Errorf("metric %s: no %s in namespace %q is ready", name, component, i.Namespace)
	}
	return i.MetricOf(ctx, pods, name, label)
}

// MetricOf returns such sums over pods of the namespace, which need not be
// Metawire's: the page is /metrics on the port that is named metrics. No pod is no
// error.
func (i *Installation) MetricOf(ctx context.Context, pods []corev1.Pod, name, label string) (map[string]float64, error) {
	sums := map[string]float64{}
	for p := range pods {
		if err := i.addMetric(ctx, sums, &pods[p], name, label); err != nil {
			return nil, fmt.Errorf("metric %s of pod %s/%s: %w", name, i.Namespace, pods[p].Name, err)
		}
	}
	return sums, nil
}

func (i *Installation) addMetric(ctx context.Context, sums map[string]float64, pod *corev1.Pod, name, label string) error {
	page, err := i.Page(ctx, pod, "metrics", "/metrics")
	if err != nil {
		return err
	}
	if page.Status != http.StatusOK {
		return fmt.Errorf("its metrics page answers %d", page.Status)
	}
	return addSamples(sums, bytes.NewReader(page.Body), name, label)
}

// addSamples adds the samples of a counter or gauge on a page in Prometheus' text
// format to the sums by a label's values.
func addSamples(sums map[string]float64, page io.Reader, name, label string) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return err
	}
	family := families[name]
	if family == nil {
		return errors.New("there is none of that name")
	}
	for _, m := range family.Metric {
		value := ""
		for _, l := range m.Label {
			if l.GetName() == label {
				value = l.GetValue()
			}
		}
		switch {
		case m.Counter != nil:
			sums[value] += m.Counter.GetValue()
		case m.Gauge != nil:
			sums[value] += m.Gauge.GetValue()
		default: // 0 would be taken for an answer
			return fmt.Errorf("it is a %s, neither counter nor gauge", family.GetType())
		}
	}
	return nil
}
