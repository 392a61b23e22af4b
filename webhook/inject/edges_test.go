package inject_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/wiring"
	"github.com/metawire/metawire/webhook/inject"
)

const otherCA = "-----BEGIN CERTIFICATE-----\nMAE=\n-----END CERTIFICATE-----\n"

// injectedPod is what became of a pod.
func injectedPod(p *corev1.Pod) *corev1.Pod {
	out, _ := inject.Pod(p, settings())
	return out
}

// mounted finds a mount of the init container.
func mounted(p *corev1.Pod, path string) corev1.VolumeMount {
	all := ours(p).VolumeMounts
	if i := slices.Index(paths(all), path); i >= 0 {
		return all[i]
	}
	return corev1.VolumeMount{}
}

func sidecar(name string, mounts ...corev1.VolumeMount) corev1.Container {
	return corev1.Container{Name: name, Image: "x/" + name, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), VolumeMounts: mounts}
}

func TestCommandLines(t *testing.T) {
	with := func(args ...string) func(*corev1.Pod, *inject.Settings) {
		return func(p *corev1.Pod, _ *inject.Settings) { falco(p).Args = append(falco(p).Args, args...) }
	}
	decide(t, map[string]decision{
		"an option for one plugin by its place": {with("-o", "plugins[0].init_config=x"), cannot(inject.Command), nil},
		"one of load_plugins by its place":      {with("-oload_plugins[1]=json"), cannot(inject.Command), nil},
		"one of config_files by its place":      {with("--option=config_files[0]=/a"), cannot(inject.Command), nil},
		"plugins as a whole":                    {with("-o", "plugins={name: json}"), cannot(inject.Command), nil},
		"one more to load":                      {with("-o", "load_plugins[]=k8smeta"), wired, nil},
		"k8smeta in a rules file's name":        {with("-r/etc/k8smeta.yaml"), wired, nil},
		"k8smeta in a configuration's name":     {with("-o", "config_files[]=/x/k8smeta.yaml"), wired, nil},
		"a file by a literal variable": {func(p *corev1.Pod, s *inject.Settings) {
			with("-c", "$(DIR)/$$(DIR)$(")(p, s)
			falco(p).Env = append(falco(p).Env, corev1.EnvVar{Name: "BASE", Value: "/my"}, corev1.EnvVar{Name: "DIR", Value: "$(BASE)/conf"})
		}, cannot(inject.Command), nil},
		"an option by a literal variable": {func(p *corev1.Pod, s *inject.Settings) {
			with("-o", "a=$(DIR)/$$x")(p, s)
			falco(p).Env = append(falco(p).Env, corev1.EnvVar{Name: "BASE", Value: "/my"}, corev1.EnvVar{Name: "DIR", Value: "$(BASE)/conf"})
		}, wired, func(p *corev1.Pod) (any, any) { return task(p).Command[2], "a=/my/conf/$x" }},
		"a file by an unknown variable":    {with("-c", "$(FALCO_K8S_NODE_NAME).yaml"), cannot(inject.Command), nil},
		"an option by an unknown variable": {with("-o$(OPTION)"), cannot(inject.Command), nil},
		"an escaped variable is a text":    {with("-r", "$$(HOST_ROOT)"), wired, func(p *corev1.Pod) (any, any) { return task(p).Command[2], "$(HOST_ROOT)" }},
		"the fragment's option was copied": {with("-o", fragment, "-v"), wired, func(p *corev1.Pod) (any, any) {
			return falco(p).Args, []string{"/usr/bin/falco", "-v", "-o", fragment}
		}},
		"where Falco runs": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).WorkingDir = "/work" }, wired, func(p *corev1.Pod) (any, any) {
			return task(p).WorkingDir, "/work"
		}},
	})
}

