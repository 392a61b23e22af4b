package inject

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
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

// wire patches a pod whose container i is Falco. What it returns without having
// wired may be half done.
func wire(pod *corev1.Pod, i int, s Settings) Decision {
	c := &pod.Spec.Containers[i]
	c.Args = withoutFragment(c.Args) // copied from a wired pod
	if len(c.Command)+len(c.Args) == 0 {
		c.Args = []string{falcoProgram} // else the image's command is lost
	}
	task := wiring.Task{
		Host: s.Host, Port: s.Port, TLS: len(s.CA) > 0,
		Command: expanded(c), WorkingDir: c.WorkingDir, Plugin: s.Plugin,
	}
	var mounts []corev1.VolumeMount
	mounts, task.Mounts, task.Hidden = copied(c)
	command := falco.ParseCommand(task.Command)
	command.ConfigFile = falco.Absolute(c.WorkingDir, command.ConfigFile)
	for _, refusal := range []func() *Decision{
		func() *Decision { return tooOld(pod, c, &task) },
		func() *Decision { return fixed(c, task.Command) },
		func() *Decision { return set(c, command) },
		func() *Decision { return taken(pod, c, command) },
		func() *Decision { return shared(pod, c, command) },
	} {
		if d := refusal(); d != nil {
			return *d
		}
	}
	variable, add := nodeName(c)
	if variable == "" {
		return notWired(Taken, "container %q sets %s to something else than %s", c.Name, nodeVariable, nodeNameField)
	}
	if add {
		c.Env = append(c.Env, corev1.EnvVar{Name: variable, ValueFrom: fromNode()})
	}
	task.NodeVariable = variable
	if !resolve(pod, s) {
		return unresolved(s)
	}
	for _, name := range s.ImagePullSecrets {
		ref := corev1.LocalObjectReference{Name: name}
		if !slices.Contains(pod.Spec.ImagePullSecrets, ref) {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, ref)
		}
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, volumes(s)...)
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, initContainer(c, task, mounts, s))
	c.Args = append(c.Args, "-o", fragmentOption)
	c.VolumeMounts = append(c.VolumeMounts, mount(generatedVolume, wiring.GeneratedDir, true))
	if task.TLS {
		c.VolumeMounts = append(c.VolumeMounts, mount(caVolume, wiring.CADir, true))
	}
	reason := fmt.Sprintf("container %q reads a fragment that init container %q writes, and subscribes to %s", c.Name, wiring.InitContainer, s.endpoint())
	if task.FalcoVersion == "" {
		reason += fmt.Sprintf("; image %q does not tell Falco's version, which was taken for a current one: annotation %s says it", c.Image, wiring.VersionAnnotation)
	}
	return Decision{wiring.Wired, Done, reason}
}

// refuse is notWired for one of several checks.
func refuse(code Code, format string, args ...any) *Decision {
	return ptr.To(notWired(code, format, args...))
}

// tooOld refuses a Falco that cannot join configurations; else the task is told
// the version, as the image's tag says it or else the annotation.
func tooOld(pod *corev1.Pod, c *corev1.Container, task *wiring.Task) *Decision {
	v := falco.Version(c.Image)
	if said, ok := pod.Annotations[wiring.VersionAnnotation]; ok && v == nil {
		if v = falco.ParseVersion(said); v == nil {
			return refuse(Version, "annotation %s is %q, which is no version such as 0.43.1", wiring.VersionAnnotation, said)
		}
	}
	if v == nil {
		return nil
	}
	if v.LessThan(oldest()) {
		return refuse(Version, "Falco %s does not join the plugins of several configuration files: %s or later is needed", v, oldest())
	}
	task.FalcoVersion = v.String()
	return nil
}

// fixed refuses a command line that options cannot be added to.
func fixed(c *corev1.Container, line []string) *Decision {
	if len(line) > 0 && !strings.HasPrefix(line[0], "-") && path.Base(line[0]) != path.Base(falcoProgram) {
		return refuse(Command, "container %q runs %q and not Falco itself, so no option can be added to its command line", c.Name, line[0])
	}
	if slices.Contains(line, "--") {
		return refuse(Command, "the command line of container %q has \"--\", after which options have no effect", c.Name)
	}
	return nil
}

