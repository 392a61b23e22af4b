package source

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// apiObject is what the clients decode.
type apiObject interface {
	runtime.Object
	metav1.Object
}

func partialObject() apiObject { return &metav1.PartialObjectMetadata{} }

// List implements cache.Lister; the reflector calls ListWithContext.
func (w *watched) List(o metav1.ListOptions) (runtime.Object, error) {
	return w.ListWithContext(context.Background(), o)
}

// Watch implements cache.Watcher; the reflector calls WatchWithContext.
func (w *watched) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.WatchWithContext(context.Background(), o)
}

// ListWithContext implements cache.ListerWithContext. The reflector asks for
// resourceVersion 0, for which the API server's watch cache ignores the limit
// and answers with everything at once: ask for the latest version instead.
func (w *watched) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	if o.Limit == 0 {
		// The pager's way out when a page expires. A list that large is begun
		// anew instead.
		return nil, fmt.Errorf("list %s: a page has expired", w.Resource.GroupResource())
	}
	l, err := w.client.list(ctx, o)
	if err != nil {
		w.failed(ctx, "list", err)
	}
	return l, err
}

// WatchWithContext implements cache.WatcherWithContext.
func (w *watched) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	i, err := w.client.watch(ctx, o)
	if apierrors.IsInvalid(err) && o.SendInitialEvents != nil {
		// Not every API server streams lists; the
		// reflector lists in pages instead.
		w.log.Debug("the API server does not stream lists", "error", err)
		return nil, err
	}
	if err != nil {
		w.failed(ctx, "watch", err)
		return nil, err
	}
	if w.watches++; w.watches > 1 {
		w.metrics.watchRestarts.WithLabelValues(string(w.Kind.Kind)).Inc()
	}
	if w.told.reason != "" {
		w.told = problem{}
		w.log.Info("the API server answers again")
	}
	return i, nil
}

// problem is what was logged last of a kind, and when.
type problem struct {
	reason string
	at     time.Time
}

// tellAgainAfter keeps a standing problem visible without flooding the log.
const tellAgainAfter = time.Minute

// failed counts a failed request and logs what it means and what to do: at once
// when the reason is new, then once a minute.
func (w *watched) failed(ctx context.Context, verb string, err error) {
	if ctx.Err() != nil {
		return // we are ending
	}
	reason, advice := w.explain(err)
	w.metrics.errors.WithLabelValues(string(w.Kind.Kind), reason).Inc()
	if w.told.reason == reason && time.Since(w.told.at) < tellAgainAfter {
		return
	}
	w.told = problem{reason, time.Now()}
	w.log.Error(fmt.Sprintf("cannot %s %s: %s", verb, w.Resource.GroupResource(), advice), "reason", reason, "error", err)
}

// Why requests fail, in a word.
const (
	reasonUnauthorized = "unauthorized"
	reasonForbidden    = "forbidden"
	reasonNotFound     = "not_found"
	reasonExpired      = "expired"
	reasonAPI          = "api"
	reasonUnreachable  = "unreachable"
)

func reasons() []string {
	return []string{reasonUnauthorized, reasonForbidden, reasonNotFound, reasonExpired, reasonAPI, reasonUnreachable}
}

// explain returns a word for the metric and a sentence for people.
func (w *watched) explain(err error) (reason, advice string) {
	what := w.Resource.GroupResource()
	consequence := "the other kinds go on without it"
	if w.Required {
		consequence = "the collector is not ready without it"
	}
	switch {
	case apierrors.IsUnauthorized(err):
		return reasonUnauthorized, fmt.Sprintf("the API server at %s does not accept our credentials: check the ServiceAccount's token or the user in the kubeconfig", w.host)
	case apierrors.IsForbidden(err):
		return reasonForbidden, fmt.Sprintf("grant list and watch on %s, as the chart's ClusterRole does; %s", what, consequence)
	case apierrors.IsNotFound(err):
		return reasonNotFound, fmt.Sprintf("the API server does not serve %s; %s", what, consequence)
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return reasonExpired, "the version we knew is compacted; listing anew"
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return reasonAPI, fmt.Sprintf("the API server at %s answers with an error; trying again", w.host)
	default:
		return reasonUnreachable, fmt.Sprintf("the API server at %s does not answer: check its address and the network; trying again", w.host)
	}
}
