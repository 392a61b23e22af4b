package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metawire/metawire/internal/subscriber"
	"github.com/metawire/metawire/tests/cluster"
	"github.com/metawire/metawire/tests/e2e/release"
)

// archive is where make image writes the image.
var archive = filepath.Join("bin", "image", "metawire.tar")

// task is something to do besides others.
type task struct {
	name string
	do   func(context.Context) error
}

// together does tasks at the same time, and says when each is done.
func (d *demo) together(ctx context.Context, tasks ...task) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		g.Go(func() error {
			began := time.Now()
			if err := t.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			d.screen.done(t.name+" ", time.Since(began))
			return nil
		})
	}
	return g.Wait()
}

// programs builds commands of the project, to bin.
func (d *demo) programs(names ...string) task {
	return task{"programs in bin", func(ctx context.Context) error {
		args := []string{"build", "-o", "bin" + string(filepath.Separator)}
		for _, n := range names {
			args = append(args, "./cmd/"+n)
		}
		return d.screen.command(ctx, "go", args...)
	}}
}

// cluster starts our own cluster or uses the one that runs.
func (d *demo) cluster(size cluster.Size) task {
	return task{"cluster of size " + string(size), func(ctx context.Context) error {
		return d.clusterCommand(ctx, "up", "-size", string(size))
	}}
}

// clusterCommand runs the command that is behind make cluster.
func (d *demo) clusterCommand(ctx context.Context, command string, args ...string) error {
	return d.screen.command(ctx, "go", append([]string{"run", "./tests/cluster/cmd/cluster", command, "-dir", d.state}, args...)...)
}

// nextLocal says what to try with our own cluster.
func (d *demo) nextLocal(s *site, more ...string) []string {
	kubectl := ""
	if _, err := exec.LookPath("kubectl"); err != nil {
		if bin, err := kubectlDir(d.state); err == nil {
			kubectl = " PATH=$PATH:" + bin
		}
	}
	return append(append([]string{"It goes on running. Try:", "", "  export KUBECONFIG=" + s.kubeconfig + kubectl}, more...),
		"  make demo-down", "")
}

// downLocal ends our own cluster, of either size.
func (d *demo) downLocal(ctx context.Context) error {
	return errors.Join(d.clusterCommand(ctx, "down"), os.RemoveAll(processDir))
}

// kubectlDir returns where our own cluster's kubectl is.
func kubectlDir(state string) (string, error) {
	content, err := os.ReadFile(filepath.Join(state, "state.json"))
	if err != nil {
		return "", err
	}
	var kept struct{ Bin string }
	err = json.Unmarshal(content, &kept)
	return kept.Bin, err
}

// node is the place where pods run: our own cluster of size node.
type node struct{ *demo }

func (n *node) prepare(ctx context.Context) (*site, error) {
	n.screen.line(n.screen.paint(bold, "• ") + "a Kubernetes with one node, the image, the command line (the first time Kubernetes is compiled: minutes)")
	// First: there can be one apt-get at a time, and the image may need one too.
	if err := n.clusterCommand(ctx, "packages"); err != nil {
		return nil, err
	}
	if err := n.together(ctx, n.cluster(cluster.Node), n.programs("metawire"), n.buildImage(), n.buildFalco()); err != nil {
		return nil, err
	}
	kubeconfig, err := n.kubeconfig()
	if err != nil {
		return nil, err
	}
	if err := n.together(ctx, task{"images in the node's containerd", func(ctx context.Context) error {
		return errors.Join(cluster.ImportInto(ctx, filepath.Dir(kubeconfig), archive), cluster.ImportInto(ctx, filepath.Dir(kubeconfig), falcoArchive))
	}}); err != nil {
		return nil, err
	}
	return open(ctx, kubeconfig)
}

// buildImage builds the image unless it is newer than all that it is built of.
func (n *node) buildImage() task {
	return task{"image", func(ctx context.Context) error {
		if current() {
			return nil
		}
		return n.screen.command(ctx, "go", "run", "./tests/image", "-o", archive)
	}}
}

// current tells whether the archive holds the image of the present sources.
func current() bool {
	built, err := os.Stat(archive)
	if err != nil {
		return false
	}
	if image, err := release.ImageIn(archive); err != nil || image.Tag != "dev" {
		return false
	}
	errChanged := errors.New("changed")
	for _, source := range []string{"Dockerfile", "go.mod", "go.sum", "charts", "cmd", "collector", "internal", "webhook", filepath.Join("tests", "image")} {
		err := filepath.WalkDir(source, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.ModTime().After(built.ModTime()) {
				err = errChanged
			}
			return err
		})
		if err != nil {
			return false
		}
	}
	return true
}

func (n *node) install(ctx context.Context, s *site) (subscriber.Target, error) {
	image, err := release.ImageIn(archive)
	if err != nil {
		return subscriber.Target{}, err
	}
	if err := n.helm(ctx, s, image, "Never"); err != nil {
		return subscriber.Target{}, err
	}
	return s.reach(ctx)
}

func (n *node) next(s *site, target subscriber.Target) []string {
	return n.nextLocal(s,
		"  bin/metawire "+strings.Join(s.watch(target), " "),
		"  bin/metawire check",
		"  kubectl -n "+shop+" rollout restart deployment/"+web,
		"  kubectl -n "+namespace+" delete pod -l app.kubernetes.io/component=collector   # the stream comes back",
	)
}

func (n *node) down(ctx context.Context) error { return n.downLocal(ctx) }

// controlPlane is the place without root: our own cluster without nodes, and
// the collector as a process.
type controlPlane struct{ *demo }

func (c *controlPlane) prepare(ctx context.Context) (*site, error) {
	c.screen.line(c.screen.paint(bold, "• ") + "a Kubernetes control plane, and the programs (the first time Kubernetes is compiled: minutes)")
	if err := c.together(ctx, c.cluster(cluster.ControlPlane), c.programs("metawire", "collector")); err != nil {
		return nil, err
	}
	kubeconfig, err := c.kubeconfig()
	if err != nil {
		return nil, err
	}
	return open(ctx, kubeconfig)
}

// install starts the collector as a process, and a stand-in for the kubelet.
func (c *controlPlane) install(ctx context.Context, s *site) (subscriber.Target, error) {
	s.node = madeUpNode
	kubelet := standIn{s.api}
	if err := c.screen.step("a made-up node, "+s.node+", whose kubelet this program plays", func() error {
		return kubelet.start(ctx)
	}); err != nil {
		return subscriber.Target{}, err
	}
	p, err := newProcess(s.kubeconfig)
	if err != nil {
		return subscriber.Target{}, err
	}
	return subscriber.Target{Addr: p.stream}, c.screen.step("$ "+p.command(), func() error { return p.start(ctx, &c.running) })
}

// falco shows nothing: no pod runs here.
func (c *controlPlane) falco(context.Context, *site) error { return nil }

func (c *controlPlane) next(s *site, _ subscriber.Target) []string {
	return c.nextLocal(s, "  make demo-down demo   # as root on Linux: with pods that run, from helm install")
}

func (c *controlPlane) down(ctx context.Context) error { return c.downLocal(ctx) }
