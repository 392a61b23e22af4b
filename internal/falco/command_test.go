package falco_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/internal/falco"
)

func TestParseCommand(t *testing.T) {
	file := func(name string) falco.Command { return falco.Command{ConfigFile: name} }
	for name, tt := range map[string]struct {
		args []string
		want falco.Command
	}{
		"none":            {nil, file(falco.DefaultConfigFile)},
		"nothing special": {[]string{"/usr/bin/falco", "-pk", "-U"}, file(falco.DefaultConfigFile)},
		"-c FILE":         {[]string{"/usr/bin/falco", "-c", "/a"}, file("/a")},
		"-cFILE":          {[]string{"/usr/bin/falco", "-c/a"}, file("/a")},
		"after a flag":    {[]string{"/usr/bin/falco", "-Uc", "/a"}, file("/a")},
		"--config FILE":   {[]string{"/usr/bin/falco", "--config", "/a"}, file("/a")},
		"--config=FILE":   {[]string{"/usr/bin/falco", "--config=/a"}, file("/a")},
		"the last counts": {[]string{"/usr/bin/falco", "-c", "/a", "-c/b"}, file("/b")},
		"no value":        {[]string{"/usr/bin/falco", "-c"}, file(falco.DefaultConfigFile)},
		"not an option":   {[]string{"/usr/bin/falco", "--config-schema", "--cri", "/c"}, file(falco.DefaultConfigFile)},
		"options": {
			[]string{"/usr/bin/falco", "-o", "a=1", "-ob[]=2", "--option", "c={d: 3}", "--option=e=4=5"},
			falco.Command{ConfigFile: falco.DefaultConfigFile, Options: []falco.Option{
				{Key: "a", Value: "1"}, {Key: "b[]", Value: "2"}, {Key: "c", Value: "{d: 3}"}, {Key: "e", Value: "4=5"},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, falco.ParseCommand(tt.args)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOption(t *testing.T) {
	for key, want := range map[string]struct {
		root    string
		appends bool
	}{
		"plugins": {"plugins", false}, "plugins[]": {"plugins", true}, "plugins[0]": {"plugins", false},
		"plugins[].name": {"plugins", false}, "plugins[0].name": {"plugins", false}, "a.b[]": {"a", false}, "": {"", false},
	} {
		o := falco.Option{Key: key}
		if o.Root() != want.root || o.Appends() != want.appends {
			t.Errorf("%q: root %q, appends %t", key, o.Root(), o.Appends())
		}
	}
}
