package main

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/internal/installation"
)

// worker makes the run that was asked for.
type worker struct {
	name string
	hint string // what to look at if it does not
	// ended reports that it will not make it any more.
	ended func(context.Context) (bool, error)
}

// holder is the collector that holds the Lease.
func holder(found *installation.Installation, s *inventory.State) worker {
	return worker{
		name: "the collector that holds Lease " + s.Namespace + "/" + s.Lease,
		hint: fmt.Sprintf("is a collector ready? metawire check; what does it log? kubectl -n %s logs --prefix --tail=-1 -l %s | grep inventory",
			found.Namespace, found.Only(installation.Collector).LabelSelector),
		ended: func(context.Context) (bool, error) { return false, nil },
	}
}

// startJob makes a Job of a CronJob, as kubectl create job --from does. Its name
// ends with the begin of the run's ID.
func startJob(ctx context.Context, s *inventory.State, from *batchv1.CronJob, id string) (worker, error) {
	job := installation.JobOf(from, from.Name+"-"+id[:8])
	jobs := s.API.BatchV1().Jobs(from.Namespace)
	if _, err := jobs.Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return worker{}, fmt.Errorf("make a Job of CronJob %s/%s: %w", from.Namespace, from.Name, err)
	}
	return worker{
		name: "Job " + job.Namespace + "/" + job.Name,
		hint: fmt.Sprintf("kubectl -n %s describe job %s; kubectl -n %[1]s logs job/%[2]s", job.Namespace, job.Name),
		ended: func(ctx context.Context) (bool, error) {
			now, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("follow Job %s/%s: %w", job.Namespace, job.Name, err)
			}
			return installation.JobResult(now) != "", nil
		},
	}, nil
}
