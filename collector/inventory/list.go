package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// How often a page of a list is asked for, and a list begun anew because it
// expired (410): a cluster that compacts that fast is not worth more.
const (
	pageTries = 4
	restarts  = 3
)

// lister lists objects in pages, and decodes each page as it arrives.
type lister struct {
	client *rest.RESTClient
	limit  int64
	pause  time.Duration // before the second try of a page, doubled each time
}

func newLister(api *rest.Config, limit int64) (*lister, error) {
	c := rest.CopyConfig(api)
	c.GroupVersion, c.APIPath = &schema.GroupVersion{}, "/"
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion() // for errors; objects are decoded here
	c.QPS = -1
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", api.Host, err)
	}
	return &lister{client: client, limit: limit, pause: time.Second}, nil
}

// path of a type's list, over all namespaces.
func (t Type) path() []string {
	if t.Group == "" {
		return []string{"api", t.Version, t.Resource}
	}
	return []string{"apis", t.Group, t.Version, t.Resource}
}

// errStop ends a list because what it is for has failed.
type errStop struct{ error }

// each calls take with every object of a type, once; an object may be decoded
// several times because a page or the list is asked for again. What take returns
// ends it.
func (l *lister) each(ctx context.Context, t Type, params map[string]string, take func(map[string]any) error) error {
	seen := map[string]struct{}{}
	once := func(o map[string]any) error {
		id := text(o, "metadata", "uid")
		if id == "" { // as of some aggregated APIs
			id = text(o, "metadata", "namespace") + "/" + text(o, "metadata", "name")
		}
		if _, again := seen[id]; again {
			return nil
		}
		seen[id] = struct{}{}
		if err := take(o); err != nil {
			return errStop{err}
		}
		return nil
	}
	next, begun, tries := "", 0, 0
	for {
		before := len(seen)
		cont, err := l.page(ctx, t, params, next, once)
		if len(seen) > before { // the API server ends an answer that is read slowly, as the endpoint is
			tries = 0
		}
		stop := errStop{}
		switch {
		case err == nil && cont == "":
			return nil
		case err == nil:
			next, tries = cont, 0
			continue
		case errors.As(err, &stop):
			return stop.error
		case ctx.Err() != nil:
			return ctx.Err()
		case (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) && next != "" && begun < restarts:
			next, tries = "", 0
			begun++
			continue
		case !worthwhile(err) || tries+1 >= pageTries:
			return err
		}
		tries++
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.pause << (tries - 1)):
		}
	}
}

// worthwhile reports whether asking again may help.
func worthwhile(err error) bool {
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err),
		apierrors.IsBadRequest(err), apierrors.IsResourceExpired(err), apierrors.IsGone(err), apierrors.IsNotAcceptable(err):
		return false
	}
	return true
}

// page asks for one page, and returns where the next begins.
func (l *lister) page(ctx context.Context, t Type, params map[string]string, cont string, take func(map[string]any) error) (next string, err error) {
	req := l.client.Get().AbsPath(t.path()...).SetHeader("Accept", "application/json").Param("limit", strconv.FormatInt(l.limit, 10))
	for key, value := range params {
		req.Param(key, value)
	}
	if cont != "" {
		req.Param("continue", cont)
	}
	body, err := req.Stream(ctx)
	if err != nil {
		return "", err
	}
	defer body.Close()
	return decodeList(body, t, take)
}

// decodeList reads a list's JSON item by item.
func decodeList(body io.Reader, t Type, take func(map[string]any) error) (next string, err error) {
	d := json.NewDecoder(body)
	d.UseNumber()
	if err := expect(d, json.Delim('{')); err != nil {
		return "", err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", fmt.Errorf("decode a list: %w", err)
		}
		switch key {
		case "metadata":
			var meta struct {
				Continue string `json:"continue"`
			}
			if err := d.Decode(&meta); err != nil {
				return "", fmt.Errorf("decode a list's metadata: %w", err)
			}
			next = meta.Continue
		case "items":
			if err := decodeItems(d, t, take); err != nil {
				return "", err
			}
		default:
			var skipped any
			if err := d.Decode(&skipped); err != nil {
				return "", fmt.Errorf("decode a list: %w", err)
			}
		}
	}
	if err := expect(d, json.Delim('}')); err != nil { // a body that was cut off
		return "", err
	}
	return next, nil
}

func decodeItems(d *json.Decoder, t Type, take func(map[string]any) error) error {
	switch token, err := d.Token(); {
	case err != nil:
		return fmt.Errorf("decode a list's items: %w", err)
	case token == nil: // null
		return nil
	case token != json.Delim('['):
		return fmt.Errorf("decode a list: items begin with %v", token)
	}
	for d.More() {
		object := map[string]any{}
		if err := d.Decode(&object); err != nil {
			return fmt.Errorf("decode an object: %w", err)
		}
		// Items of a list do not say what they are.
		object["kind"], object["apiVersion"] = t.Kind, t.APIVersion()
		if err := take(object); err != nil {
			return err
		}
	}
	return expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("decode a list: %w", err)
	}
	if token != want {
		return fmt.Errorf("decode a list: %v where %v was expected", token, want)
	}
	return nil
}

// text returns a string within an object, "" if there is none.
func text(o map[string]any, path ...string) string {
	for _, step := range path[:len(path)-1] {
		o, _ = o[step].(map[string]any)
	}
	s, _ := o[path[len(path)-1]].(string)
	return s
}
