package wire

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/metawire/metawire/internal/wiring"
)

// tree writes files below a fresh root.
func tree(t testing.TB, files map[string]string) Options {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{wiring.GeneratedDir, wiring.CADir, wiring.TokenDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Options{Root: root}
}

func TestParseCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want command
	}{
		"none":            {nil, command{configFile: defaultConfigFile}},
		"nothing special": {[]string{"/usr/bin/falco", "-pk", "-U"}, command{configFile: defaultConfigFile}},
		"-c FILE":         {[]string{"/usr/bin/falco", "-c", "/a"}, command{configFile: "/a"}},
		"-cFILE":          {[]string{"/usr/bin/falco", "-c/a"}, command{configFile: "/a"}},
		"after a flag":    {[]string{"/usr/bin/falco", "-Uc", "/a"}, command{configFile: "/a"}},
		"--config FILE":   {[]string{"/usr/bin/falco", "--config", "/a"}, command{configFile: "/a"}},
		"--config=FILE":   {[]string{"/usr/bin/falco", "--config=/a"}, command{configFile: "/a"}},
		"the last counts": {[]string{"/usr/bin/falco", "-c", "/a", "-c/b"}, command{configFile: "/b"}},
		"no value":        {[]string{"/usr/bin/falco", "-c"}, command{configFile: defaultConfigFile}},
		"not an option":   {[]string{"/usr/bin/falco", "--config-schema", "--cri", "/c"}, command{configFile: defaultConfigFile}},
		"options": {
			[]string{"/usr/bin/falco", "-o", "a=1", "-ob[]=2", "--option", "c={d: 3}", "--option=e=4"},
			command{configFile: defaultConfigFile, options: []string{"a=1", "b[]=2", "c={d: 3}", "e=4"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseCommand(tt.args), cmp.AllowUnexported(command{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]string{
		"": "0.4.1", "latest": "0.4.1", "1.0.0": "0.4.1", "0.44.0": "0.4.1", "0.42.0": "0.4.1",
		"0.41.3": "0.3.1", "0.40.0": "0.3.1", "0.39.2": "0.2.1", "0.37.0": "0.2.1",
	} {
		if got := parseVersion(version).plugin(); got != want {
			t.Errorf("Falco %q: plugin %s, want %s", version, got, want)
		}
	}
}

const (
	k8smetaPlugin = "plugins: [{name: k8smeta, library_path: libk8smeta.so}]\n"
	jsonPlugin    = "plugins: [{name: json, library_path: libjson.so}]\n"
	includes      = "config_files: [/etc/falco/config.d]\n"
	mainFile      = "/etc/falco/falco.yaml"
	dropIn        = "/etc/falco/config.d/50.yaml"
	laterDropIn   = "/etc/falco/config.d/60.yaml"
	byOption      = "an option of Falco's command line"
)

type configurationCase struct {
	files   map[string]string
	args    []string
	version string
	want    configuration
	refused string // part of why the plugin cannot be joined
	wantErr string
}

var configurationCases = map[string]configurationCase{
	"no file is the stock one":       {want: configuration{loadDefined: true}},
	"the stock file includes":        {files: map[string]string{dropIn: k8smetaPlugin}, want: configuration{loadDefined: true, configuredBy: dropIn}},
	"empty file":                     {files: map[string]string{mainFile: ""}},
	"no load_plugins":                {files: map[string]string{mainFile: jsonPlugin}},
	"load_plugins":                   {files: map[string]string{mainFile: "load_plugins: []\n"}, want: configuration{loadDefined: true}},
	"load_plugins without a value":   {files: map[string]string{mainFile: "load_plugins:\n"}, want: configuration{loadDefined: true}},
	"load_plugins has the plugin":    {files: map[string]string{mainFile: "load_plugins: [k8smeta]\n"}, want: configuration{loadDefined: true, loadNamed: true}},
	"configured":                     {files: map[string]string{mainFile: k8smetaPlugin}, want: configuration{configuredBy: mainFile}},
	"configured, not loaded":         {files: map[string]string{mainFile: k8smetaPlugin + "load_plugins: []\n"}, want: configuration{configuredBy: mainFile, loadDefined: true}},
	"configured under an alias":      {files: map[string]string{mainFile: "x: &p {name: k8smeta}\nplugins: [*p]\n"}, want: configuration{configuredBy: mainFile}},
	"known by its library":           {files: map[string]string{mainFile: "plugins: [{name: k8s, library_path: /x/libk8smeta.so}]\n"}, want: configuration{configuredBy: mainFile}},
	"a name that is a variable":      {files: map[string]string{mainFile: "plugins: [{name: \"${P}\"}]\n"}, want: configuration{configuredBy: mainFile}},
	"variables are left alone":       {files: map[string]string{mainFile: "http_output: {url: \"${URL}\"}\n" + jsonPlugin}},
	"custom file":                    {files: map[string]string{mainFile: k8smetaPlugin, "/x.yaml": jsonPlugin}, args: []string{"-c", "/x.yaml"}},
	"custom file in the image":       {args: []string{"-c", "/x.yaml"}, wantErr: "/x.yaml is not on a volume"},
	"plugins is no list":             {files: map[string]string{mainFile: "plugins: text\n"}, refused: "not a list"},
	"not YAML":                       {files: map[string]string{mainFile: "a: ["}, wantErr: "/etc/falco/falco.yaml"},
	"not a mapping":                  {files: map[string]string{mainFile: "[]"}, wantErr: "not a mapping"},
	"config_files absent":            {files: map[string]string{mainFile: jsonPlugin, dropIn: k8smetaPlugin}},
	"directory":                      {files: map[string]string{mainFile: includes, dropIn: k8smetaPlugin}, want: configuration{configuredBy: dropIn}},
	"directory, no directory in it":  {files: map[string]string{mainFile: includes, "/etc/falco/config.d/x/50.yaml": k8smetaPlugin}},
	"directory, any extension":       {files: map[string]string{mainFile: includes, "/etc/falco/config.d/x.conf": k8smetaPlugin}, want: configuration{configuredBy: "/etc/falco/config.d/x.conf"}},
	"missing entry":                  {files: map[string]string{mainFile: "config_files: [/none]\n"}},
	"file entry":                     {files: map[string]string{mainFile: "config_files: [/x.yaml]\n", "/x.yaml": k8smetaPlugin}, want: configuration{configuredBy: "/x.yaml"}},
	"entry with a variable":          {files: map[string]string{mainFile: "config_files: [\"${X}/a\"]\n"}, wantErr: "variable"},
	"config_files in a included one": {files: map[string]string{mainFile: includes, dropIn: includes}, wantErr: "refuses"},
	"itself":                         {files: map[string]string{mainFile: "config_files: [/etc/falco/falco.yaml]\n"}, wantErr: "refuses"},
	"config_files is no list":        {files: map[string]string{mainFile: "config_files: /x.yaml\n", "/x.yaml": jsonPlugin}, refused: "not a list"},
	"a list joined to none":          {files: map[string]string{mainFile: includes + "plugins: text\n", dropIn: jsonPlugin}, wantErr: "which is none"},

	"append keeps what was":      {files: map[string]string{mainFile: includes + k8smetaPlugin, dropIn: jsonPlugin}, want: configuration{configuredBy: mainFile}},
	"append defines":             {files: map[string]string{mainFile: includes, dropIn: "load_plugins: [json]\n"}, want: configuration{loadDefined: true}},
	"0.41 appends":               {version: "0.41.0", files: map[string]string{mainFile: includes + k8smetaPlugin, dropIn: jsonPlugin}, want: configuration{configuredBy: mainFile}},
	"0.40 replaces":              {version: "0.40.0", files: map[string]string{mainFile: includes + k8smetaPlugin, dropIn: jsonPlugin}, refused: "0.41 or later"},
	"0.38 replaces in order":     {version: "0.38.2", files: map[string]string{mainFile: includes, dropIn: jsonPlugin, laterDropIn: k8smetaPlugin}, want: configuration{configuredBy: laterDropIn}, refused: "0.41 or later"},
	"0.38 replaces by the last":  {version: "0.38.2", files: map[string]string{mainFile: includes, dropIn: k8smetaPlugin, laterDropIn: jsonPlugin}, refused: "0.41 or later"},
	"0.37 includes nothing":      {version: "0.37.1", files: map[string]string{mainFile: includes, dropIn: k8smetaPlugin}, refused: "0.41 or later"},
	"0.40 ignores a file option": {version: "0.40.0", files: map[string]string{mainFile: "", "/x.yaml": k8smetaPlugin}, args: []string{"-o", "config_files[]=/x.yaml"}, refused: "0.41 or later"},
	"override": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: override}]\n" + k8smetaPlugin, "/x.yaml": jsonPlugin},
	},
	"append by name": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: append}]\n" + k8smetaPlugin, "/x.yaml": jsonPlugin},
		want:  configuration{configuredBy: mainFile},
	},
	"add-only of what is there": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: add-only}]\n" + jsonPlugin, "/x.yaml": k8smetaPlugin},
	},
	"add-only of what is not": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: add-only}]\n", "/x.yaml": k8smetaPlugin},
		want:  configuration{configuredBy: "/x.yaml"},
	},

	"option adds the plugin":      {args: []string{"-o", "plugins[]={name: k8smeta, library_path: x.so}"}, want: configuration{loadDefined: true, configuredBy: byOption}},
	"option names a plugin":       {args: []string{"-o", "plugins[0].name=k8smeta"}, want: configuration{loadDefined: true, configuredBy: byOption}},
	"option sets something":       {args: []string{"--option=plugins[0].init_config=k8smeta"}, want: configuration{loadDefined: true}},
	"option adds to load_plugins": {files: map[string]string{mainFile: jsonPlugin}, args: []string{"-oload_plugins[]=json"}, want: configuration{loadDefined: true}},
	"option loads the plugin":     {args: []string{"-o", "load_plugins[]=k8smeta"}, want: configuration{loadDefined: true, loadNamed: true}},
	"option replaces one of them": {files: map[string]string{mainFile: "load_plugins: [a]\n"}, args: []string{"-o", "load_plugins[0]=json"}, want: configuration{loadDefined: true}},
	"option replaces ours":        {args: []string{"-o", "load_plugins[0]=json"}, want: configuration{loadDefined: true}, refused: "replaces"},
	"option replaces plugins":     {files: map[string]string{mainFile: k8smetaPlugin}, args: []string{"-o", "plugins=x"}, refused: "replaces"},
	"option replaces the list":    {args: []string{"-o", "load_plugins=json"}, want: configuration{loadDefined: true}, refused: "replaces"},
	"option adds a file":          {files: map[string]string{"/x.yaml": k8smetaPlugin}, args: []string{"-o", "config_files[]=/x.yaml"}, want: configuration{loadDefined: true, configuredBy: "/x.yaml"}},
	"option adds an object":       {files: map[string]string{mainFile: jsonPlugin, "/x.yaml": k8smetaPlugin}, args: []string{"-o", "config_files[]={path: /x.yaml, strategy: add-only}"}},
	"option replaces the files":   {args: []string{"-o", "config_files=/x.yaml"}, wantErr: "changes which files"},
	"option is not YAML":          {args: []string{"-o", "plugins[]={a: [}"}, wantErr: "plugins[]"},
}

