package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"sigs.k8s.io/yaml"

	"github.com/metawire/metawire/collector/inventory/receiver"
	ours "github.com/metawire/metawire/migrate/release"
)

// pasted bounds a command of the README; the longest builds the programs.
const pasted = 5 * time.Minute

// instruction is what a command of the README is held to.
type instruction struct {
	elsewhere string // why it is not run here
	says      string
	endless   bool // it is ended when it has said that
	then      func(*testing.T, *world)
}

// instructions of the README that are not just run to their end. Every other
// command must end with 0.
func instructions() map[string]instruction {
	falco := daemon{name: "falco"}
	return map[string]instruction{
		"make demo":      {elsewhere: "it boots a cluster of its own"},
		"make demo-down": {elsewhere: "it ends the cluster of make demo"},
		"make test":      {elsewhere: "this is a part of it"},
		"make bench":     {elsewhere: "it measures for minutes, on a machine that is else idle"},

		"helm install metawire oci://ghcr.io/metawire/charts/metawire -n metawire --create-namespace --wait": {
			elsewhere: "it needs the internet; tests/release pulls the chart from the registry that it is pushed to",
		},
		"kubectl apply --server-side -f https://github.com/metawire/metawire/releases/latest/download/metawire.yaml": {
			elsewhere: "it needs the internet; tests/release applies the file to an API server",
		},
		"bin/metawire migrate":            {elsewhere: "it asks; TestMigrate answers"},
		"bin/metawire migrate --finish":   {elsewhere: "it needs a migrated release: TestMigrate"},
		"bin/metawire migrate --rollback": {elsewhere: "it needs a migrated release: TestMigrate"},

		"helm test metawire -n metawire": {says: "Phase:          Succeeded"},
		"kubectl -n falco rollout restart daemonset/falco": {then: func(t *testing.T, w *world) {
			eventually(t, started, func(ctx context.Context) error {
				pods, err := w.pods(ctx, falcos, falco.selector())
				if err == nil && (len(pods) != 1 || pods[0].Annotations["kubectl.kubernetes.io/restartedAt"] == "") {
					err = errors.New("the old pod is still there")
				}
				return err
			})
			w.falcoPod(t, falco)
		}},
		"bin/metawire explain pod falco/falco-x2x7z":                                               {says: "wired with a ticket"},
		`bin/metawire watch --node "$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')"`: {says: "metawire-collector", endless: true},
		"bin/metawire inventory types":                                                             {says: "\nsecrets "},
		"bin/metawire inventory trigger":                                                           {says: "complete: "},
		"bin/metawire migrate --dry-run":                                                           {says: "There is nothing to migrate."},
	}
}

// testReadme does what the README says, in its order, from nothing.
func testReadme(t *testing.T, w *world) {
	w.loadReleased(t)
	w.start(t, daemon{name: "falco", config: stock}) // which nobody has wired yet
	t.Cleanup(func() {
		if err := w.helm.Uninstall(started); err != nil {
			t.Error(err)
		}
	})
	shell := w.newReader(t)
	known := instructions()
	for _, command := range readmeCommands(t) {
		i := known[command]
		delete(known, command)
		if i.elsewhere != "" {
			continue
		}
		began := time.Now()
		out, code := shell.paste(t, w, command, i)
		t.Logf("%5.1f s  %s", time.Since(began).Seconds(), command)
		if code != 0 || !strings.Contains(out, i.says) {
			t.Errorf("%s\nended with %d, want 0, and to say %q:\n%s", command, code, i.says, out)
		}
		if i.then != nil {
			i.then(t, w)
		}
	}
	for command := range known {
		t.Errorf("the README has no command %s", command)
	}
	w.removeAll(t)
}

