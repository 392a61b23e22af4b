package inventory

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"

	"k8s.io/client-go/rest"
)

// benchPod is like most pods of a cluster, of 4 KiB; the number makes it another.
const benchPod = `{"metadata":{"name":"web-7d4b9c6f5d-%[1]d","generateName":"web-7d4b9c6f5d-","namespace":"shop","uid":"0a1b2c3d-0000-4000-8000-%012[1]d","resourceVersion":"%[1]d",` +
	`"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"web","pod-template-hash":"7d4b9c6f5d"},"annotations":{"prometheus.io/scrape":"true","checksum/config":"0123456789abcdef0123456789abcdef"},` +
	`"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5d","uid":"rs","controller":true,"blockOwnerDeletion":true}],` +
	`"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:checksum/config":{},"f:prometheus.io/scrape":{}},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:args":{},"f:env":{},"f:image":{},"f:name":{},"f:ports":{},"f:resources":{}}},"f:nodeName":{},"f:restartPolicy":{}}}}]},` +
	`"spec":{"nodeName":"node-17","serviceAccountName":"web","restartPolicy":"Always","terminationGracePeriodSeconds":30,"initContainers":[` + benchContainer + `],"containers":[` + benchContainer + `,` + benchContainer + `],` +
	`"volumes":[{"name":"kube-api-access","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}]}}]},` +
	`"status":{"phase":"Running","hostIP":"10.0.0.17","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`

const benchContainer = `{"name":"web","image":"registry.example/team/web:1.2.3","args":["--one=1","--two=2","--password-file=/x"],"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],` +
	`"env":[{"name":"A","value":"a"},{"name":"DATABASE_URL","value":"postgres://web:hunter2@db/shop"},{"name":"NODE","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"spec.nodeName"}}}],` +
	`"resources":{"requests":{"cpu":"100m"}},"volumeMounts":[{"name":"kube-api-access","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}],"livenessProbe":{"tcpSocket":{"port":8080},"periodSeconds":10}}`

// BenchmarkList lists, redacts and encodes pods, in pages of 500: the time is
// linear, and the heap after a collection (live-MiB, at its highest) has little
// more than the UIDs.
func BenchmarkList(b *testing.B) {
	for _, objects := range []int{5_000, 50_000} {
		b.Run(fmt.Sprintf("objects=%d", objects), func(b *testing.B) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				from, _ := strconv.Atoi(cmp.Or(r.URL.Query().Get("continue"), "0"))
				to, next := from+defaultLimit, strconv.Itoa(from+defaultLimit)
				if to >= objects {
					to, next = objects, ""
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"continue":%q},"items":[`, next)
				for n := from; n < to; n++ {
					if n > from {
						_, _ = fmt.Fprint(w, ",")
					}
					_, _ = fmt.Fprintf(w, benchPod, n)
				}
				_, _ = fmt.Fprint(w, "]}")
			}))
			defer s.Close()
			l, err := newLister(&rest.Config{Host: s.URL}, defaultLimit)
			if err != nil {
				b.Fatal(err)
			}
			var buffer bytes.Buffer
			var live uint64
			redactor := testRedactor()
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				err := l.each(b.Context(), pods(), nil, func(o map[string]any) error {
					if n++; n%(objects/5) == 0 {
						var m runtime.MemStats
						runtime.GC()
						runtime.ReadMemStats(&m)
						live = max(live, m.HeapAlloc)
					}
					redactor.Object(o)
					_, err := encode(&buffer, o)
					return err
				})
				if err != nil || n != objects {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*objects), "µs/object")
			b.ReportMetric(float64(live)/(1<<20), "live-MiB")
		})
	}
}
