package inject

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/wiring"
)

// Names of what is added to a pod.
const (
	generatedVolume = "metawire-generated"
	caVolume        = "metawire-ca"
	tokenVolume     = "metawire-token" //nolint:gosec // a name
)

// fragmentOption makes Falco read the fragment.
const fragmentOption = "config_files[]=" + wiring.FragmentFile

// without returns a copy of the pod without what an earlier call added. What is
// harmless stays: the node's name in a variable, an alias, a pull secret.
func without(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	wired := slices.ContainsFunc(out.Spec.InitContainers, isOurs)
	out.Spec.InitContainers = slices.DeleteFunc(out.Spec.InitContainers, isOurs)
	var gone []string
	out.Spec.Volumes = slices.DeleteFunc(out.Spec.Volumes, func(v corev1.Volume) bool {
		ours := showsCA(v) || wired && slices.Contains([]string{generatedVolume, tokenVolume}, v.Name)
		if ours {
			gone = append(gone, v.Name)
		}
		return ours
	})
	if slices.Contains(gone, caVolume) {
		delete(out.Annotations, wiring.CAAnnotation)
	}
	for _, all := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range all {
			all[i].VolumeMounts = slices.DeleteFunc(all[i].VolumeMounts, func(m corev1.VolumeMount) bool { return slices.Contains(gone, m.Name) })
			if wired {
				all[i].Args = withoutFragment(all[i].Args)
			}
		}
	}
	return out
}

// isOurs reports whether it is the container that writes the fragment, and not
// another of its name.
func isOurs(c corev1.Container) bool {
	return c.Name == wiring.InitContainer &&
		slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == wiring.TaskVariable })
}

// withoutFragment takes out the option that makes Falco read the fragment.
func withoutFragment(args []string) []string {
	for i := 0; i+1 < len(args); i++ {
		if args[i] == "-o" && args[i+1] == fragmentOption {
			return withoutFragment(slices.Concat(args[:i], args[i+2:]))
		}
	}
	return args
}

// volumes returns those that a wired Falco pod needs.
func volumes(s Settings) []corev1.Volume {
	return append([]corev1.Volume{
		{Name: generatedVolume, VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("256Mi"))},
		}},
		{Name: tokenVolume, VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: wiring.Audience, ExpirationSeconds: ptr.To[int64](600), Path: path.Base(wiring.TokenFile),
				},
			}}},
		}},
	}, authorities(s)...)
}

// authorities returns the volume that shows them, if there are any.
func authorities(s Settings) []corev1.Volume {
	if len(s.CA) == 0 {
		return nil
	}
	return []corev1.Volume{{Name: caVolume, VolumeSource: corev1.VolumeSource{
		DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{
			Path:     path.Base(wiring.CAFile),
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: caField},
		}}},
	}}}
}

// caField is where the annotation stands in a pod.
const caField = "metadata.annotations['" + wiring.CAAnnotation + "']"

// showsCA reports whether a volume is that of the authorities.
func showsCA(v corev1.Volume) bool {
	return v.Name == caVolume && v.DownwardAPI != nil && slices.ContainsFunc(v.DownwardAPI.Items, func(f corev1.DownwardAPIVolumeFile) bool {
		return f.FieldRef != nil && f.FieldRef.FieldPath == caField
	})
}

func mount(volume, path string, readOnly bool) corev1.VolumeMount {
	return corev1.VolumeMount{Name: volume, MountPath: path, ReadOnly: readOnly}
}

// hasVolume reports whether the pod has one of the volumes.
func hasVolume(pod *corev1.Pod, names ...string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(names, v.Name) })
}

// fromNode is the source of a variable that holds the node's name.
func fromNode() *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: nodeNameField}}
}
