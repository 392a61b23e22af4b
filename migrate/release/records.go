package release

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Records are the Secrets in which Helm keeps its releases.
type Records struct {
	secrets kubernetes.Interface
	names   metadata.Interface
}

// NewRecords returns those of a cluster. It does not contact the API server.
func NewRecords(config *rest.Config) (*Records, error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	names, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Records{api, names}, nil
}

// Head is what a release is, without what it consists of.
type Head struct {
	Name, Namespace string
	// Revision is that which was deployed last, the newest if none was.
	Revision int
	// Unsettled is the status of the newest revision when Helm is not done with it:
	// pending-install, pending-upgrade, pending-rollback, uninstalling, and failed
	// if none was deployed. Else empty.
	Unsettled string
	// Failed is the newest revision, if that is an upgrade that failed; else 0.
	Failed int
	// Unreadable is why the record cannot be read; nil if it can.
	Unreadable error
	Chart      string // its name
	Version    string // of the chart
	// Subcharts are the names of the charts in it.
	Subcharts []string
}

func (h Head) String() string { return h.Namespace + "/" + h.Name }

// Old is a release with what it consists of.
type Old struct {
	Head
	// Defaults are the chart's values, User those that were given to it.
	Defaults, User map[string]any
	// Manifest is what was installed, Hooks what Helm would run besides.
	Manifest string
	Hooks    []Hook
}

// Hook is an object that Helm makes at some event.
type Hook struct {
	Manifest string
	Events   []string // pre-delete, post-install, ...
}

const perPage = 500

