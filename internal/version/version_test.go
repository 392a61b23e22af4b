package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestStringNamesVersionAndGo(t *testing.T) {
	if got := String(); !strings.HasPrefix(got, Version+" (") || !strings.Contains(got, runtime.Version()) {
		t.Errorf("String() = %q, want the version %q and %q", got, Version, runtime.Version())
	}
}

func TestCommit(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for name, tc := range map[string]struct {
		settings []debug.BuildSetting
		want     string
	}{
		"not recorded":  {nil, ""},
		"clean":         {[]debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}}, "0123456789ab"},
		"changed files": {[]debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}, "0123456789ab-dirty"},
		"short":         {[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123"}}, "0123"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := commit(tc.settings); got != tc.want {
				t.Errorf("commit() = %q, want %q", got, tc.want)
			}
		})
	}
}
