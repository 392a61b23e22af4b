package cluster

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Set names binaries that are built together.
type Set string

const (
	// ControlPlaneSet is etcd, kube-apiserver, kube-controller-manager,
	// kube-scheduler and kubectl.
	ControlPlaneSet Set = Set(ControlPlane)
	// NodeSet is ControlPlaneSet and what size Node needs besides.
	NodeSet Set = Set(Node)
	// KwokSet is kwok, which plays the kubelet of any number of fake nodes.
	KwokSet Set = "kwok"
	// CertManagerSet is cert-manager's controllers, for Cluster.CertManager.
	CertManagerSet Set = certManager
)

const (
	module           = "github.com/metawire/metawire"
	kubernetesModule = "k8s.io/kubernetes"
	// buildSpace is what a first build needs: the build cache takes most.
	buildSpace = 8 << 30
)

// binary is a command that is built from Go modules.
type binary struct {
	name string
	dir  string // of the module, in this package's directory
	pkg  string
}

// batch is the binaries that one run of the compiler makes.
type batch []binary

// origin is what sets are built from. Each has a directory of its own, so that
// a newer cert-manager does not build Kubernetes again.
type origin struct {
	name   string   // the directory's, before the version
	module string   // whose version the directory's name has
	files  []string // the sources, in this package's directory, and before them the go.mod that requires module
	takes  string   // how long the first build takes
}

func (s Set) origin() origin {
	if s == CertManagerSet {
		return origin{certManager, certManagerModule, []string{
			certManagerDir + "/go.mod", certManagerDir + "/go.sum", certManagerDir + "/main.go",
		}, "it takes about 2 minutes"}
	}
	return origin{"cluster", kubernetesModule, []string{
		"kubernetes/go.mod", "kubernetes/go.sum",
		"addons/go.mod", "addons/go.sum", "addons/coredns/main.go", "pause/main.go",
	}, "all of Kubernetes takes about 5 minutes"}
}

// batches returns what belongs to a set, in the order in which it is wanted.
func (s Set) batches() ([]batch, error) {
	k8s := func(names ...string) (b batch) {
		for _, n := range names {
			b = append(b, binary{n, "kubernetes", "k8s.io/kubernetes/cmd/" + n})
		}
		return b
	}
	controlPlane := []batch{
		append(batch{{etcd, "kubernetes", "go.etcd.io/etcd/server/v3"}}, k8s(apiServer)...),
		k8s(controllerManager, scheduler, "kubectl"),
	}
	switch s {
	case ControlPlaneSet:
		return controlPlane, nil
	case NodeSet:
		return append(controlPlane, k8s(kubelet, kubeProxy),
			batch{{"coredns", "addons", module + "/tests/cluster/addons/coredns"}},
			batch{{"pause", ".", module + "/tests/cluster/pause"}}), nil
	case KwokSet:
		return []batch{{{"kwok", "addons", "sigs.k8s.io/kwok/cmd/kwok"}}}, nil
	case CertManagerSet:
		return []batch{{{certManager, certManagerDir, module + "/tests/cluster/" + certManagerDir}}}, nil
	}
	return nil, fmt.Errorf("no set of binaries %q", s)
}

// Binaries builds what of a set is not built yet and returns the directory
// that has it: one in the user's cache directory for each version of what it
// is built from. A first build takes minutes, says so to log (nil: says
// nothing) and blocks; another process that builds the same is waited for.
func Binaries(ctx context.Context, log io.Writer, s Set) (string, error) {
	batches, err := s.batches()
	if err != nil {
		return "", err
	}
	b := builder{log: newProgress(log), from: s.origin()}
	if err := b.open(ctx); err != nil {
		return "", err
	}
	for _, batch := range batches {
		if err := b.build(ctx, batch); err != nil {
			return "", err
		}
	}
	return b.out, nil
}

// builder builds binaries into a directory.
type builder struct {
	log     *progress
	from    origin
	src     string // directory of this package
	out     string
	version string // of the origin's module
	ldflags string
	goes    string // version of Go
}

// open finds the sources and the directory of their binaries.
func (b *builder) open(ctx context.Context) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	b.src = filepath.Join(root, "tests", "cluster")
	goVersion, err := output(ctx, filepath.Join(b.src, filepath.Dir(b.from.files[0])), "go", "env", "GOVERSION")
	if err != nil {
		return err
	}
	b.goes = strings.TrimSpace(goVersion)
	sum := sha256.New()
	requires := regexp.MustCompile(`(?m)\s` + regexp.QuoteMeta(b.from.module) + ` (v(\d+)\.(\d+)\.\S+)`)
	for i, f := range b.from.files {
		content, err := os.ReadFile(filepath.Join(b.src, f))
		if err != nil {
			return err
		}
		sum.Write(content)
		if i > 0 {
			continue
		}
		version := requires.FindStringSubmatch(string(content))
		if version == nil {
			return fmt.Errorf("%s requires no %s", f, b.from.module)
		}
		b.version, b.ldflags = version[1], "-s -w"
		if b.from.module == kubernetesModule {
			b.ldflags += versionFlags(version[1], version[2], version[3])
		}
	}
	fmt.Fprint(sum, b.goes, b.ldflags, runtime.GOOS, runtime.GOARCH)
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	b.out = filepath.Join(cache, "metawire", fmt.Sprintf("%s-%s-%x", b.from.name, b.version, sum.Sum(nil)[:8]))
	return os.MkdirAll(b.out, 0o755)
}

