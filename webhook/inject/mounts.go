package inject

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/falco"
)

// Where Falco's image has what a volume may bring instead.
const (
	configDir  = "/etc/falco"
	rulesDir   = "/etc/falco/rules.d"
	pluginsDir = "/usr/share/falco/plugins"
)

// within reports whether a path is a directory or below it.
func within(p, dir string) bool { return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/") }

// place is where a mount appears: /var/run is a link to /run.
func place(m corev1.VolumeMount) string {
	p := path.Clean("/" + m.MountPath)
	if within(p, "/var/run") {
		p = strings.TrimPrefix(p, "/var")
	}
	return p
}

// occupied reports whether something is mounted at the directory, or above or
// below it: a mount within another's would appear there too, on the host even.
func occupied(c *corev1.Container, dir string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		p := place(m)
		return within(p, dir) || within(dir, p)
	})
}

// configures reports whether a mount holds configuration or plugins of Falco's,
// or part of them.
func configures(m corev1.VolumeMount, command falco.Command) bool {
	p := place(m)
	if within(p, rulesDir) {
		return false
	}
	return within(command.ConfigFile, p) || slices.ContainsFunc([]string{configDir, pluginsDir}, func(dir string) bool {
		return within(p, dir) || within(dir, p)
	})
}

// copied returns the mounts of Falco's that the init container is given, where
// they are, and where those are that it is not given.
func copied(c *corev1.Container) (mounts []corev1.VolumeMount, shown, hidden []string) {
	for _, m := range c.VolumeMounts {
		if p := path.Clean("/" + m.MountPath); mayShow(m) {
			mounts, shown = append(mounts, m), append(shown, p)
		} else {
			hidden = append(hidden, p)
		}
	}
	for i := range mounts {
		m := &mounts[i]
		// No mount point can be made in what is read-only: where another mount
		// is below, it stays as Falco has it.
		holds := slices.ContainsFunc(shown, func(p string) bool { return p != shown[i] && within(p, shown[i]) })
		m.ReadOnly = m.ReadOnly || !holds
		m.MountPropagation, m.RecursiveReadOnly = nil, nil
	}
	return mounts, shown, hidden
}

// mayShow reports whether the init container may have a mount of Falco's: not
// the host's devices, processes and sockets, and none that hides our program or
// what Kubernetes mounts; the variables of subPathExpr are Falco's alone.
func mayShow(m corev1.VolumeMount) bool {
	p := strings.TrimSuffix(place(m), "/") + "/"
	if m.SubPathExpr != "" || strings.HasPrefix(programs, p) || strings.HasPrefix("/var/run/", p) {
		return false
	}
	return !slices.ContainsFunc([]string{"/dev/", "/host/", "/proc/", "/run/", "/sys/", programs}, func(dir string) bool {
		return strings.HasPrefix(p, dir)
	})
}
