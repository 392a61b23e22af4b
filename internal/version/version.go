// Package version says which build is running. It decides nothing.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Dev is the version of a build that nobody released.
const Dev = "dev"

// Version is the release, such as "0.1.0", or Dev.
var Version = "dev" //nolint:gochecknoglobals // the linker stamps it with -X, which needs a package variable

// Info describes the build that is running.
type Info struct {
	Version string `json:"version"`
	// Commit is the revision that was built, with the suffix "-dirty" if files
	// were changed; empty when the build did not record it.
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`       // such as go1.26.0
	Platform string `json:"platform"` // such as linux/amd64
}

// Get returns what is known of the running build.
func Get() Info {
	i := Info{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if build, ok := debug.ReadBuildInfo(); ok {
		i.Commit = commit(build.Settings)
	}
	return i
}

// String returns the running build as a line for people.
func String() string {
	i := Get()
	if i.Commit == "" {
		return fmt.Sprintf("%s (%s, %s)", i.Version, i.Go, i.Platform)
	}
	return fmt.Sprintf("%s (commit %s, %s, %s)", i.Version, i.Commit, i.Go, i.Platform)
}

func commit(settings []debug.BuildSetting) string {
	var revision, suffix string
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				suffix = "-dirty"
			}
		}
	}
	if revision == "" {
		return ""
	}
	const short = 12 // as git abbreviates in a repository of this size and more
	return revision[:min(len(revision), short)] + suffix
}
