package wire

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metawire/metawire/internal/wiring"
	standin "github.com/metawire/metawire/tests/falco/configuration"
)

// FuzzConfiguration wires a Falco with any falco.yaml, any file that it includes
// and any option, whose variables are of the worst kind. The stand-in, which
// shares no code with us, tells what Falco makes of it: where it started before
// it starts still, with the same other plugins, and with k8smeta once if and
// only if the verdict says so.
func FuzzConfiguration(f *testing.F) {
	for _, tt := range configurationCases {
		option := ""
		for _, arg := range tt.args {
			option = strings.TrimPrefix(strings.TrimPrefix(arg, "--option="), "-o")
		}
		f.Add(tt.files[mainFile], tt.files[dropIn], option)
	}
	f.Add("a: &a [*a]\nplugins: *a\n", "", "")
	f.Add("? [x]\n: y\nplugins: [[k8smeta], null, {name: [k8smeta]}]\n", "", "plugins[x]={}")
	f.Add("load_plugins: &x []\nplugins: &y [{name: json}]\n---\nplugins: [{name: k8smeta}]", "", "")
	plugins := []string{
		"", "plugins:\n", "plugins: []\n", jsonPlugin, k8smetaPlugin, "plugins: {}\n", "plugins: &x []\n",
		"plugins: [{name: \"${X}\", library_path: x}]\n", "plugins: [{name: x, library_path: \"lib${X}\"}]\n",
	}
	loads := []string{"", "load_plugins:\n", "load_plugins: []\n", "load_plugins: [json]\n", "load_plugins: [k8smeta]\n", "load_plugins: json\n", "load_plugins: [\"${X}\"]\n"}
	heads := []string{"", "config_files:\n", includes, "config_files: [{path: /etc/falco/config.d, strategy: override}]\n", "config_files: [{path: /etc/falco/config.d, strategy: add-only}]\n"}
	options := []string{"", "plugins[]={name: json, library_path: x}", "load_plugins[]=json", "load_plugins[]=k8smeta", "plugins[]={name: k8smeta, library_path: x}", "config_files[]=" + dropIn}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // to be repeated
	one := func(of []string) string { return of[random.IntN(len(of))] }
	for range 500 {
		f.Add(one(heads)+one(plugins)+one(loads), one(plugins)+one(loads), one(options))
	}
	o := tree(f, map[string]string{mainFile: "", dropIn: ""})
	f.Fuzz(func(t *testing.T, content, included, option string) {
		write(t, o.path(mainFile), content)
		write(t, o.path(dropIn), included)
		write(t, o.path(wiring.FragmentFile), "") // of an earlier round
		args := []string{"/usr/bin/falco"}
		if option != "" {
			args = append(args, "-o", option)
		}
		task := configurationTask(map[string]string{mainFile: ""}, args[1:])
		conf, err := readConfiguration(o, task)
		falco := standin.Source{Root: o.Root, Env: func(string) string { return pluginName }}
		before, fails := falco.Read(args)
		if err != nil || fails != nil {
			return // not wired, or lost before
		}
		was, others := split(before)
		switch {
		case conf.configuredBy == "" && len(was) > 0, conf.configuredBy != "" && conf.loaded != (len(was) == 1):
			t.Fatalf("loaded is %+v, and we say %+v", was, conf)
		case conf.configuredBy != "":
			return
		}
		text, err := fragment(task, wiring.LibraryFile, "$${N}", conf)
		if err != nil {
			t.Fatal(err)
		}
		write(t, o.path(wiring.FragmentFile), string(text))
		after, err := falco.Read(append(slices.Clip(args), "-o", "config_files[]="+wiring.FragmentFile))
		if err != nil {
			t.Fatalf("Falco does not start any more: %v, with\n%s", err, text)
		}
		is, still := split(after)
		if diff := cmp.Diff(others, still); diff != "" {
			t.Errorf("other plugins have changed: %s", diff)
		}
		want := []standin.Plugin{{Name: pluginName, Library: wiring.LibraryFile, Init: map[string]any{
			"collectorHostname": "h", "collectorPort": 1.0, "nodeName": "${N}", "caPEMBundle": wiring.CAFile,
		}}}
		if diff := cmp.Diff(want, is); diff != "" {
			t.Errorf("the plugin: %s", diff)
		}
	})
}

// split takes the plugin out of what is loaded.
func split(c *standin.Configuration) (ours, others []standin.Plugin) {
	for _, p := range c.Plugins {
		told, _ := p.Init.(map[string]any)
		text, _ := p.Init.(string)
		if p.Name == pluginName || strings.Contains(p.Library, pluginName) || told[keyHostname] != nil || strings.Contains(text, keyHostname) {
			ours = append(ours, p)
		} else {
			others = append(others, p)
		}
	}
	return ours, others
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestNumericNode: Falco makes a number of a text of digits even where it is
// quoted, which a node's name must not become.
func TestNumericNode(t *testing.T) {
	o := tree(t, map[string]string{mainFile: ""})
	text, err := fragment(wiring.Task{Host: "h", Port: 1, NodeVariable: "N"}, wiring.LibraryFile, "$${N}", configuration{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, o.path(wiring.FragmentFile), string(text))
	falco := standin.Source{Root: o.Root, Env: func(string) string { return "123" }}
	c, err := falco.Read([]string{"falco", "-o", "config_files[]=" + wiring.FragmentFile})
	if err != nil {
		t.Fatal(err)
	}
	if told, _ := c.Plugins[0].Init.(map[string]any); told["nodeName"] != "${N}" {
		t.Errorf("the plugin is told %v", told)
	}
}
