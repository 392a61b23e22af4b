// Package falco recognizes Falco in a pod and reads its command line: the
// webhook wires it, the collector reports it when it runs unwired. It does no
// I/O.
package falco

import (
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// containerName is how Falco's own chart and its operator name the container.
const containerName = "falco"

// image matches references whose repository ends in /falco, as the webhook's
// matchConditions do: not falcosidekick, falcoctl or falco-driver-loader.
var image = regexp.MustCompile(`(^|/)falco(:[^/@]*)?(@[^/]*)?$`)

// version matches what a tag begins with: mirrors leave the last number out
// (0.38) or add something of their own (0.38.0_p1).
var version = regexp.MustCompile(`^v?(\d{1,9}\.\d{1,9}(\.\d{1,9})?)([^0-9].*)?$`)

// Is reports whether a container of that name and image is Falco.
func Is(name, imageRef string) bool { return name == containerName || image.MatchString(imageRef) }

// Version returns the version that an image's tag tells, without what it says
// of the build: 0.43.1 for falcosecurity/falco:0.43.1-debian. It is nil for a
// tag that is no version (latest, master), and for none.
func Version(imageRef string) *semver.Version {
	ref, _, _ := strings.Cut(imageRef, "@")
	ref = ref[strings.LastIndex(ref, "/")+1:]
	_, tag, _ := strings.Cut(ref, ":")
	return ParseVersion(tag)
}

// ParseVersion returns the version that a text begins with, nil if none: two
// numbers at least.
func ParseVersion(text string) *semver.Version {
	m := version.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	v, err := semver.NewVersion(m[1])
	if err != nil {
		return nil
	}
	return v
}
