package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/lastrun"
)

// unstructuredOf names an object where only its name is needed.
func (o Object) unstructured() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(o.APIVersion)
	u.SetKind(o.Kind)
	u.SetNamespace(o.Namespace)
	u.SetName(o.Name)
	return u
}

// pause suspends the old CronJob: two that send for one cluster at once are more
// than its service understands.
func (r *run) pause(ctx context.Context) error {
	o := r.state.CronJob
	err := r.do(ctx, "suspend "+o.String(), func(ctx context.Context) ([]string, error) {
		return nil, r.suspend(ctx, o)
	})
	if err != nil {
		return err
	}
	return r.do(ctx, "wait for the Job of it that runs", func(ctx context.Context) ([]string, error) {
		return nil, until(ctx, "no Job of "+o.String()+" runs", func(ctx context.Context) (bool, error) {
			return r.idle(ctx, o)
		})
	})
}

func (r *run) suspend(ctx context.Context, cronJob *Object) error {
	return r.objects.change(ctx, cronJob.unstructured(), func(u *unstructured.Unstructured) error {
		return unstructured.SetNestedField(u.Object, true, "spec", "suspend")
	})
}

// idle reports whether no Job of a CronJob runs.
func (r *run) idle(ctx context.Context, cronJob *Object) (bool, error) {
	jobs, err := r.unfinished(ctx, cronJob)
	return err == nil && len(jobs) == 0, err
}

// unfinished are the Jobs of a CronJob that run, or wait for that; also those that
// kubectl create job --from made by hand.
func (r *run) unfinished(ctx context.Context, cronJob *Object) ([]Object, error) {
	list, err := r.api.BatchV1().Jobs(cronJob.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the Jobs of %s: %w", cronJob, err)
	}
	var jobs []Object
	for i := range list.Items {
		j := &list.Items[i]
		of := metav1.GetControllerOf(j)
		if of != nil && of.Kind == "CronJob" && of.Name == cronJob.Name && installation.JobResult(j) == "" {
			jobs = append(jobs, Object{batchv1.SchemeGroupVersion.String(), "Job", j.Namespace, j.Name})
		}
	}
	return jobs, nil
}

// install installs the new release. What an interrupted run has left of it is
// removed first.
func (r *run) install(ctx context.Context) error {
	if r.state.From != nil {
		err := r.do(ctx, "copy the credentials to "+r.state.To.String(), func(ctx context.Context) ([]string, error) {
			return nil, r.copyCredentials(ctx)
		})
		if err != nil {
			return err
		}
	}
	n := r.state.Plan.New
	return r.do(ctx, fmt.Sprintf("install release %s, and wait until it is ready", n), func(ctx context.Context) ([]string, error) {
		made, status, ours, err := r.newRelease()
		switch {
		case err != nil:
			return nil, err
		case status != "" && !ours:
			return nil, fmt.Errorf("release %s was installed by somebody else meanwhile", n)
		case status == "deployed":
			return nil, nil
		case status != "":
			if err := made.Uninstall(ctx, r.options.Timeout); err != nil {
				return nil, err
			}
		}
		// Not by Helm, which must be allowed to create also what is there.
		if err := r.namespace(ctx, n.Namespace); err != nil {
			return nil, err
		}
		return nil, made.Install(ctx, r.state.Values, map[string]string{releaseLabel: r.state.mark()}, r.options.Timeout)
	})
}

// releaseLabel is on the new release; its value says of which migration it is.
const releaseLabel = "metawire.dev/migration-id"

// mark tells this migration from others, within what a label may hold.
func (s *state) mark() string {
	return fmt.Sprintf("%d", s.Began.UnixNano())
}

// copyCredentials makes the Secret that the new release logs in with.
func (r *run) copyCredentials(ctx context.Context) error {
	from, to := r.state.From, r.state.To
	if err := r.namespace(ctx, to.Namespace); err != nil {
		return err
	}
	secret, err := r.api.CoreV1().Secrets(from.Namespace).Get(ctx, from.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the credentials of the endpoint: %w", err)
	}
	secrets := r.api.CoreV1().Secrets(to.Namespace)
	made := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: to.Namespace, Name: to.Name, Labels: map[string]string{migrationLabel: r.state.Plan.Old.Name, releaseLabel: r.state.mark()}},
		Data:       map[string][]byte{accessKey: secret.Data[accessKey], secretKey: secret.Data[secretKey]},
	}
	_, err = secrets.Create(ctx, made, metav1.CreateOptions{FieldManager: manager})
	if apierrors.IsAlreadyExists(err) {
		var there *corev1.Secret
		if there, err = secrets.Get(ctx, to.Name, metav1.GetOptions{}); err == nil && there.Labels[migrationLabel] != r.state.Plan.Old.Name {
			return fmt.Errorf("%s was made by somebody else meanwhile", to)
		}
		if err == nil { // a migration before this one left it
			_, err = secrets.Update(ctx, made, metav1.UpdateOptions{FieldManager: manager})
		}
	}
	if err != nil {
		return fmt.Errorf("copy the credentials of the endpoint: %w", err)
	}
	return nil
}