// set refuses options with which a fragment would be lost or do harm, and leaves
// alone a Falco that they give the plugin.
func set(c *corev1.Container, command falco.Command) *Decision {
	if strings.Contains(command.ConfigFile, "$(") {
		return refuse(Command, "the configuration file of container %q, %s, depends on a variable whose value is not known here", c.Name, command.ConfigFile)
	}
	for _, o := range command.Options {
		if strings.Contains(o.Key+o.Value, "$(") {
			return refuse(Command, "option -o %s of container %q depends on a variable whose value is not known here", o.Key, c.Name)
		}
		switch root := o.Root(); {
		case !strings.HasPrefix(root, falco.KeyConfigFiles) && root != falco.KeyPlugins && root != falco.KeyLoadPlugins:
		case !o.Appends():
			return refuse(Command, "option -o %s of container %q sets %s, or an element of it by its place, and not one more", o.Key, c.Name, root)
		case root == falco.KeyPlugins && strings.Contains(o.Value, "k8smeta"):
			return ptr.To(stoodDown(Configured, "the command line of container %q configures k8smeta", c.Name))
		}
	}
	return nil
}

// taken refuses a pod that has something of its own where ours would be.
func taken(pod *corev1.Pod, c *corev1.Container, command falco.Command) *Decision {
	ours := func(c corev1.Container) bool { return c.Name == wiring.InitContainer }
	switch {
	case slices.ContainsFunc(pod.Spec.InitContainers, ours), slices.ContainsFunc(pod.Spec.Containers, ours):
		return refuse(Taken, "the pod has a container %q of its own", wiring.InitContainer)
	case hasVolume(pod, generatedVolume, caVolume, tokenVolume):
		return refuse(Taken, "the pod has a volume of its own that is named %s, %s or %s", generatedVolume, caVolume, tokenVolume)
	case occupied(c, wiring.GeneratedDir) || occupied(c, wiring.CADir):
		return refuse(Taken, "container %q mounts something at, above or below %s", c.Name, path.Dir(wiring.GeneratedDir))
	}
	for _, m := range c.VolumeMounts {
		if m.SubPathExpr != "" && configures(m, command) {
			return refuse(Taken, "container %q mounts %s by subPathExpr, whose variables another container does not have", c.Name, m.MountPath)
		}
	}
	return nil
}

// shared refuses a pod whose sidecar may write Falco's configuration or plugins
// after ours has looked, as falco-operator's does: the plugin twice would end
// Falco. The annotation insists.
func shared(pod *corev1.Pod, c *corev1.Container, command falco.Command) *Decision {
	if pod.Annotations[wiring.InjectAnnotation] == "true" {
		return nil
	}
	for _, m := range c.VolumeMounts {
		if !configures(m, command) {
			continue
		}
		for _, sidecar := range pod.Spec.InitContainers {
			if restarts(sidecar) && slices.ContainsFunc(sidecar.VolumeMounts, func(other corev1.VolumeMount) bool { return other.Name == m.Name && !other.ReadOnly }) {
				return refuse(Sidecar, "sidecar %q may write to %s of container %q at any time, and so configure the plugin a second time, which ends Falco: annotation %s: \"true\" says that it does not",
					sidecar.Name, m.MountPath, c.Name, wiring.InjectAnnotation)
			}
		}
	}
	return nil
}

// restarts reports whether an init container is a sidecar.
func restarts(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// initContainer returns the container that writes the fragment.
func initContainer(c *corev1.Container, task wiring.Task, mounts []corev1.VolumeMount, s Settings) corev1.Container {
	data, _ := json.Marshal(task) // strings, numbers and flags: there is no error
	init := corev1.Container{
		Name: wiring.InitContainer, Image: s.Image, ImagePullPolicy: s.ImagePullPolicy,
		Command: []string{programs + "wire"},
		Env: []corev1.EnvVar{
			{Name: wiring.TaskVariable, Value: escape(string(data))},
			{Name: "GOMEMLIMIT", Value: "64MiB"}, // it needs less; where Falco has no limit, this is its own
		},
		Resources: resources(c),
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
	init.VolumeMounts = append(init.VolumeMounts, mounts...)
	return init
}

// resources are those of Falco's container: the pod keeps its class (with any
// others a Guaranteed or BestEffort pod would be Burstable, and an eviction
// takes it earlier), what a LimitRange or a quota lets pass for Falco passes
// here, and since the two never run at once the pod asks for no more. Devices
// are Falco's alone.
func resources(c *corev1.Container) (r corev1.ResourceRequirements) {
	only := func(all corev1.ResourceList) (out corev1.ResourceList) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if q, ok := all[name]; ok {
				if out == nil {
					out = corev1.ResourceList{}
				}
				out[name] = q
			}
		}
		return out
	}
	return corev1.ResourceRequirements{Requests: only(c.Resources.Requests), Limits: only(c.Resources.Limits)}
}
