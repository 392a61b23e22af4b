package inject

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/falco"
	"github.com/metawire/metawire/internal/wiring"
)

// falcoNodeVariable is set by Falco's own chart; nodeNameField is what it must
// come from to be believed.
const (
	falcoNodeVariable = "FALCO_K8S_NODE_NAME"
	nodeNameField     = "spec.nodeName"
)

// programs is where our own image has its programs.
const programs = "/usr/local/bin/"

// falcoProgram is where Falco's image has it.
const falcoProgram = "/usr/bin/falco"

// oldest is the first Falco that joins the sequences of several configuration
// files; an earlier one would lose its own plugins to ours.
func oldest() *semver.Version { return semver.New(0, 41, 0, "", "") }

// wire patches a pod whose container i is Falco.
func wire(pod *corev1.Pod, i int, s Settings) Decision {
	c := &pod.Spec.Containers[i]
	fragment := "config_files[]=" + wiring.FragmentFile
	ours := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == wiring.InitContainer })
	if ours && slices.Contains(c.Args, fragment) {
		return Decision{wiring.Wired, Before, "Falco was wired before"}
	}
	v := falco.Version(c.Image)
	if v != nil && v.LessThan(oldest()) {
		return notWired(Version, "Falco %s does not join the plugins of several configuration files: %s or later is needed", v, oldest())
	}
	if d, ok := addable(c); !ok {
		return d
	}
	if ours || hasVolume(pod, generatedVolume, caVolume, tokenVolume) {
		return notWired(Taken, "the pod has an init container %q or a volume whose name begins with metawire- of its own", wiring.InitContainer)
	}
	if occupied(c, wiring.GeneratedDir) || occupied(c, wiring.CADir) {
		return notWired(Taken, "container %q mounts something at, above or below %s", c.Name, path.Dir(wiring.GeneratedDir))
	}
	if i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return mayConfigure(m) && m.SubPathExpr != "" }); i >= 0 {
		return notWired(Taken, "container %q mounts %s by subPathExpr, whose variables another container does not have", c.Name, c.VolumeMounts[i].MountPath)
	}
	variable, ok := nodeName(c)
	if !ok {
		return notWired(Taken, "container %q sets %s to something else than %s", c.Name, nodeVariable, nodeNameField)
	}
	if !resolve(pod, s) {
		return unresolved(s)
	}
	task := wiring.Task{
		Host: s.Host, Port: s.Port, TLS: len(s.CA) > 0,
		Command: append(slices.Clone(c.Command), c.Args...), NodeVariable: variable, Plugin: s.Plugin,
	}
	if v != nil {
		task.FalcoVersion = v.String()
	}
	addVolumes(pod, s)
	for _, name := range s.ImagePullSecrets {
		ref := corev1.LocalObjectReference{Name: name}
		if !slices.Contains(pod.Spec.ImagePullSecrets, ref) {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, ref)
		}
	}
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, initContainer(c, task, s))
	if len(c.Command)+len(c.Args) == 0 {
		c.Args = []string{falcoProgram} // else the image's command is lost
	}
	c.Args = append(c.Args, "-o", fragment)
	c.VolumeMounts = append(c.VolumeMounts, mount(generatedVolume, wiring.GeneratedDir, true))
	if task.TLS {
		c.VolumeMounts = append(c.VolumeMounts, mount(caVolume, wiring.CADir, true))
	}
	return Decision{wiring.Wired, Done, fmt.Sprintf("container %q reads a fragment that init container %q writes, and subscribes to %s", c.Name, wiring.InitContainer, s.endpoint())}
}

