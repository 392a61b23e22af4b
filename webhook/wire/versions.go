package wire

import (
	"strconv"
	"strings"
)

// falcoVersion is that of Falco. Its zero value is an unknown one, which is taken for
// the current.
type falcoVersion struct {
	minor int // of 0.minor
	known bool
}

// parseVersion reads "0.41.0"; anything else is unknown.
func parseVersion(s string) falcoVersion {
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	if major != "0" || err != nil || n < 0 {
		return falcoVersion{}
	}
	return falcoVersion{minor: n, known: true}
}

// atLeast says whether this is Falco 0.minor or later.
func (v falcoVersion) atLeast(minor int) bool { return !v.known || v.minor >= minor }

// plugin returns the version of the plugin that goes with this Falco: a plugin
// needs a Falco that speaks its API.
func (v falcoVersion) plugin() string {
	for _, row := range []struct {
		falco  int // 0.falco and later
		plugin string
	}{
		{42, "0.4.1"},
		{40, "0.3.1"},
	} {
		if v.atLeast(row.falco) {
			return row.plugin
		}
	}
	return "0.2.1"
}

// What Falco does with further configuration files, by version.
func (v falcoVersion) includes() bool    { return v.atLeast(38) } // config_files
func (v falcoVersion) strategies() bool  { return v.atLeast(41) } // joins lists, else a later file replaces them
func (v falcoVersion) optionFiles() bool { return v.atLeast(41) } // -o config_files is merged too