func TestMounts(t *testing.T) {
	with := func(mounts ...corev1.VolumeMount) func(*corev1.Pod, *inject.Settings) {
		return func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).VolumeMounts = append(falco(p).VolumeMounts, mounts...)
		}
	}
	decide(t, map[string]decision{
		"a mount point is made in what Falco can write": {with(corev1.VolumeMount{Name: "config", MountPath: "/etc/falco/config.d/", ReadOnly: true}), wired, func(p *corev1.Pod) (any, any) {
			return []bool{mounted(p, "/etc/falco").ReadOnly, mounted(p, "/etc/falco/falco.yaml").ReadOnly, mounted(p, "/root/.falco").ReadOnly},
				[]bool{false, true, true}
		}},
		"what Falco cannot write stays so": {func(p *corev1.Pod, _ *inject.Settings) { falco(p).VolumeMounts[1].ReadOnly = true }, wired, func(p *corev1.Pod) (any, any) {
			return mounted(p, "/etc/falco").ReadOnly, true
		}},
		"what is shown and what is hidden": {nil, wired, func(p *corev1.Pod) (any, any) {
			return [][]string{task(p).Mounts, task(p).Hidden}, [][]string{
				{"/root/.falco", "/etc/falco", "/etc/falco/falco.yaml", "/usr/share/falco/plugins"}, {"/host/proc", "/host/dev"},
			}
		}},
		"/var/run is /run":                    {with(corev1.VolumeMount{Name: "dev", MountPath: "/var/run"}), cannot(inject.Taken), nil},
		"a socket in /var/run":                {with(corev1.VolumeMount{Name: "dev", MountPath: "/var/run/docker.sock"}), wired, nil},
		"what Kubernetes mounts in is hidden": {with(corev1.VolumeMount{Name: "dev", MountPath: "/var"}), wired, func(p *corev1.Pod) (any, any) { return mounted(p, "/var").Name, "" }},
		"a mount by subPathExpr that holds no configuration": {with(corev1.VolumeMount{Name: "dev", MountPath: "/var/log/falco", SubPathExpr: "$(X)"}), wired, func(p *corev1.Pod) (any, any) {
			return []any{mounted(p, "/var/log/falco").Name, slices.Contains(task(p).Hidden, "/var/log/falco")}, []any{"", true}
		}},
		"a mount by subPathExpr that holds the -c file": {func(p *corev1.Pod, s *inject.Settings) {
			with(corev1.VolumeMount{Name: "dev", MountPath: "/my", SubPathExpr: "$(X)"})(p, s)
			falco(p).WorkingDir, falco(p).Args = "/my", append(falco(p).Args, "-c", "conf/falco.yaml")
		}, cannot(inject.Taken), nil},
	})
}

func TestNeighbours(t *testing.T) {
	config := corev1.VolumeMount{Name: "rules", MountPath: "/share"}
	operator := func(p *corev1.Pod, _ *inject.Settings) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar("artifact-operator", config))
	}
	decide(t, map[string]decision{
		"falco-operator's sidecar": {operator, cannot(inject.Sidecar), nil},
		"falco-operator's sidecar, insisted on": {func(p *corev1.Pod, s *inject.Settings) {
			operator(p, s)
			p.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
		}, wired, nil},
		"a sidecar that only reads": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar("reader", corev1.VolumeMount{Name: "rules", MountPath: "/x", ReadOnly: true}))
		}, wired, nil},
		"a sidecar of something else": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar("mesh", corev1.VolumeMount{Name: "root-falco-fs", MountPath: "/x"}))
		}, wired, nil},
		"an init container that ends": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.InitContainers[0].VolumeMounts = []corev1.VolumeMount{config}
		}, wired, nil},
		"a container of our init container's name": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: wiring.InitContainer, Image: "x"})
		}, cannot(inject.Taken), nil},
		"mirror pod": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "0123"}
		}, cannot(inject.System), nil},
		"Falco's own read-only root": {func(p *corev1.Pod, _ *inject.Settings) {
			falco(p).SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true), Privileged: ptr.To(true)}
		}, wired, nil},
		"an address that has an alias": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Spec.HostNetwork = true
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "10.1.1.1", Hostnames: []string{settings().Host}}, {IP: "fd00::9", Hostnames: []string{"x"}}}
		}, wired, func(p *corev1.Pod) (any, any) {
			return p.Spec.HostAliases, []corev1.HostAlias{
				{IP: "10.96.0.9", Hostnames: []string{settings().Host}},
				{IP: "fd00::9", Hostnames: []string{"x", settings().Host}},
				{IP: "10.1.1.1", Hostnames: []string{settings().Host}}, // stale, and read after ours
			}
		}},
		"IPv6 only": {func(p *corev1.Pod, s *inject.Settings) { p.Spec.HostNetwork, s.Addresses = true, []string{"fd00::9"} }, wired, func(p *corev1.Pod) (any, any) {
			return p.Spec.HostAliases, []corev1.HostAlias{{IP: "fd00::9", Hostnames: []string{settings().Host}}}
		}},
		"not wired, and the node's name not added": {func(p *corev1.Pod, s *inject.Settings) {
			falco(p).Env, p.Spec.HostNetwork, s.Addresses = nil, true, nil
		}, cannot(inject.Unresolved), func(p *corev1.Pod) (any, any) { return len(falco(p).Env), 0 }},
		"annotations that leave no room": {func(p *corev1.Pod, _ *inject.Settings) {
			p.Annotations = map[string]string{"x": strings.Repeat("x", 255<<10)}
			p.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
		}, wired, nil},
		"authorities that do not fit": {func(p *corev1.Pod, s *inject.Settings) {
			p.Annotations, s.CA = map[string]string{"x": strings.Repeat("x", 250<<10)}, []byte(strings.Repeat(ca, 200))
		}, cannot(inject.Annotations), nil},
	})
}