// addable reports whether options can be added to Falco's command line, and the
// decision if not.
func addable(c *corev1.Container) (Decision, bool) {
	line := append(slices.Clone(c.Command), c.Args...)
	if len(line) > 0 && !strings.HasPrefix(line[0], "-") && path.Base(line[0]) != path.Base(falcoProgram) {
		return notWired(Command, "container %q runs %q and not Falco itself, so no option can be added to its command line", c.Name, line[0]), false
	}
	for i, arg := range line {
		if arg == "--" {
			return notWired(Command, "the command line of container %q has \"--\", after which options have no effect", c.Name), false
		}
		if strings.Contains(arg, "config_files=") {
			return stoodDown(Configured, "the command line of container %q sets config_files as a whole, to which Falco refuses to append", c.Name), false
		}
		if strings.Contains(arg, "k8smeta") && (strings.HasPrefix(arg, "-") || i > 0 && (line[i-1] == "-o" || line[i-1] == "--option")) {
			return stoodDown(Configured, "the command line of container %q configures k8smeta", c.Name), false
		}
	}
	return Decision{}, true
}

// occupied reports whether something is mounted at the directory, or above or
// below it: a mount within another's would appear there too, on the host even.
func occupied(c *corev1.Container, dir string) bool {
	within := func(p, dir string) bool { return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/") }
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		p := path.Clean(m.MountPath)
		return within(p, dir) || within(dir, p)
	})
}

// nodeName returns the container's variable that holds the node's name, added
// if need be; false if its name is taken.
func nodeName(c *corev1.Container) (string, bool) {
	for _, name := range []string{falcoNodeVariable, nodeVariable} {
		var last *corev1.EnvVar // of several, the last one counts
		for i := range c.Env {
			if c.Env[i].Name == name {
				last = &c.Env[i]
			}
		}
		switch {
		case last == nil && name == nodeVariable:
			c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: fromNode()})
			return name, true
		case last != nil && last.ValueFrom != nil && last.ValueFrom.FieldRef != nil && last.ValueFrom.FieldRef.FieldPath == nodeNameField:
			return name, true
		}
	}
	return "", false
}

func addVolumes(pod *corev1.Pod, s Settings) {
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		corev1.Volume{Name: generatedVolume, VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("256Mi"))},
		}},
		corev1.Volume{Name: tokenVolume, VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: wiring.Audience, ExpirationSeconds: ptr.To[int64](600), Path: path.Base(wiring.TokenFile),
				},
			}}},
		}})
	addCA(pod, s)
}

// initContainer returns the container that writes the fragment.
func initContainer(c *corev1.Container, task wiring.Task, s Settings) corev1.Container {
	data, _ := json.Marshal(task) // strings, numbers and flags: there is no error
	init := corev1.Container{
		Name: wiring.InitContainer, Image: s.Image, ImagePullPolicy: s.ImagePullPolicy,
		Command: []string{programs + "wire"},
		Env:     []corev1.EnvVar{{Name: wiring.TaskVariable, Value: escape(string(data))}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
			// Both, for namespaces whose quota asks for limits.
			Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532), RunAsGroup: ptr.To[int64](65532),
			Privileged: ptr.To(false), AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		VolumeMounts: []corev1.VolumeMount{
			mount(generatedVolume, wiring.GeneratedDir, false), mount(tokenVolume, wiring.TokenDir, true),
		},
	}
	if task.TLS {
		init.VolumeMounts = append(init.VolumeMounts, mount(caVolume, wiring.CADir, true))
	}
	for _, m := range c.VolumeMounts {
		if mayConfigure(m) {
			m.ReadOnly, m.MountPropagation, m.RecursiveReadOnly = true, nil, nil
			init.VolumeMounts = append(init.VolumeMounts, m)
		}
	}
	return init
}

// escape keeps Kubernetes from expanding $(VARIABLE) in a value.
func escape(value string) string { return strings.ReplaceAll(value, "$(", "$$(") }

// mayConfigure reports whether a mount of Falco's may hold its configuration:
// the init container is not shown the host's devices, processes and sockets.
func mayConfigure(m corev1.VolumeMount) bool {
	p := path.Clean(m.MountPath) + "/"
	if strings.HasPrefix(programs, p) || p == "//" {
		return false // it would hide our own program
	}
	return !slices.ContainsFunc([]string{"/dev/", "/host/", "/proc/", "/run/", "/sys/", programs, "/var/run/"}, func(dir string) bool {
		return strings.HasPrefix(p, dir)
	})
}