func TestConfiguration(t *testing.T) {
	for name, tt := range configurationCases {
		t.Run(name, func(t *testing.T) {
			v := parseVersion(tt.version)
			got, err := readConfiguration(tree(t, tt.files), parseCommand(append([]string{"/usr/bin/falco"}, tt.args...)), v)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error is %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			refusal := got.joinable(v)
			if (refusal != nil) != (tt.refused != "") || refusal != nil && !strings.Contains(refusal.Error(), tt.refused) {
				t.Errorf("refusal is %v, want %q", refusal, tt.refused)
			}
			got.refusal = nil
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(configuration{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A ConfigMap's volume is made of links.
func TestConfigurationThroughLinks(t *testing.T) {
	o := tree(t, map[string]string{mainFile: includes, "/etc/falco/config.d/..2026/50.yaml": k8smetaPlugin})
	dir := filepath.Join(o.Root, "/etc/falco/config.d")
	for link, to := range map[string]string{"..data": "..2026", "50.yaml": "..data/50.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readConfiguration(o, parseCommand(nil), falcoVersion{})
	if err != nil || got.configuredBy != dropIn {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzConfiguration joins the fragment to any falco.yaml, as Falco would, and
// requires that nothing is worse than before.
func FuzzConfiguration(f *testing.F) {
	for _, tt := range configurationCases {
		if content, ok := tt.files[mainFile]; ok {
			f.Add(content, strings.Join(tt.args, " "))
		}
	}
	f.Add("a: &a [*a]\nplugins: *a\n", "")
	f.Add("? [x]\n: y\nplugins: [[k8smeta], null, {name: [k8smeta]}]\n", "-o plugins[x]={}")
	f.Add("load_plugins: &x []\nplugins: &y [{name: json}]\n---\nplugins: [{name: k8smeta}]", "")
	o := tree(f, nil)
	f.Fuzz(func(t *testing.T, content, option string) {
		file := o.path(mainFile)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		conf, err := readConfiguration(o, command{configFile: mainFile, options: []string{option}}, falcoVersion{})
		if err != nil || conf.configuredBy != "" || conf.joinable(falcoVersion{}) != nil {
			return
		}
		text, err := fragment(wiring.Task{Host: "h", Port: 1, NodeVariable: "N", TLS: true}, wiring.LibraryFile, "$${N}", conf)
		if err != nil {
			t.Fatal(err)
		}
		var before struct {
			Plugins     []any     `yaml:"plugins"`
			LoadPlugins *[]string `yaml:"load_plugins"`
		}
		if strings.HasPrefix(option, "load_plugins") || yaml.Unmarshal([]byte(content), &before) != nil {
			return
		}
		for _, p := range before.Plugins {
			if m, ok := p.(map[string]any); ok && m["name"] == pluginName {
				t.Errorf("the plugin is there twice, with %q", content)
			}
		}
		var added struct {
			Plugins     []falcoPlugin `yaml:"plugins"`
			LoadPlugins *[]string     `yaml:"load_plugins"`
		}
		if err := yaml.Unmarshal(text, &added); err != nil {
			t.Fatalf("invalid fragment: %v\n%s", err, text)
		}
		if len(added.Plugins) != 1 || added.Plugins[0].Name != pluginName || added.Plugins[0].InitConfig.NodeName.Value != "$${N}" {
			t.Errorf("fragment:\n%s", text)
		}
		// A key without a value is defined too, though it decodes to nothing.
		if before.LoadPlugins == nil && added.LoadPlugins != nil && !strings.Contains(content, "load_plugins") {
			t.Errorf("load_plugins is added to %q", content)
		}
		if before.LoadPlugins != nil && !slices.Contains(*before.LoadPlugins, pluginName) && added.LoadPlugins == nil {
			t.Errorf("load_plugins is missing for %q", content)
		}
	})
}
