package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

// holds checks what is true of every pod: to inject it again changes nothing,
// with other settings no more than once; the API takes what it took before; and
// without what we own the pod is the given one.
func holds(t *testing.T, given, got *corev1.Pod, d inject.Decision, s inject.Settings) {
	t.Helper()
	again := injectedAgain(t, got, d, s)
	if again.Outcome.Patched() && again.Code != inject.Before {
		t.Errorf("injected twice: %+v", again)
	}
	other := injectedWith(t, got, others(s))
	injectedAgain(t, other.pod, other.Decision, others(s))

	if len(problems(given)) == 0 {
		for _, problem := range problems(got) {
			t.Errorf("the API refuses it: %s", problem)
		}
	}
	if touched(given) {
		return
	}
	want, stripped := given.DeepCopy(), got.DeepCopy()
	for _, p := range []*corev1.Pod{want, stripped} {
		delete(p.Annotations, wiring.StatusAnnotation)
		if d.Outcome.Patched() {
			delete(p.Annotations, wiring.CAAnnotation)
		}
	}
	if d.Outcome.Patched() {
		strip(stripped, given)
		aliases(want)
		aliases(stripped)
	}
	if diff := cmp.Diff(normal(want), normal(stripped)); diff != "" {
		t.Errorf("what is not ours has changed: %s", diff)
	}
}

func injectedAgain(t *testing.T, got *corev1.Pod, d inject.Decision, s inject.Settings) inject.Decision {
	t.Helper()
	twice, again := inject.Pod(got, s)
	if diff := cmp.Diff(normal(got), normal(twice)); diff != "" {
		t.Errorf("injected twice: %s", diff)
	}
	if d.Outcome != again.Outcome {
		t.Errorf("injected twice: %+v, then %+v", d, again)
	}
	return again
}

type injected struct {
	pod *corev1.Pod
	inject.Decision
}

// injectedWith checks that nothing of the former settings is left.
func injectedWith(t *testing.T, p *corev1.Pod, s inject.Settings) injected {
	t.Helper()
	got, d := inject.Pod(p, s)
	wires := slices.ContainsFunc(got.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == wiring.InitContainer && slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == wiring.TaskVariable })
	})
	if wires != (d.Outcome == wiring.Wired) {
		t.Errorf("our init container is there: %t, and %+v", wires, d)
	}
	if d.Outcome.Patched() && got.Annotations[wiring.CAAnnotation] != string(s.CA) {
		t.Errorf("authorities of former settings: %q", got.Annotations[wiring.CAAnnotation])
	}
	if d.Outcome == wiring.Wired && (ours(got).Image != s.Image || task(got).Port != s.Port) {
		t.Errorf("an init container of former settings: %+v", ours(got))
	}
	return injected{got, d}
}

// others are settings of which all has changed.
func others(s inject.Settings) inject.Settings {
	s.Version, s.Host, s.Port, s.Addresses = "1.3.0", "other.metawire.svc", 45001, []string{"10.96.0.10"}
	s.CA, s.Image = []byte(otherCA), "ghcr.io/metawire/metawire:1.3.0"
	return s
}

