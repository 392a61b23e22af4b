package inventory

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

func pods() Type { return Type{Name: "pods", Version: "v1", Resource: "pods", Kind: "Pod"} }

func listOf(cont string, uids ...string) string {
	var items []string
	for _, uid := range uids {
		items = append(items, fmt.Sprintf(`{"metadata":{"uid":%q,"name":%q}}`, uid, uid))
	}
	return fmt.Sprintf(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1","continue":%q},"items":[%s]}`, cont, strings.Join(items, ","))
}

// script is a server that answers in turn. What a real API server does when a
// list expires or a connection ends cannot be had from one at a given byte.
func script(t *testing.T, answers ...func(http.ResponseWriter, *http.Request)) *lister {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n >= len(answers) {
			t.Errorf("request %d: %s", n+1, r.URL)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		n++
		answers[n-1](w, r)
	}))
	t.Cleanup(func() {
		s.Close()
		if n != len(answers) {
			t.Errorf("%d requests, want %d", n, len(answers))
		}
	})
	l, err := newLister(&rest.Config{Host: s.URL}, 2)
	if err != nil {
		t.Fatal(err)
	}
	l.pause = time.Millisecond
	return l
}

func gives(body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) }
}

// cuts are answers that end after one object more each time, as those of an API
// server do that are read slowly, and then a whole one.
func cuts(body string) (all []func(http.ResponseWriter, *http.Request)) {
	for at := 0; ; at++ {
		end := strings.Index(body[at:], "}},")
		if end < 0 {
			return append(all, gives(body))
		}
		at += end + 2
		all = append(all, gives(body[:at]))
	}
}

func fails(code int, reason string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
	}
}

// TestLists: every object is taken once, whatever the list goes through.
func TestLists(t *testing.T) {
	one, two := listOf("next", "a", "b"), listOf("", "c")
	unnamed := `{"metadata":{},"items":[{"metadata":{"namespace":"n","name":"a"}},{"metadata":{"namespace":"n","name":"b"}}]}`
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter, *http.Request)
		want    []string
		failed  func(error) bool
	}{
		"two pages":          {[]func(http.ResponseWriter, *http.Request){gives(one), gives(two)}, []string{"a", "b", "c"}, nil},
		"expired once":       {[]func(http.ResponseWriter, *http.Request){gives(one), fails(410, "Expired"), gives(one), gives(two)}, []string{"a", "b", "c"}, nil},
		"cut off":            {[]func(http.ResponseWriter, *http.Request){gives(one[:len(one)-5]), gives(one), gives(two)}, []string{"a", "b", "c"}, nil},
		"cut off in a page":  {[]func(http.ResponseWriter, *http.Request){gives(one), gives(two[:len(two)-20]), gives(two)}, []string{"a", "b", "c"}, nil},
		"fails and recovers": {[]func(http.ResponseWriter, *http.Request){fails(500, "InternalError"), gives(one), gives(two)}, []string{"a", "b", "c"}, nil},
		"cut off ever later": {cuts(listOf("", "a", "b", "c", "d", "e", "f")), []string{"a", "b", "c", "d", "e", "f"}, nil},
		"without UIDs":       {[]func(http.ResponseWriter, *http.Request){gives(unnamed[:len(unnamed)-5]), gives(unnamed)}, []string{"", ""}, nil},
		"forbidden":          {[]func(http.ResponseWriter, *http.Request){fails(403, "Forbidden")}, nil, apierrors.IsForbidden},
		"gone meanwhile":     {[]func(http.ResponseWriter, *http.Request){gives(one), fails(404, "NotFound")}, []string{"a", "b"}, apierrors.IsNotFound},
		"no items":           {[]func(http.ResponseWriter, *http.Request){gives(`{"items":null,"metadata":{}}`)}, nil, nil},
		"no list":            {slices.Repeat([]func(http.ResponseWriter, *http.Request){gives(`[]`)}, pageTries), nil, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			l := script(t, c.answers...)
			var got []string
			err := l.each(t.Context(), pods(), nil, func(o map[string]any) error {
				if text(o, "kind") != "Pod" || text(o, "apiVersion") != "v1" {
					t.Errorf("an object does not say what it is: %v", o)
				}
				got = append(got, text(o, "metadata", "uid"))
				return nil
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if c.failed == nil && err != nil || c.failed != nil && !c.failed(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestListEndsWithItsTaker: an error of what takes the objects is no reason to
// ask again.
func TestListEndsWithItsTaker(t *testing.T) {
	l := script(t, gives(listOf("next", "a")))
	if err := l.each(t.Context(), pods(), nil, func(map[string]any) error { return context.Canceled }); err != context.Canceled { //nolint:errorlint // that very error
		t.Errorf("error %v", err)
	}
}