// Heads returns what releases there are, in all namespaces if namespace is empty,
// sorted. It reads the names of all of Helm's Secrets, and of each release the
// one of the revision that it returns.
func (r *Records) Heads(ctx context.Context, namespace string) ([]Head, error) {
	newest, err := r.newest(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var heads []Head
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, h := range newest {
		g.Go(func() error {
			if err := r.fill(ctx, &h); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			heads = append(heads, h)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(heads, func(a, b Head) int { return strings.Compare(a.String(), b.String()) })
	return heads, nil
}

// newest finds the revisions by the labels of Helm's Secrets.
func (r *Records) newest(ctx context.Context, namespace string) (map[string]Head, error) {
	list := r.names.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace)
	found, last := map[string]Head{}, map[string]int{} // last revisions, deployed or not
	for o := (metav1.ListOptions{LabelSelector: "owner=helm", Limit: perPage}); ; {
		page, err := list.List(ctx, o)
		switch {
		case apierrors.IsForbidden(err) && namespace == "":
			return nil, fmt.Errorf("look for Helm's releases in all namespaces: %w; name the one of the release: --namespace NAMESPACE", err)
		case err != nil:
			return nil, fmt.Errorf("look for Helm's releases: %w", err)
		}
		for _, s := range page.Items {
			revision, err := strconv.Atoi(s.Labels["version"])
			name, status := s.Labels["name"], s.Labels["status"]
			if err != nil || name == "" {
				continue // none of Helm's
			}
			key := s.Namespace + "/" + name
			h := found[key]
			h.Name, h.Namespace = name, s.Namespace
			// An upgrade that failed left the objects of the revision before.
			if (status == "deployed" || status == "superseded") && revision > h.Revision {
				h.Revision = revision
			}
			if revision > last[key] {
				last[key], h.Unsettled = revision, ""
				if status != "deployed" && status != "superseded" {
					h.Unsettled = status
				}
			}
			found[key] = h
		}
		if o.Continue = page.Continue; o.Continue == "" {
			break
		}
	}
	for key, h := range found {
		switch {
		case h.Unsettled == "uninstalled": // with its history kept
			delete(found, key)
			continue
		case h.Revision == 0:
			h.Revision = last[key]
		case h.Unsettled == "failed": // an upgrade, which left what was there
			h.Unsettled, h.Failed = "", last[key]
		}
		found[key] = h
	}
	return found, nil
}

// fill reads which chart a release is of.
func (r *Records) fill(ctx context.Context, h *Head) error {
	var record struct {
		Chart struct {
			Metadata struct {
				Name         string `json:"name"`
				Version      string `json:"version"`
				Dependencies []struct {
					Name  string `json:"name"`
					Alias string `json:"alias"`
				} `json:"dependencies"`
			} `json:"metadata"`
		} `json:"chart"`
	}
	found, err := r.decode(ctx, *h, &record)
	if errors.Is(err, errRecord) {
		h.Unreadable = err // one release's matter, not the others'
		return nil
	}
	if err != nil || !found {
		return err
	}
	h.Chart, h.Version = record.Chart.Metadata.Name, record.Chart.Metadata.Version
	for _, d := range record.Chart.Metadata.Dependencies {
		h.Subcharts = append(h.Subcharts, d.Name)
	}
	return nil
}

// Get returns the release with what it consists of.
func (r *Records) Get(ctx context.Context, h Head) (*Old, error) {
	var record struct {
		Chart    *chart.Chart   `json:"chart"`
		Config   map[string]any `json:"config"`
		Manifest string         `json:"manifest"`
		Hooks    []struct {
			Manifest string   `json:"manifest"`
			Events   []string `json:"events"`
		} `json:"hooks"`
	}
	found, err := r.decode(ctx, h, &record)
	switch {
	case err != nil:
		return nil, err
	case !found || record.Chart == nil:
		return nil, fmt.Errorf("revision %d of release %s is gone", h.Revision, h)
	}
	o := &Old{Head: h, Defaults: record.Chart.Values, User: record.Config, Manifest: record.Manifest}
	for _, hook := range record.Hooks {
		o.Hooks = append(o.Hooks, Hook(hook))
	}
	return o, nil
}

// Values are those that the chart was rendered with.
func (o *Old) Values() (map[string]any, error) {
	merged, err := chartutil.CoalesceValues(&chart.Chart{Metadata: &chart.Metadata{Name: o.Chart}, Values: o.Defaults}, o.User)
	if err != nil {
		return nil, fmt.Errorf("values of release %s: %w", o.Head, err)
	}
	return merged, nil
}

// decode reads the record of the head's revision; no record is false.
func (r *Records) decode(ctx context.Context, h Head, into any) (bool, error) {
	name := secretName(h.Name, h.Revision)
	s, err := r.secrets.CoreV1().Secrets(h.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read release %s: %w", h, err)
	}
	if err := decode(s.Data["release"], into); err != nil {
		return false, fmt.Errorf("read release %s: Secret %s: %w: %w", h, name, errRecord, err)
	}
	return true, nil
}

// errRecord says that a Secret does not hold what Helm writes.
var errRecord = errors.New("is no record of Helm's that can be read")

// All returns the Secrets of all revisions of a release, oldest first.
func (r *Records) All(ctx context.Context, namespace, name string) ([]corev1.Secret, error) {
	list, err := r.secrets.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm,name=" + name})
	if err != nil {
		return nil, fmt.Errorf("read the records of release %s in namespace %q: %w", name, namespace, err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Secret) int {
		return Revision(a) - Revision(b)
	})
	return list.Items, nil
}

// Revision is which revision a record is of.
func Revision(record corev1.Secret) int {
	n, _ := strconv.Atoi(record.Labels["version"]) // 0 of what is none of Helm's
	return n
}

// secretName is Helm's name of a record.
func secretName(release string, revision int) string {
	return fmt.Sprintf("sh.helm.release.v1.%s.v%d", release, revision)
}

// maxRecord bounds a record that has been unpacked: in a Secret it is 1 MiB at
// most, and charts shrink to a tenth.
const maxRecord = 64 << 20

// decode unpacks what Helm wrote: base64, gzip, JSON. Helm reads what is not
// packed, too.
func decode(data []byte, into any) error {
	plain, err := base64.StdEncoding.DecodeString(string(data))
	if err != nil {
		return err
	}
	if bytes.HasPrefix(plain, []byte{0x1f, 0x8b, 0x08}) {
		z, err := gzip.NewReader(bytes.NewReader(plain))
		if err != nil {
			return err
		}
		if plain, err = io.ReadAll(io.LimitReader(z, maxRecord+1)); err != nil {
			return err
		}
	}
	if len(plain) > maxRecord {
		return errors.New("is larger than 64 MiB")
	}
	return json.Unmarshal(plain, into)
}

// Born tells a release from others that had its name before or after: it is when
// the first of its revisions was installed, which all of them say.
func Born(record corev1.Secret) (time.Time, error) {
	var r struct {
		Info struct {
			FirstDeployed time.Time `json:"first_deployed"`
		} `json:"info"`
	}
	if err := decode(record.Data["release"], &r); err != nil {
		return time.Time{}, fmt.Errorf("read Secret %s/%s: %w: %w", record.Namespace, record.Name, errRecord, err)
	}
	return r.Info.FirstDeployed, nil
}