// namespace makes a namespace, unless it is there.
func (r *run) namespace(ctx context.Context, name string) error {
	_, err := r.api.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = r.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{FieldManager: manager})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	return nil
}

// tooEarly is how long is waited when the endpoint does not want a run yet.
const tooEarly = 30 * time.Second

// send has the new release send the inventory, as it will by its schedule. An
// endpoint that does not want another run so soon is asked again.
func (r *run) send(ctx context.Context) error {
	return r.do(ctx, "send the inventory once", func(ctx context.Context) ([]string, error) {
		made, err := installation.At(r.config, r.state.Plan.New.Namespace, r.state.Plan.New.Name)
		if err != nil {
			return nil, err
		}
		sender, err := made.Sender(ctx)
		if err != nil {
			return nil, err
		}
		for {
			report, err := r.sendOnce(ctx, sender)
			if err == nil {
				return report.Lines(time.Now()), nil
			}
			if report == nil || report.Result != "skipped" {
				return nil, err
			}
			if sleep(ctx, tooEarly) != nil {
				return nil, fmt.Errorf("%w; give it more time: --timeout", err)
			}
		}
	})
}

// sendOnce makes a Job of the new CronJob, waits for it, and returns what the run
// has told of itself; also with an error, if it has.
func (r *run) sendOnce(ctx context.Context, sender *installation.Sender) (*lastrun.Report, error) {
	from := sender.CronJob
	jobs := r.api.BatchV1().Jobs(from.Namespace)
	job := installation.JobOf(from, "")
	job.GenerateName = from.Name + "-"
	job, err := jobs.Create(ctx, job, metav1.CreateOptions{FieldManager: manager})
	if err != nil {
		return nil, fmt.Errorf("make a Job of CronJob %s: %w", from.Name, err)
	}
	defer func() {
		background := metav1.DeletePropagationBackground
		_ = jobs.Delete(context.WithoutCancel(ctx), job.Name, metav1.DeleteOptions{PropagationPolicy: &background}) // else it goes with its CronJob
	}()
	err = until(ctx, "Job "+job.Name+" has ended", func(ctx context.Context) (bool, error) {
		now, err := jobs.Get(ctx, job.Name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read Job %s: %w", job.Name, err)
		}
		job = now
		return installation.JobResult(job) != "", nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, r.log(ctx, job))
	}
	kept, err := r.api.CoreV1().ConfigMaps(sender.State.Namespace).Get(ctx, sender.State.Report, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the report of the run: %w\n%s", err, r.log(ctx, job))
	}
	report, err := lastrun.Parse([]byte(kept.Data[lastrun.Key]))
	if err == nil && installation.JobResult(job) != batchv1.JobComplete {
		err = fmt.Errorf("the run of the inventory was not complete:\n%s", strings.Join(report.Lines(time.Now()), "\n"))
	}
	return report, err
}

// verify runs the chart's tests.
func (r *run) verify(ctx context.Context) error {
	n := r.state.Plan.New
	return r.do(ctx, "helm test "+n.String(), func(ctx context.Context) ([]string, error) {
		made, err := r.release(n)
		if err != nil {
			return nil, err
		}
		var said bytes.Buffer
		if err := made.Test(ctx, &said, r.options.Timeout); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(said.String()))
		}
		return nil, nil
	})
}

// log returns the end of what a Job's pods said.
func (r *run) log(ctx context.Context, job *batchv1.Job) string {
	ctx = context.WithoutCancel(ctx)
	pods, err := r.api.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job.Name})
	if err != nil {
		return "what its pod says cannot be read: " + err.Error()
	}
	var all strings.Builder
	for _, p := range pods.Items {
		from, err := r.api.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{TailLines: ptr.To[int64](10)}).Stream(ctx)
		if err == nil {
			_, err = io.Copy(&all, io.LimitReader(from, 16<<10))
			err = errors.Join(err, from.Close())
		}
		if err != nil {
			fmt.Fprintf(&all, "pod %s is %s: %s\n", p.Name, p.Status.Phase, err)
		}
	}
	return strings.TrimSpace(all.String())
}