// readmeCommands are the lines of the README's shell blocks, without comments.
func readmeCommands(t *testing.T) (commands []string) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(readme, -1) {
		lines := strings.ReplaceAll(string(block[1]), "\\\n", "")
		for line := range strings.Lines(lines) {
			line = regexp.MustCompile(`(^|\s+)# .*`).ReplaceAllString(strings.TrimSpace(line), "")
			if line != "" {
				commands = append(commands, regexp.MustCompile(` {2,}`).ReplaceAllString(line, " "))
			}
		}
	}
	if len(commands) == 0 {
		t.Fatal("the README has no commands")
	}
	return commands
}

// loadReleased gives the node the image by the name that the chart pulls.
func (w *world) loadReleased(t *testing.T) {
	t.Helper()
	image, err := tarball.ImageFromPath(imageArchive(), nil)
	if err != nil {
		t.Fatal(err)
	}
	chart, err := ours.Chart()
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(w.image.Repository + ":" + chart.Metadata.AppVersion)
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "released.tar")
	if err := tarball.WriteToFile(archive, tag, image); err != nil {
		t.Fatal(err)
	}
	if err := w.cluster.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// reader is somebody with a shell in the project's directory.
type reader struct {
	env  []string
	mine *strings.Replacer // what readers replace by their own
}

// newReader has kubectl and helm, which installs with the one value that this
// cluster needs: a registry of plugins that it reaches.
func (w *world) newReader(t *testing.T) reader {
	t.Helper()
	helm := os.Getenv("METAWIRE_HELM")
	if helm == "" {
		var err error
		if helm, err = exec.LookPath("helm"); err != nil {
			t.Fatal("no helm: make e2e builds it and names it in METAWIRE_HELM")
		}
	}
	dir := t.TempDir()
	values, err := yaml.Marshal(map[string]any{"webhook": map[string]any{"plugin": map[string]any{"reference": w.registry.Reference, "plainHTTP": true}}})
	if err != nil {
		t.Fatal(err)
	}
	manifest := daemon{name: "falco"}.object()
	manifest.APIVersion, manifest.Kind = "apps/v1", "DaemonSet"
	daemonSet, err := yaml.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	wrapper := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != install ] || set -- \"$@\" -f %[2]s/values.yaml\nexec %[1]s \"$@\"\n", helm, dir)
	for file, content := range map[string][]byte{"values.yaml": values, "daemonset.yaml": daemonSet, "helm": []byte(wrapper)} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(w.cluster.Bin(), "kubectl"), filepath.Join(dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	return reader{
		env: append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig(), "PATH="+dir+":"+os.Getenv("PATH"),
			"HELM_CACHE_HOME="+dir+"/cache", "HELM_CONFIG_HOME="+dir+"/config", "HELM_DATA_HOME="+dir+"/data", "KUBECACHEDIR="+dir+"/kube"),
		mine: strings.NewReplacer(
			"daemonset.yaml", dir+"/daemonset.yaml",
			"> out.json", "> "+dir+"/out.json",
			"https://inventory.example/ingest", w.serve(t, receiver.New(receiver.Options{}))+"/ingest --set inventory.insecure=true",
		),
	}
}

// paste runs a command to its end, or until it has said what it is there for.
func (r reader) paste(t *testing.T, w *world, command string, i instruction) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pasted)
	defer cancel()
	command = r.mine.Replace(command)
	if strings.Contains(command, "falco-x2x7z") {
		command = strings.ReplaceAll(command, "falco-x2x7z", w.falcoPod(t, daemon{name: "falco"}).Name)
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "../..", r.env, soon
	// The shell and what it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out := &said{until: i.says, heard: cancel}
	if !i.endless {
		out.heard = func() {}
	}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); i.endless && out.enough() {
		return out.String(), 0
	} else if errors.As(err, &exit) {
		return out.String(), exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return out.String(), 0
}

// said is what a command writes. It tells when that has the words.
type said struct {
	text  strings.Builder
	until string
	heard func()
}

func (s *said) String() string { return s.text.String() }

func (s *said) enough() bool { return strings.Contains(s.text.String(), s.until) }

func (s *said) Write(p []byte) (int, error) {
	n, err := s.text.Write(p)
	if s.enough() {
		s.heard()
	}
	return n, err
}
