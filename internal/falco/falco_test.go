package falco_test

import (
	"testing"

	"github.com/metawire/metawire/internal/falco"
)

func TestIs(t *testing.T) {
	for _, c := range []struct {
		name, image string
		want        bool
	}{
		{"falco", "registry.local/agent:1", true},
		{"agent", "falco", true},
		{"agent", "falcosecurity/falco:0.41.0", true},
		{"agent", "reg.local:5000/team/falco:0.41.0-debian", true},
		{"agent", "localhost:5000/falco", true},
		{"agent", "falcosecurity/falco@sha256:0123", true},
		{"agent", "falcosecurity/falco:0.41.0@sha256:0123", true},
		{"sidekick", "falcosecurity/falcosidekick:2", false},
		{"ctl", "falcosecurity/falcoctl:0.11", false},
		{"loader", "falcosecurity/falco-driver-loader:0.41.0", false},
		{"agent", "falco:5000/foo:1", false},
		{"agent", "falco/agent:1", false},
		{"agent", "x/y:falco", false},
		{"agent", "x/my-falco:1", false},
		{"", "", false},
	} {
		if got := falco.Is(c.name, c.image); got != c.want {
			t.Errorf("container %q, image %q: got %t, want %t", c.name, c.image, got, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	for image, want := range map[string]string{
		"falcosecurity/falco:0.43.1":              "0.43.1",
		"falcosecurity/falco:0.43.1-debian":       "0.43.1",
		"localhost:5000/falco:v0.38.0":            "0.38.0",
		"falcosecurity/falco:0.41.0-rc1@sha256:0": "0.41.0",
		"falcosecurity/falco:0.38":                "0.38.0",
		"falcosecurity/falco:v0.38-debian":        "0.38.0",
		"falcosecurity/falco:0.38.0_p1":           "0.38.0",
		"falcosecurity/falco:0.38.0.1":            "0.38.0",
		"falcosecurity/falco:latest":              "",
		"falcosecurity/falco:master-0.38.0":       "",
		"falcosecurity/falco:latest-debian":       "",
		"falcosecurity/falco:0":                   "",
		"falcosecurity/falco@sha256:0123":         "",
		"localhost:5000/falco":                    "",
		"":                                        "",
	} {
		got := ""
		if v := falco.Version(image); v != nil {
			got = v.String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", image, got, want)
		}
	}
}
