package webhook

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// TestLimit: of large requests one is worked on at a time, of small ones many,
// and one that is too large is not read.
func TestLimit(t *testing.T) {
	for name, c := range map[string]struct {
		size, most int
		code       int
	}{
		"small":     {1000, 64, http.StatusOK},
		"large":     {3 << 20, 1, http.StatusOK},
		"too large": {maxReview + 1, 0, http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			var now, most atomic.Int64
			h := limit(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					rw.WriteHeader(http.StatusRequestEntityTooLarge)
					return
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				<-time.After(time.Millisecond) // so that others could be here
				now.Add(-1)
			}))
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					rw := httptest.NewRecorder()
					h.ServeHTTP(rw, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mutate", bytes.NewReader(make([]byte, c.size))))
					if rw.Code != c.code {
						t.Errorf("answers %d", rw.Code)
					}
				})
			}
			all.Wait()
			if n := int(most.Load()); n > c.most || c.most > 0 && n == 0 {
				t.Errorf("%d at once, want at most %d", n, c.most)
			}
		})
	}
}

// TestMemory: six of the largest pods that there can be, at once, fit the
// memory limit of the container, 128 MiB, with what the process needs besides.
func TestMemory(t *testing.T) {
	pod := falcoPod()
	pod.Annotations = map[string]string{}
	for i := range 30 { // 3 MiB, which is what an object may have
		pod.Spec.Containers[0].Args = append(pod.Spec.Containers[0].Args, strings.Repeat(string(rune('a'+i%26)), 100<<10))
	}
	req := request(t, pod).AdmissionRequest
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &req})
	if err != nil {
		t.Fatal(err)
	}
	h := limit(&admission.Webhook{Handler: newHandler(t)})
	runtime.GC() // of what tests before left
	var peak uint64
	done := make(chan struct{})
	var all, sampler sync.WaitGroup
	sampler.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	for range 6 {
		all.Go(func() {
			rw := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mutate", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(rw, r)
			if rw.Code != http.StatusOK || !strings.Contains(rw.Body.String(), `"patch"`) {
				t.Errorf("answers %d: %.200s", rw.Code, rw.Body)
			}
		})
	}
	all.Wait()
	close(done)
	sampler.Wait()
	t.Logf("%d bytes a request, %d MiB of heap at most", len(body), peak>>20)
	if peak > 80<<20 {
		t.Errorf("%d MiB of heap", peak>>20)
	}
}
