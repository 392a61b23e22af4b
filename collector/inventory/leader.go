package inventory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// Leader lets one replica of many work: the holder of a Lease. Unlike a manager's
// leader election it outlives the loss of the Lease: the process has streams to
// serve.
type Leader struct {
	State State
	// Identity tells this process from others; default the host's name and
	// something random.
	Identity string
	// Duration is how long a Lease that is not renewed keeps others out, default
	// 30s. It is renewed every sixth of that, and given up after two thirds.
	Duration time.Duration
	Log      *slog.Logger // default none
}

// Run calls work while this process holds the Lease, as often as it comes to hold
// it; work ends when its context does. It blocks until ctx ends, and lets the next
// replica have the Lease at once then.
func (l *Leader) Run(ctx context.Context, work func(context.Context)) error {
	log := cmp.Or(l.Log, slog.New(slog.DiscardHandler)).With("lease", l.State.Namespace+"/"+l.State.Lease)
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.State.Namespace, Name: l.State.Lease},
		Client:     l.State.API.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: cmp.Or(l.Identity, identity())},
	}
	for ctx.Err() == nil {
		if err := l.term(ctx, lock, log, work); err != nil {
			return err
		}
	}
	return nil
}

// term waits for the Lease and works until it is lost or ctx ends.
func (l *Leader) term(ctx context.Context, lock resourcelock.Interface, log *slog.Logger, work func(context.Context)) error {
	duration := cmp.Or(l.Duration, 30*time.Second)
	leads := make(chan context.Context)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: duration, RenewDeadline: duration * 2 / 3, RetryPeriod: duration / 6,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				select {
				case leads <- leading:
				case <-leading.Done():
				}
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("elect by Lease %s: %w", lock.Describe(), err)
	}
	// The election outlives ctx: the Lease is held until the work has ended.
	electing, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.FromSlogHandler(log.Handler())))
	elected := make(chan struct{})
	go func() {
		defer close(elected)
		elector.Run(electing)
	}()
	select {
	case <-ctx.Done():
	case <-elected:
	case leading := <-leads:
		log.Info("holds the Lease: this replica sends the inventory")
		working, cancel := context.WithCancel(leading)
		unhook := context.AfterFunc(ctx, cancel)
		work(working) //nolint:contextcheck // ends with the Lease, and with ctx
		unhook()
		cancel()
		if leading.Err() != nil {
			log.Warn("has lost the Lease; trying again")
		}
	}
	stop()
	<-elected
	if ctx.Err() != nil {
		l.release(ctx, lock, log)
	}
	return nil
}

// release lets others have the Lease before it runs out, if it is held. The
// elector would do so by itself, but while the work still goes on.
func (l *Leader) release(ctx context.Context, lock resourcelock.Interface, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	record, _, err := lock.Get(ctx)
	if err != nil || record.HolderIdentity != lock.Identity() {
		return
	}
	released := *record
	released.HolderIdentity, released.LeaseDurationSeconds = "", 1
	if err := lock.Update(ctx, released); err != nil {
		log.Info("cannot give the Lease back; it will run out", "error", err)
	}
}

func identity() string {
	host, _ := os.Hostname() // the rest is enough to be told apart
	return host + "_" + uuid.NewString()
}