// problems are what the API does not take, of what a patch could bring about.
func problems(p *corev1.Pod) (all []string) {
	twice := func(what string, names []string) {
		slices.Sort(names)
		for i := 1; i < len(names); i++ {
			if names[i] == names[i-1] {
				all = append(all, fmt.Sprintf("%s %q is there twice", what, names[i]))
			}
		}
	}
	var containers, volumes, addresses, secrets []string
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		containers = append(containers, c.Name)
		twice("in container "+c.Name+" mount path", paths(c.VolumeMounts))
		for _, m := range c.VolumeMounts {
			if strings.HasPrefix(m.Name, "metawire-") && !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				all = append(all, fmt.Sprintf("container %s mounts volume %q, which is not there", c.Name, m.Name))
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, a := range p.Spec.HostAliases {
		addresses = append(addresses, a.IP)
	}
	for _, r := range p.Spec.ImagePullSecrets {
		secrets = append(secrets, r.Name)
	}
	twice("container", containers)
	twice("volume", volumes)
	twice("host alias", addresses)
	twice("pull secret", secrets)
	if validation.ValidateAnnotationsSize(p.Annotations) != nil {
		all = append(all, "annotations")
	}
	return all
}

// touched reports whether something like ours is in a pod already.
func touched(p *corev1.Pod) bool {
	return strings.Contains(normal(p), "metawire-") || strings.Contains(normal(p), wiring.GeneratedDir)
}

// strip takes out what Metawire adds.
func strip(p, given *corev1.Pod) {
	if len(p.Spec.InitContainers) > len(given.Spec.InitContainers) {
		p.Spec.InitContainers = p.Spec.InitContainers[:len(given.Spec.InitContainers)]
	}
	p.Spec.Volumes = p.Spec.Volumes[:len(given.Spec.Volumes)]
	p.Spec.ImagePullSecrets = p.Spec.ImagePullSecrets[:len(given.Spec.ImagePullSecrets)]
	for _, all := range [][2][]corev1.Container{{p.Spec.InitContainers, given.Spec.InitContainers}, {p.Spec.Containers, given.Spec.Containers}} {
		for i := range all[0] {
			c, g := &all[0][i], all[1][i]
			c.Env, c.VolumeMounts = c.Env[:min(len(c.Env), len(g.Env))], c.VolumeMounts[:len(g.VolumeMounts)]
			if n := len(c.Args) - 2; n >= 0 && c.Args[n] == "-o" && c.Args[n+1] == fragment {
				c.Args = c.Args[:n]
			}
			if len(g.Command)+len(g.Args) == 0 && cmp.Equal(c.Args, []string{"/usr/bin/falco"}) {
				c.Args = nil
			}
		}
	}
}

// aliases takes the collector's name out, and puts the rest in an order.
func aliases(p *corev1.Pod) {
	for i := range p.Spec.HostAliases {
		a := &p.Spec.HostAliases[i]
		a.Hostnames = slices.DeleteFunc(slices.Clone(a.Hostnames), func(h string) bool { return h == settings().Host })
	}
	p.Spec.HostAliases = slices.DeleteFunc(p.Spec.HostAliases, func(a corev1.HostAlias) bool {
		return len(a.Hostnames) == 0 && slices.Contains(settings().Addresses, a.IP)
	})
	slices.SortStableFunc(p.Spec.HostAliases, func(a, b corev1.HostAlias) int { return strings.Compare(normal(a), normal(b)) })
}

// normal makes empty and missing the same, as JSON does.
func normal(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// FuzzPod takes any pod, and makes changes to it, each byte naming one: it never
// panics, injecting again with the same or with other settings ends, what is not
// ours stays, and what the API takes it takes still.
func FuzzPod(f *testing.F) {
	data, err := json.Marshal(stock())
	if err != nil {
		f.Fatal(err)
	}
	for i := range len(changes()) {
		for j := i % 3; j < len(changes()); j += 3 {
			f.Add(data, []byte{byte(i), byte(j), byte(i*7 + j*3)})
		}
	}
	f.Fuzz(func(t *testing.T, data, which []byte) {
		var pod corev1.Pod
		if json.Unmarshal(data, &pod) != nil {
			return
		}
		for _, b := range which[:min(len(which), 8)] {
			if len(pod.Spec.Containers) > 0 {
				changes()[int(b)%len(changes())](&pod)
			}
		}
		got, d := inject.Pod(&pod, settings())
		if !slices.Contains(inject.Codes(), d.Code) || d.Reason == "" {
			t.Errorf("decision %+v", d)
		}
		holds(t, &pod, got, d, settings())
	})
}

// changes are to a pod with a container, which may be wired already.
func changes() []func(*corev1.Pod) {
	argue := func(args ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { falco(p).Args = append(falco(p).Args, args...) }
	}
	set := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = value
		}
	}
	mounts := func(path string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if !slices.Contains(paths(falco(p).VolumeMounts), path) {
				falco(p).VolumeMounts = append(falco(p).VolumeMounts, corev1.VolumeMount{Name: "config", MountPath: path})
			}
		}
	}
	return []func(*corev1.Pod){
		func(p *corev1.Pod) { *p = *injectedPod(p) },
		func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		func(p *corev1.Pod) { falco(p).Name, falco(p).Image = "agent", "x/agent" },
		func(p *corev1.Pod) { falco(p).Image = "falcosecurity/falco:0.38" },
		func(p *corev1.Pod) { falco(p).Image = "falcosecurity/falco:latest" },
		func(p *corev1.Pod) { falco(p).Args, falco(p).Command = nil, nil },
		func(p *corev1.Pod) { falco(p).Env = nil },
		func(p *corev1.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar("late", corev1.VolumeMount{Name: "rules", MountPath: "/x"}))
		},
		func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second"}) },
		func(p *corev1.Pod) { p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "late"}) },
		func(p *corev1.Pod) {
			p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "metawire-generated" })
		},
		func(p *corev1.Pod) { slices.Reverse(p.Spec.InitContainers) },
		func(p *corev1.Pod) { slices.Reverse(p.Spec.Volumes) },
		func(p *corev1.Pod) { slices.Reverse(falco(p).VolumeMounts) },
		func(p *corev1.Pod) {
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "10.1.1.1", Hostnames: []string{settings().Host}}, {IP: "10.96.0.9", Hostnames: []string{"x"}}}
		},
		func(p *corev1.Pod) { slices.Reverse(p.Spec.HostAliases) },
		argue("-o", fragment), argue("-o", "a=$(X)"), argue("-c", "/my/falco.yaml"), argue("-o", "plugins[]=k8smeta"), argue("-v"), argue("-o"),
		set(wiring.InjectAnnotation, "true"), set(wiring.InjectAnnotation, "false"), set(wiring.StatusAnnotation, `{"outcome":"wired"}`),
		set(wiring.CAAnnotation, "x"), set(wiring.VersionAnnotation, "0.42"), set("x", strings.Repeat("x", 262000)), set("x", strings.Repeat("x", 261500)),
		mounts("/run"), mounts("/etc"), mounts("/my"), mounts("/run/metawire/generated"),
	}
}
