package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// How long a run that was killed keeps the next one waiting, and how the lock is
// renewed until then.
const (
	lockLease = 15 * time.Second
	lockRenew = 10 * time.Second
	lockRetry = 2 * time.Second
)

var errLockLost = errors.New("the API server did not answer in time, or another run took over")

// locked does something while nobody else migrates that release: it holds a Lease
// for so long. It waits for a run that was killed less than 15 s ago; one that goes
// on is an error. ctx ends when the Lease is lost.
func (m *Migrator) locked(ctx context.Context, of OldRelease, do func(context.Context) error) error {
	host, _ := os.Hostname() // only to be read
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: of.Namespace, Name: stateName(of.Name)},
		Client:     m.api.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + uuid.NewString()},
	}
	leads := make(chan context.Context)
	var holder atomic.Pointer[string]
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: lockLease, RenewDeadline: lockRenew, RetryPeriod: lockRetry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				select {
				case leads <- leading:
				case <-leading.Done():
				}
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(who string) {
				if who != "" && who != lock.Identity() {
					m.options.Tell(Step{Migration: of.String(), Says: "wait for another run, of " + who + ", in case that it was killed"})
					holder.Store(&who)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("lock the migration of release %s: %w", of, err)
	}
	// The Lease is held until the work has ended, which is after ctx.
	electing, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	elected := make(chan struct{})
	go func() {
		defer close(elected)
		elector.Run(electing)
	}()
	defer func() { stop(); <-elected }()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(lockLease + lockRenew):
		who := "somebody"
		if h := holder.Load(); h != nil {
			who = *h
		}
		return fmt.Errorf("%w: %s migrates release %s: run it again when that has ended", ErrProblems, who, of)
	case leading := <-leads:
		working, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(leading, func() { cancel(errLockLost) })() //nolint:contextcheck // ends with the Lease
		err := do(working)
		if leading.Err() == nil {
			stop()
			<-elected
			free := metav1.DeleteOptions{}
			_ = m.api.CoordinationV1().Leases(of.Namespace).Delete(context.WithoutCancel(ctx), lock.LeaseMeta.Name, free) // else it runs out
		}
		return err
	}
}