// versionFlags stamps the version of Kubernetes, which a build from the module
// does not know: clients compare it.
func versionFlags(version, major, minor string) (flags string) {
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range [][2]string{
			{"gitVersion", version}, {"gitMajor", major}, {"gitMinor", minor},
			{"gitTreeState", "clean"}, {"gitCommit", "0000000"}, {"buildDate", "1970-01-01T00:00:00Z"},
		} {
			flags += fmt.Sprintf(" -X %s.%s=%s", pkg, v[0], v[1])
		}
	}
	return flags
}

// build builds the binaries of a batch that are not there.
func (b *builder) build(ctx context.Context, all batch) error {
	if len(b.missing(all)) == 0 {
		return nil
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	lockFile, err := waitLock(ctx, filepath.Join(b.out, "."+all[0].name+".lock"), func() {
		say := "waiting for another process that builds " + all[0].name
		b.log.step("%s", say)
		go b.log.while(waiting, func() string { return say })
	})
	stop()
	if err != nil {
		return err
	}
	defer lockFile.Close()
	missing := b.missing(all)
	if len(missing) == 0 {
		return nil
	}
	if err := checkSpace(ctx, b.out); err != nil {
		return err
	}
	var names []string
	for _, bin := range missing {
		names = append(names, bin.name)
	}
	what := strings.Join(names, ", ")
	b.log.step("building %s with %s; the first time, %s on 2 free cores", what, b.goes, b.from.takes)
	start := time.Now()
	if err := b.compile(ctx, missing, what); err != nil {
		return fmt.Errorf("build %s: %w", what, err)
	}
	b.log.step("built %s in %.0f s", what, time.Since(start).Seconds())
	return nil
}

func (b *builder) missing(all batch) (missing batch) {
	for _, bin := range all {
		if _, err := os.Stat(filepath.Join(b.out, bin.name)); err != nil {
			missing = append(missing, bin)
		}
	}
	return missing
}

// compile builds into a temporary directory and renames, so that a binary that
// is there is whole.
func (b *builder) compile(ctx context.Context, all batch, what string) error {
	tmp, err := os.MkdirTemp(b.out, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	args := []string{"build", "-C", filepath.Join(b.src, all[0].dir), "-v", "-trimpath", "-ldflags", b.ldflags, "-o", tmp + "/"}
	for _, bin := range all {
		args = append(args, bin.pkg)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var compiled atomic.Int64
	saying, stop := context.WithCancel(ctx)
	defer stop()
	go b.log.while(saying, func() string {
		return fmt.Sprintf("building %s: %d packages compiled", what, compiled.Load())
	})
	var said []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		// -v writes the path of each package; whatever else there is, is of interest.
		if line := lines.Text(); strings.ContainsAny(line, " #") {
			said = append(said, line)
		} else {
			compiled.Add(1)
		}
	}
	if err := cmd.Wait(); err != nil {
		return errors.Join(err, errors.New(strings.Join(said, "\n")))
	}
	for _, bin := range all {
		made := regexp.MustCompile(`/v\d+$`).ReplaceAllString(bin.pkg, "")
		if err := os.Rename(filepath.Join(tmp, path.Base(made)), filepath.Join(b.out, bin.name)); err != nil {
			return err
		}
	}
	return nil
}

// checkSpace refuses a build that would end with a full disk.
func checkSpace(ctx context.Context, out string) error {
	cache, err := output(ctx, "", "go", "env", "GOCACHE")
	if err != nil {
		return err
	}
	for _, dir := range []string{out, filepath.Dir(strings.TrimSpace(cache))} {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(dir, &fs); err != nil {
			continue // not made yet
		}
		if free := fs.Bavail * uint64(fs.Bsize); free < buildSpace {
			return fmt.Errorf("no space in %s: %d GiB free, the first build needs %d GiB (GOCACHE and XDG_CACHE_HOME move it)",
				dir, free>>30, buildSpace>>30)
		}
	}
	return nil
}

// moduleRoot finds the sources of this package: tests run below their root.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module "+module+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("the cluster's binaries are built from the sources of %s, and %s is not below them", module, start)
		}
	}
}

// output runs a command in dir and returns what it writes.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, exit.Stderr)
	}
	return string(out), err
}
