package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/tests/cluster"
)

// stage is a control plane that holds a world.
type stage struct {
	world
	cluster *cluster.Cluster
	dir     string // of its own, for files
	client  *kubernetes.Clientset
	next    int // number of the next measured change
	log     progress
}

// progress writes lines that say how far the bench is.
type progress struct{ io.Writer }

func (p progress) say(format string, args ...any) {
	fmt.Fprintf(p, "%s bench: %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// newStage boots a control plane without controllers and without objects.
func newStage(ctx context.Context, log progress, s settings) (_ *stage, err error) {
	st := &stage{log: log}
	if st.dir, err = os.MkdirTemp("", "metawire-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(st.dir)
		}
	}()
	st.cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(st.dir, "cluster"), Bin: s.bin, Size: cluster.ControlPlane, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	if st.client, err = newClient(st.cluster.Kubeconfig()); err != nil {
		_ = st.cluster.Stop()
		return nil, err
	}
	return st, nil
}

func (st *stage) stop() error {
	return errors.Join(st.cluster.Stop(), os.RemoveAll(st.dir))
}

// fill adds nodes, with all that stands on them, until the world is w. It
// blocks until the API server has them.
func (st *stage) fill(ctx context.Context, w world) error {
	began := time.Now()
	if err := storeObjects(ctx, st.cluster.EtcdEndpoint(), w.objects(st.nodes, w.nodes)); err != nil {
		return err
	}
	st.world = w
	if err := st.seen(ctx, w.totalPods()); err != nil {
		return err
	}
	st.log.say("%d nodes, %d pods written in %s", w.nodes, w.totalPods(), time.Since(began).Round(time.Millisecond))
	return nil
}

// seen blocks until the API server has so many pods: its watch cache follows
// etcd.
func (st *stage) seen(ctx context.Context, pods int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		n, err := countPods(ctx, st.client)
		if err != nil {
			return err
		}
		if n == pods {
			return nil
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("the API server has %d pods, want %d: %w", n, pods, err)
		}
	}
}

// ledgerFor returns a ledger for the changes that a rate makes in a time.
func (st *stage) ledgerFor(perSecond float64, d time.Duration) *ledger {
	n := max(int(perSecond*d.Seconds()), 1)
	l := newLedger(st.next, n)
	st.next += n
	return l
}
