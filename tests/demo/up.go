package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metawire/metawire/internal/subscriber"
)

// patience bounds each wait for pods; images may have to be pulled.
const patience = 3 * time.Minute

// site is a cluster that is ready for the demo.
type site struct {
	kubeconfig string // empty: what KUBECONFIG says
	config     *rest.Config
	api        kubernetes.Interface
	node       string // whose metadata is shown
}

// open makes clients and picks the node: the first that is ready and takes
// pods.
func open(ctx context.Context, kubeconfig string) (*site, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if kubeconfig != "" {
		rules.ExplicitPath = kubeconfig
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.QPS = -1 // the server's own limits are enough
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	s := &site{kubeconfig: kubeconfig, config: config, api: api}
	nodes, err := api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes at %s: %w", config.Host, err)
	}
	for _, n := range nodes.Items {
		if ready(n) && !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			s.node = n.Name
			break
		}
	}
	return s, nil
}

// up plays the demo.
func (d *demo) up(ctx context.Context, p place) (err error) {
	began := time.Now()
	d.screen.title("Metawire, from nothing to a node's metadata, live")
	s, err := p.prepare(ctx)
	if err != nil {
		return err
	}
	playing, stop := context.WithCancel(ctx)
	defer d.running.Wait()
	defer stop()
	target, err := p.install(playing, s)
	if err != nil {
		return err
	}
	w := workload{s.api, s.node}
	if err := d.screen.step(fmt.Sprintf("a sample workload: Deployment and Service %s in namespace %s, %d pods", web, shop, replicas), func() error {
		if err := w.create(playing); err != nil {
			return err
		}
		return w.rolledOut(playing)
	}); err != nil {
		return errors.Join(err, d.explain(ctx, s, shop))
	}
	live := time.Since(began)
	if err := d.show(playing, s, w, target); err != nil {
		return err
	}
	if err := p.falco(playing, s); err != nil {
		return err
	}
	if err := p.inventory(playing, s); err != nil {
		return err
	}
	d.screen.title(fmt.Sprintf("From the start to a node's metadata it took %.1f s.", live.Seconds()))
	for _, line := range p.next(s, target) {
		d.screen.line(line)
	}
	return nil
}

// show runs metawire watch, changes the workload meanwhile, and reports how
// soon the changes arrived at a second subscriber.
func (d *demo) show(ctx context.Context, s *site, w workload, target subscriber.Target) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := newRecorder(s.api, s.node)
	if err := r.watch(ctx); err != nil {
		return err
	}
	recorded := make(chan error, 1)
	go func() {
		recorded <- subscriber.Run(ctx, subscriber.Options{
			Target: target, Node: s.node, Kinds: contractKinds(), Patience: 10 * time.Second,
		}, r)
	}()
	d.screen.title("$ bin/metawire " + strings.Join(s.watch(target), " "))
	d.screen.line("and meanwhile: a label, two more pods, a rollout")
	d.screen.line("")
	showing, end := context.WithCancel(ctx)
	defer end()
	shown := make(chan error, 1)
	go func() { shown <- watchCommand(showing, s.watch(target)) }()
	played := make(chan error, 1)
	go func() { played <- d.play(showing, w, r) }()
	var err error
	select {
	case err = <-played:
		end()
		err = errors.Join(err, <-shown)
	case err = <-shown: // too early
		end()
		if stopped := <-played; !errors.Is(stopped, context.Canceled) {
			err = errors.Join(err, stopped)
		}
	}
	stop()
	if err = errors.Join(err, <-recorded); err != nil {
		return err
	}
	d.screen.title("When each change arrived")
	for _, line := range r.report() {
		d.screen.line(line)
	}
	return nil
}

// play changes the workload, and waits for each change to arrive.
func (d *demo) play(ctx context.Context, w workload, r *recorder) error {
	for _, c := range w.changes() {
		if err := wait(ctx, d.pause); err != nil {
			return err
		}
		r.began(c.command)
		if err := w.apply(ctx, c); err != nil {
			return err
		}
		if err := r.settled(ctx); err != nil {
			return err
		}
	}
	return wait(ctx, d.pause)
}

// wait blocks for that long, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
