package configuration_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/metawire/metawire/tests/falco/configuration"
)

func TestRead(t *testing.T) {
	const (
		main  = "/etc/falco/falco.yaml"
		ab    = "plugins: [{name: a, library_path: a.so}, {name: b, library_path: b.so}]\n"
		files = "config_files: [/d]\n"
	)
	for name, c := range map[string]struct {
		files map[string]string
		args  []string
		want  string // names of the plugins
		fails string
	}{
		"no load_plugins loads all":      {files: map[string]string{main: ab}, want: "a b"},
		"the order of load_plugins":      {files: map[string]string{main: ab + "load_plugins: [b, a]"}, want: "b a"},
		"load_plugins without a value":   {files: map[string]string{main: ab + "load_plugins:"}},
		"one that is not configured":     {files: map[string]string{main: "load_plugins: [a]"}, fails: "not found"},
		"one twice":                      {files: map[string]string{main: ab + "load_plugins: [a, a]"}, fails: "another plugin"},
		"append joins":                   {files: map[string]string{main: files + ab + "load_plugins: [a]", "/d/1": "load_plugins: [b]"}, want: "a b"},
		"an empty list defines nothing":  {files: map[string]string{main: files + ab, "/d/1": "load_plugins: []"}, want: "a b"},
		"an empty list that overrides":   {files: map[string]string{main: "config_files: [{path: /d, strategy: override}]\n" + ab, "/d/1": "load_plugins: []"}},
		"add-only":                       {files: map[string]string{main: "config_files: [{path: /d, strategy: add-only}]\n" + ab, "/d/1": "plugins: []\nload_plugins: [b]"}, want: "b"},
		"a scalar file is passed over":   {files: map[string]string{main: files + ab, "/d/1": "text"}, want: "a b"},
		"a list is none":                 {files: map[string]string{main: files + ab, "/d/1": "[x]"}, fails: "is a list"},
		"config_files without a value":   {files: map[string]string{main: "config_files:"}, args: []string{"-o", "config_files[]=/x"}, fails: "numeric index"},
		"config_files that is a text":    {files: map[string]string{main: "config_files: /d"}, args: []string{"-o", "config_files[]=/x"}, fails: "numeric index"},
		"no config_files, and an option": {files: map[string]string{main: ab, "/x": "load_plugins: [b]"}, args: []string{"-oconfig_files[]=/x"}, want: "b"},
		"a file that does not exist":     {files: map[string]string{main: ab}, args: []string{"--option=config_files[]=/x"}, want: "a b"},
		"an element by its place":        {files: map[string]string{main: ab}, args: []string{"--option", "plugins[1].name=c"}, want: "a c"},
		"an element that is not there":   {files: map[string]string{main: ab}, args: []string{"-o", "plugins[7].name=c"}, fails: "no such element"},
		"one more":                       {files: map[string]string{main: ab}, args: []string{"-o", "plugins[]={name: c, library_path: c.so}"}, want: "a b c"},
		"-cFILE":                         {files: map[string]string{"/x": ab}, args: []string{"-c/x"}, want: "a b"},
		"--config=FILE":                  {files: map[string]string{"/x": ab}, args: []string{"--config=/x"}, want: "a b"},
		"variables in files":             {files: map[string]string{main: `plugins: [{name: "${A}-$${A}", library_path: a}]`}, want: "1-${A}"},
		"no variables in options":        {files: map[string]string{main: ""}, args: []string{"-o", "plugins[]={name: '${A}', library_path: a}"}, want: "${A}"},
		"known by its library":           {files: map[string]string{main: "plugins: [{name: a, library_path: libk8smeta.so}, {name: k8smeta, library_path: /x/libk8smeta.so}]"}, fails: "another plugin"},
		"lists that are one":             {files: map[string]string{main: files + "load_plugins: &x []\nplugins: *x", "/d/1": ab}, fails: "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, name := range slices.Sorted(maps.Keys(c.files)) {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(c.files[name]), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			env := func(name string) string { return map[string]string{"A": "1"}[name] }
			got, err := configuration.Source{Root: root, Env: env}.Read(append([]string{"/usr/bin/falco"}, c.args...))
			if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Fatalf("error is %v, want %q", err, c.fails)
			}
			if err != nil {
				return
			}
			var names []string
			for _, p := range got.Plugins {
				names = append(names, p.Name)
			}
			if strings.Join(names, " ") != c.want {
				t.Errorf("loads %q, want %q", names, c.want)
			}
		})
	}
}
