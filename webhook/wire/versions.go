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

// joins says whether this Falco joins the lists of a file that an option adds;
// an earlier one ignores the file.
func (v falcoVersion) joins() bool { return v.atLeast(41) }
