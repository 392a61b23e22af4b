package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metawire/metawire/webhook/inject"
)

// FuzzHandle sends pods with fields that this program does not know. The patch,
// applied to what was sent, makes what inject makes and leaves those fields
// where they were.
func FuzzHandle(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
		w := newHandler(t)
		pod := randomPod(random, *w.settings.Load())
		var sent any
		if err := json.Unmarshal(encoded(t, pod), &sent); err != nil {
			t.Fatal(err)
		}
		addUnknown(sent, random)
		raw := encoded(t, sent)
		resp := w.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "1", Object: runtime.RawExtension{Raw: raw}}})
		if !resp.Allowed || len(resp.Warnings) > 0 {
			t.Fatalf("%+v", resp)
		}
		var got any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		for _, op := range resp.Patches {
			got = apply(t, got, strings.Split(op.Path, "/")[1:], op.Operation, op.Value)
		}
		var made corev1.Pod
		if err := json.Unmarshal(encoded(t, got), &made); err != nil {
			t.Fatal(err)
		}
		want, _ := inject.Pod(pod, *w.settings.Load())
		if diff := cmp.Diff(string(encoded(t, want)), string(encoded(t, made))); diff != "" {
			t.Errorf("the patch makes another pod: %s", diff)
		}
		before, after := map[string]any{}, map[string]any{}
		unknown(sent, "", before)
		unknown(got, "", after)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("unknown fields: %s", diff)
		}
	})
}

// randomPod is one that is admitted for the first time, or again after others
// have changed it.
func randomPod(random *rand.Rand, s inject.Settings) *corev1.Pod {
	pod := falcoPod()
	maybe := func(change func()) {
		if random.IntN(2) == 0 {
			change()
		}
	}
	maybe(func() { pod.Spec.Containers[0].Args = []string{"falco"} })
	maybe(func() {
		pod.Spec.Containers[0].Name, pod.Spec.Containers[0].Image = "agent", "x/agent"
		pod.Annotations = map[string]string{"metawire.dev/inject": "true"}
	})
	maybe(func() { pod.Spec.InitContainers = []corev1.Container{{Name: "first"}, {Name: "second"}} })
	maybe(func() { pod.Spec.Volumes = []corev1.Volume{{Name: "one"}, {Name: "two"}} })
	maybe(func() {
		pod.Spec.HostNetwork, pod.Spec.HostAliases = true, []corev1.HostAlias{{IP: "10.0.0.1", Hostnames: []string{"a"}}, {IP: "10.0.0.2"}}
	})
	maybe(func() {
		s.CA, s.Image, s.Addresses = []byte("former"), "former", []string{"10.0.0.3"}
		pod, _ = inject.Pod(pod, s)
		maybe(func() { pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "late"}) })
		maybe(func() { pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "late"}) })
		maybe(func() { pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "late"}) })
		for i := range pod.Spec.InitContainers {
			maybe(func() { pod.Spec.InitContainers[i].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways) })
		}
		maybe(func() { pod.Spec.Containers[0].Image = "falcosecurity/falco:0.38" })
	})
	return pod
}

const field = "x-unknown-"

// ours reports whether the webhook makes the whole value anew.
func ours(v map[string]any) bool {
	name, _ := v["name"].(string)
	return strings.HasPrefix(name, "metawire-")
}

// addUnknown adds fields to objects, but not to ours.
func addUnknown(v any, random *rand.Rand) {
	switch v := v.(type) {
	case map[string]any:
		if ours(v) {
			return
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if key != "annotations" && key != "labels" && key != "limits" && key != "requests" {
				addUnknown(v[key], random)
			}
		}
		if random.IntN(3) == 0 {
			v[field+strconv.Itoa(random.IntN(1000))] = map[string]any{"n": float64(random.IntN(1000)), "list": []any{"x", nil}}
		}
	case []any:
		for _, e := range v {
			addUnknown(e, random)
		}
	}
}

// unknown lists the fields that were added, by where they are: elements of lists
// by what tells them apart.
func unknown(v any, at string, all map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if strings.HasPrefix(key, field) {
				all[at+"/"+key] = value
			} else {
				unknown(value, at+"/"+key, all)
			}
		}
	case []any:
		for i, e := range v {
			id := strconv.Itoa(i)
			if m, ok := e.(map[string]any); ok {
				if name := fmt.Sprint(m["name"], m["mountPath"], m["ip"]); name != "<nil> <nil> <nil>" {
					id = name
				}
			}
			unknown(e, at+"/"+id, all)
		}
	}
}

// apply is RFC 6902, as far as the webhook uses it.
func apply(t *testing.T, in any, path []string, op string, value any) any {
	t.Helper()
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	last := len(path) == 1
	switch in := in.(type) {
	case map[string]any:
		_, there := in[key]
		switch {
		case !last:
			in[key] = apply(t, in[key], path[1:], op, value)
		case op != "add" && !there:
			t.Fatalf("%s of %s, which is not there", op, key)
		case op == "remove":
			delete(in, key)
		default:
			in[key] = plain(t, value)
		}
		return in
	case []any:
		i, err := strconv.Atoi(key)
		if key == "-" {
			i, err = len(in), nil
		}
		if err != nil || i > len(in) || i == len(in) && (op != "add" || !last) {
			t.Fatalf("%s of element %s of %d", op, key, len(in))
		}
		switch {
		case !last:
			in[i] = apply(t, in[i], path[1:], op, value)
		case op == "add":
			in = slices.Insert(in, i, plain(t, value))
		case op == "remove":
			in = slices.Delete(in, i, i+1)
		default:
			in[i] = plain(t, value)
		}
		return in
	}
	t.Fatalf("%s below %v, which is neither an object nor a list", op, in)
	return nil
}

// plain is a value as it arrives.
func plain(t *testing.T, v any) (out any) {
	t.Helper()
	if err := json.Unmarshal(encoded(t, v), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