func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		image, annotation string
		want              decided
		told, reason      string // the task's version, and part of the reason
	}{
		"the tag":                      {"falco:0.43.1", "", wired, "0.43.1", "subscribes to"},
		"the tag counts first":         {"falco:0.43.1", "0.38.0", wired, "0.43.1", "subscribes to"},
		"a short tag":                  {"falco:0.38", "", cannot(inject.Version), "", "0.41.0 or later"},
		"unknown is taken for current": {"falco:latest", "", wired, "", "annotation " + wiring.VersionAnnotation + " says it"},
		"a digest, and the annotation": {"falco@sha256:01", "0.42.0", wired, "0.42.0", "subscribes to"},
		"the annotation says an older": {"falco:latest", "0.38.2", cannot(inject.Version), "", "0.41.0 or later"},
		"the annotation says nothing":  {"falco:latest", "new", cannot(inject.Version), "", `is "new"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := stock()
			falco(p).Image = "falcosecurity/" + c.image
			if c.annotation != "" {
				p.Annotations = map[string]string{wiring.VersionAnnotation: c.annotation}
			}
			got, d := inject.Pod(p, settings())
			told := ""
			if d.Outcome.Patched() {
				told = task(got).FalcoVersion
			}
			if (decided{d.Outcome, d.Code}) != c.want || told != c.told || !strings.Contains(d.Reason, c.reason) {
				t.Errorf("told %q, %+v", told, d)
			}
			if strings.Contains(d.Reason, wiring.VersionAnnotation) != (c.told == "" && (c.image == "falco:latest" && c.annotation != "0.38.2")) {
				t.Errorf("the annotation is spoken of: %s", d.Reason)
			}
		})
	}
}

// TestResources: the pod stays in its class, and asks for no more.
func TestResources(t *testing.T) {
	some := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("512Mi")}
	devices := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), "x/gpu": resource.MustParse("1")}
	for name, c := range map[string]struct{ falco, want corev1.ResourceRequirements }{
		"BestEffort": {},
		"Burstable":  {corev1.ResourceRequirements{Requests: some}, corev1.ResourceRequirements{Requests: some}},
		"Guaranteed": {corev1.ResourceRequirements{Requests: some, Limits: some}, corev1.ResourceRequirements{Requests: some, Limits: some}},
		"devices are Falco's alone": {
			corev1.ResourceRequirements{Limits: devices, Claims: []corev1.ResourceClaim{{Name: "x"}}},
			corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := stock()
			falco(p).Resources = c.falco
			if diff := cmp.Diff(c.want, ours(injectedPod(p)).Resources); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOwners: it does not matter who makes the pod.
func TestOwners(t *testing.T) {
	for _, kind := range []string{"DaemonSet", "ReplicaSet", ""} {
		p := stock()
		if kind == "" {
			p.Name, p.GenerateName = "falco", ""
		} else {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "falco", UID: "1", Controller: ptr.To(true)}}
		}
		got, d := inject.Pod(p, settings())
		if d.Code != inject.Done {
			t.Errorf("%q: %+v", kind, d)
		}
		holds(t, p, got, d, settings())
	}
}

func TestSubscribers(t *testing.T) {
	agent := func(p *corev1.Pod, _ *inject.Settings) {
		p.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
		p.Spec.Containers = []corev1.Container{{Name: "agent"}, {Name: "other"}}
	}
	subscriber := decided{wiring.Subscriber, inject.Done}
	names := func(c corev1.Container) (all []string) {
		for _, e := range c.Env {
			all = append(all, e.Name)
		}
		return all
	}
	all := []string{"METAWIRE_ENDPOINT", "METAWIRE_NODE_NAME", "METAWIRE_CA_FILE"}
	decide(t, map[string]decision{
		"a sidecar subscribes too, an init container does not": {func(p *corev1.Pod, s *inject.Settings) {
			agent(p, s)
			p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar("proxy"))
		}, subscriber, func(p *corev1.Pod) (any, any) {
			return [][]string{names(p.Spec.InitContainers[0]), names(p.Spec.InitContainers[1])}, [][]string{nil, all}
		}},
		"a status that is not true": {func(p *corev1.Pod, s *inject.Settings) {
			agent(p, s)
			p.Annotations[wiring.StatusAnnotation] = `{"outcome":"subscriber"}`
		}, subscriber, func(p *corev1.Pod) (any, any) { return names(p.Spec.Containers[0]), all }},
		"a container that mounts /run": {func(p *corev1.Pod, s *inject.Settings) {
			agent(p, s)
			falco(p).VolumeMounts = []corev1.VolumeMount{{Name: "dev", MountPath: "/run"}}
		}, subscriber, func(p *corev1.Pod) (any, any) {
			status, _ := wiring.ParseStatus(p.Annotations[wiring.StatusAnnotation])
			return []any{names(*falco(p)), strings.Contains(status.Reason, `not METAWIRE_CA_FILE in "agent"`)}, []any{all[:2], true}
		}},
		"every container mounts /run": {func(p *corev1.Pod, s *inject.Settings) {
			agent(p, s)
			for i := range p.Spec.Containers {
				p.Spec.Containers[i].VolumeMounts = []corev1.VolumeMount{{Name: "dev", MountPath: "/var/run"}}
			}
		}, cannot(inject.Taken), nil},
	})
}

// TestAdmittedAgain: whatever an earlier call left, on the pod or on the one
// that it was copied from, the result is as if it had been made today.
func TestAdmittedAgain(t *testing.T) {
	for name, make := range map[string]func() *corev1.Pod{
		"Falco": stock,
		"another subscriber": func() *corev1.Pod {
			p := stock()
			p.Annotations = map[string]string{wiring.InjectAnnotation: "true"}
			falco(p).Name, falco(p).Image = "agent", "x/agent:1"
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := settings()
			now.CA, now.Image, now.Version = []byte(otherCA+ca), "metawire:2", "2.0.0"
			again, d := inject.Pod(injectedPod(make()), now)
			want, _ := inject.Pod(make(), now)
			if diff := cmp.Diff(want, again); diff != "" || d.Code != inject.Done {
				t.Errorf("%+v: %s", d, diff)
			}
			status, err := wiring.ParseStatus(again.Annotations[wiring.StatusAnnotation])
			if diff := cmp.Diff(wiring.Fingerprints(now.CA), status.CAs); err != nil || diff != "" {
				t.Errorf("%v: %s", err, diff)
			}
			if _, d := inject.Pod(again, now); d.Code != inject.Before {
				t.Errorf("a third time: %+v", d)
			}
		})
	}
	for name, change := range map[string]func(*corev1.Pod, *inject.Settings){
		"not wired any more":   func(p *corev1.Pod, _ *inject.Settings) { falco(p).Image = "falcosecurity/falco:0.38.0" },
		"opted out by now":     func(p *corev1.Pod, _ *inject.Settings) { p.Annotations[wiring.InjectAnnotation] = "false" },
		"authorities too many": func(_ *corev1.Pod, s *inject.Settings) { s.CA = []byte(strings.Repeat(ca, 5000)) },
	} {
		t.Run(name, func(t *testing.T) {
			p, s := injectedPod(stock()), settings()
			change(p, &s)
			got, d := inject.Pod(p, s)
			if d.Outcome.Patched() {
				t.Fatalf("%+v", d)
			}
			want := stock()
			want.Spec.ImagePullSecrets = p.Spec.ImagePullSecrets
			falco(want).Image = falco(p).Image
			if diff := cmp.Diff(normal(want.Spec), normal(got.Spec)); diff != "" || got.Annotations[wiring.CAAnnotation] != "" {
				t.Errorf("ours is not gone: %s", diff)
			}
		})
	}
	t.Run("another init container came after ours", func(t *testing.T) {
		p := injectedPod(stock())
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "late"})
		if got := injectedPod(p); ours(got).Name != wiring.InitContainer || len(got.Spec.InitContainers) != 3 {
			t.Errorf("%+v", got.Spec.InitContainers)
		}
	})
}
