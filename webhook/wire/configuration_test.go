package wire

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
)

type configurationCase struct {
	files   map[string]string
	args    []string
	change  func(*wiring.Task)
	want    configuration
	wantErr string
}

// configurationTask is for files that are mounted one by one, beside a volume
// at /etc/falco where the main file is not the image's.
func configurationTask(files map[string]string, args []string) wiring.Task {
	task := wiring.Task{
		Command: append([]string{"/usr/bin/falco"}, args...), Mounts: slices.Sorted(maps.Keys(files)),
		Host: "h", Port: 1, NodeVariable: "N", TLS: true,
	}
	if _, ok := files[mainFile]; ok {
		task.Mounts = append(task.Mounts, "/etc/falco")
	}
	return task
}

var configurationCases = map[string]configurationCase{
	"no file is the stock one":         {want: configuration{loadDefined: true}},
	"the stock file includes":          {files: map[string]string{dropIn: k8smetaPlugin}, want: configuration{loadDefined: true, configuredBy: dropIn}},
	"a file beside the stock one":      {files: map[string]string{dropIn: k8smetaPlugin + "load_plugins: [k8smeta]"}, want: configuration{loadDefined: true, loadNamed: true, configuredBy: dropIn, loaded: true}},
	"the stock directory":              {files: map[string]string{"/x.yaml": includes + jsonPlugin}, args: []string{"-c/x.yaml"}, want: configuration{loadDefined: true}},
	"the stock file is mounted over":   {files: map[string]string{"/x.yaml": includes, stockFile: "{}"}, args: []string{"-c/x.yaml"}},
	"empty file":                       {files: map[string]string{mainFile: ""}},
	"no load_plugins":                  {files: map[string]string{mainFile: jsonPlugin}},
	"load_plugins":                     {files: map[string]string{mainFile: "load_plugins: []\n"}, want: configuration{loadDefined: true}},
	"load_plugins without a value":     {files: map[string]string{mainFile: "load_plugins:\n"}, want: configuration{loadDefined: true}},
	"load_plugins has the plugin":      {files: map[string]string{mainFile: "load_plugins: [k8smeta]\n"}, want: configuration{loadDefined: true, loadNamed: true}},
	"configured":                       {files: map[string]string{mainFile: k8smetaPlugin}, want: configuration{configuredBy: mainFile, loaded: true}},
	"configured, not loaded":           {files: map[string]string{mainFile: k8smetaPlugin + "load_plugins: []\n"}, want: configuration{configuredBy: mainFile, loadDefined: true}},
	"configured under an alias":        {files: map[string]string{mainFile: "x: &p {name: k8smeta}\nplugins: [*p]\n"}, want: configuration{configuredBy: mainFile, loaded: true}},
	"known by its library":             {files: map[string]string{mainFile: "plugins: [{name: k8s, library_path: /x/libk8smeta.so}]\n"}, want: configuration{configuredBy: mainFile, loaded: true}},
	"a name that is a variable":        {files: map[string]string{mainFile: "plugins: [{name: \"${P}\"}]\n"}, wantErr: "name of a plugin depends on a variable"},
	"a library that is a variable":     {files: map[string]string{mainFile: "plugins: [{name: x, library_path: \"${P}\"}]\n"}, wantErr: "library_path of a plugin depends on a variable"},
	"loaded by a variable":             {files: map[string]string{mainFile: k8smetaPlugin + "load_plugins: [\"${P}\"]\n"}, wantErr: "is loaded depends on a variable"},
	"known by any library of it":       {files: map[string]string{mainFile: "plugins: [{name: k8s, library_path: /x/k8smeta-0.4.so}]\nload_plugins: [k8s]\n"}, want: configuration{configuredBy: mainFile, loadDefined: true, loaded: true}},
	"known by what it is told":         {files: map[string]string{mainFile: "plugins: [{name: k8s, init_config: {collectorHostname: x}}]\n"}, want: configuration{configuredBy: mainFile, loaded: true}},
	"known by what it is told in text": {files: map[string]string{mainFile: "plugins: [{name: k8s, init_config: '{\"collectorHostname\": \"x\"}'}]\n"}, want: configuration{configuredBy: mainFile, loaded: true}},
	"variables are left alone":         {files: map[string]string{mainFile: "http_output: {url: \"${URL}\"}\n" + jsonPlugin}},
	"custom file":                      {files: map[string]string{mainFile: k8smetaPlugin, "/x.yaml": jsonPlugin}, args: []string{"-c", "/x.yaml"}},
	"custom file in the image":         {args: []string{"-c", "/x.yaml"}, wantErr: "/x.yaml is not on a volume"},
	"plugins is no list":               {files: map[string]string{mainFile: "plugins: text\n"}, wantErr: "not a list"},
	"not YAML":                         {files: map[string]string{mainFile: "a: ["}, wantErr: "/etc/falco/falco.yaml"},
	"not a mapping":                    {files: map[string]string{mainFile: "[]"}, wantErr: "not a mapping"},
	"a text":                           {files: map[string]string{mainFile: "text"}, wantErr: "not a mapping"},
	"config_files absent":              {files: map[string]string{mainFile: jsonPlugin, dropIn: k8smetaPlugin}},
	"directory":                        {files: map[string]string{mainFile: includes, dropIn: k8smetaPlugin}, want: configuration{configuredBy: dropIn, loaded: true}},
	"directory, no directory in it":    {files: map[string]string{mainFile: includes, "/etc/falco/config.d/x/50.yaml": k8smetaPlugin}},
	"directory, any extension":         {files: map[string]string{mainFile: includes, "/etc/falco/config.d/x.conf": k8smetaPlugin}, want: configuration{configuredBy: "/etc/falco/config.d/x.conf", loaded: true}},
	"missing entry":                    {files: map[string]string{mainFile: "config_files: [/etc/falco/none]\n"}},
	"an entry of the image's":          {files: map[string]string{mainFile: "config_files: [/none]\n"}, wantErr: "what Falco's image has there is not known"},
	"an entry that is hidden":          {files: map[string]string{mainFile: "config_files: [/run/x.yaml]\n"}, change: hiding("/run"), wantErr: "Falco's container alone mounts"},
	"a file of a directory is hidden":  {files: map[string]string{mainFile: includes}, change: hiding("/etc/falco/config.d/x"), wantErr: "Falco's container alone mounts"},
	"the main file is hidden":          {change: hiding(mainFile), wantErr: "Falco's container alone mounts"},
	"the main file is not there":       {change: func(t *wiring.Task) { t.Mounts = []string{"/etc/falco"} }, wantErr: "no such file"},
	"relative paths": {
		files: map[string]string{"/work/x.yaml": "config_files: [d/y.yaml]\n", "/work/d/y.yaml": k8smetaPlugin}, args: []string{"-c", "x.yaml"},
		change: func(t *wiring.Task) { t.WorkingDir = "/work" }, want: configuration{configuredBy: "/work/d/y.yaml", loaded: true},
	},
	"the fragment itself":            {files: map[string]string{mainFile: ""}, args: []string{"-o", "config_files[]=" + wiring.FragmentFile}, wantErr: "count twice"},
	"a text is passed over":          {files: map[string]string{mainFile: includes + jsonPlugin, dropIn: "text\n"}},
	"an included list":               {files: map[string]string{mainFile: includes, dropIn: "[x]\n"}, wantErr: "not a mapping"},
	"an empty list defines nothing":  {files: map[string]string{mainFile: includes + jsonPlugin, dropIn: "load_plugins: []\n"}},
	"config_files without a value":   {files: map[string]string{mainFile: "config_files:\n"}, wantErr: "not a list"},
	"config_files that is a map":     {files: map[string]string{mainFile: "config_files: {}\n"}, wantErr: "not a list"},
	"a strategy with a variable":     {files: map[string]string{mainFile: "config_files: [{path: /x, strategy: \"${X}\"}]\n"}, wantErr: "variable"},
	"lists that are one":             {files: map[string]string{mainFile: "load_plugins: &x []\nplugins: *x\n"}, wantErr: "anchor"},
	"file entry":                     {files: map[string]string{mainFile: "config_files: [/x.yaml]\n", "/x.yaml": k8smetaPlugin}, want: configuration{configuredBy: "/x.yaml", loaded: true}},
	"entry with a variable":          {files: map[string]string{mainFile: "config_files: [\"${X}/a\"]\n"}, wantErr: "variable"},
	"config_files in a included one": {files: map[string]string{mainFile: includes, dropIn: includes}, wantErr: "refuses"},
	"itself":                         {files: map[string]string{mainFile: "config_files: [/etc/falco/falco.yaml]\n"}, wantErr: "refuses"},
	"config_files is no list":        {files: map[string]string{mainFile: "config_files: /x.yaml\n", "/x.yaml": jsonPlugin}, wantErr: "not a list"},
	"a list joined to none":          {files: map[string]string{mainFile: includes + "plugins: text\n", dropIn: jsonPlugin}, wantErr: "which is not a list"},

	"append keeps what was": {files: map[string]string{mainFile: includes + k8smetaPlugin, dropIn: jsonPlugin}, want: configuration{configuredBy: mainFile, loaded: true}},
	"append defines":        {files: map[string]string{mainFile: includes, dropIn: "load_plugins: [json]\n"}, want: configuration{loadDefined: true}},
	"override": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: override}]\n" + k8smetaPlugin, "/x.yaml": jsonPlugin},
	},
	"append by name": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: append}]\n" + k8smetaPlugin, "/x.yaml": jsonPlugin},
		want:  configuration{configuredBy: mainFile, loaded: true},
	},
	"add-only of what is there": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: add-only}]\n" + jsonPlugin, "/x.yaml": k8smetaPlugin},
	},
	"add-only of what is not": {
		files: map[string]string{mainFile: "config_files: [{path: /x.yaml, strategy: add-only}]\n", "/x.yaml": k8smetaPlugin},
		want:  configuration{configuredBy: "/x.yaml", loaded: true},
	},

	"option adds the plugin":       {args: []string{"-o", "plugins[]={name: k8smeta, library_path: x.so}"}, want: configuration{loadDefined: true, configuredBy: byOption}},
	"option names a plugin":        {args: []string{"-o", "plugins[0].name=k8smeta"}, wantErr: "other than by one more"},
	"option adds to load_plugins":  {files: map[string]string{mainFile: jsonPlugin}, args: []string{"-oload_plugins[]=json"}, want: configuration{loadDefined: true}},
	"option loads the plugin":      {args: []string{"-o", "load_plugins[]=k8smeta"}, want: configuration{loadDefined: true, loadNamed: true}},
	"option replaces one of them":  {files: map[string]string{mainFile: "load_plugins: [a]\n"}, args: []string{"-o", "load_plugins[0]=json"}, wantErr: "other than by one more"},
	"option adds to no list":       {files: map[string]string{mainFile: "load_plugins:\n"}, args: []string{"-o", "load_plugins[]=json"}, wantErr: "not a list"},
	"configured by option, loaded": {args: []string{"-o", "plugins[]={name: k8smeta}", "-o", "load_plugins[]=k8smeta"}, want: configuration{loadDefined: true, loadNamed: true, loaded: true, configuredBy: byOption}},
	"option replaces plugins":      {files: map[string]string{mainFile: k8smetaPlugin}, args: []string{"-o", "plugins=x"}, wantErr: "other than by one more"},
	"option replaces the list":     {args: []string{"-o", "load_plugins=json"}, wantErr: "other than by one more"},
	"option adds a file":           {files: map[string]string{"/x.yaml": k8smetaPlugin}, args: []string{"-o", "config_files[]=/x.yaml"}, want: configuration{loadDefined: true, configuredBy: "/x.yaml"}},
	"option adds an object":        {files: map[string]string{mainFile: jsonPlugin, "/x.yaml": k8smetaPlugin}, args: []string{"-o", "config_files[]={path: /x.yaml, strategy: add-only}"}},
	"option replaces the files":    {args: []string{"-o", "config_files=/x.yaml"}, wantErr: "changes which files"},
	"option is not YAML":           {args: []string{"-o", "plugins[]={a: [}"}, wantErr: "plugins[]"},
}

// hiding mounts where the init container has nothing.
func hiding(path string) func(*wiring.Task) {
	return func(t *wiring.Task) { t.Hidden = append(t.Hidden, path) }
}

func TestConfiguration(t *testing.T) {
	for name, tt := range configurationCases {
		t.Run(name, func(t *testing.T) {
			task := configurationTask(tt.files, tt.args)
			if tt.change != nil {
				tt.change(&task)
			}
			got, err := readConfiguration(tree(t, tt.files), task)
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error is %v, want %q", err, tt.wantErr)
			}
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
	got, err := readConfiguration(o, wiring.Task{Mounts: []string{"/etc/falco"}})
	if err != nil || got.configuredBy != dropIn {
		t.Errorf("got %+v, %v", got, err)
	}
}
