package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/lastrun"
)

// defaultSchedule is the collector's.
const defaultSchedule = "*/15 * * * *"

// late is how long after its time, and the longest delay that is configured, a run
// is missed: runs take some.
const late = time.Hour

// inventoryRuns looks at what the release tells of the last run of its inventory.
func inventoryRuns(ctx context.Context, t *Target) finding {
	sender, err := t.found.Sender(ctx)
	if errors.Is(err, installation.ErrNoInventory) {
		return skip("no inventory is configured (inventory.enabled is false)")
	}
	if err != nil {
		return fail(t.reinstall(), err.Error())
	}
	if j := sender.CronJob; j != nil && j.Spec.Suspend != nil && *j.Spec.Suspend {
		return fail(fmt.Sprintf("kubectl -n %s patch cronjob %s -p '{\"spec\":{\"suspend\":false}}'", j.Namespace, j.Name), fmt.Sprintf("CronJob %s is suspended", j.Name))
	}
	list, err := t.found.Client().CoreV1().ConfigMaps(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil {
		return unread(err, "list configmaps in namespace "+t.found.Namespace)
	}
	for _, m := range list.Items {
		text, ok := m.Data[lastrun.Key]
		if !ok {
			continue
		}
		r, err := lastrun.Parse([]byte(text))
		if err != nil {
			return fail("metawire inventory trigger makes a new report", fmt.Sprintf("ConfigMap %s/%s, %s: %v", m.Namespace, m.Name, lastrun.Key, err))
		}
		return t.judgeRun(r, sender)
	}
	if failed := t.failedJob(ctx, sender); failed != "" {
		return fail(t.whyNoRun(sender), "no run has told how it ended", failed)
	}
	return fine("there was no run yet")
}

// judgeRun judges a release's last run, and whether another was due since.
func (t *Target) judgeRun(r *lastrun.Report, sender *installation.Sender) finding {
	lines, due := r.Lines(t.Now), missed(sender, r.Ended, t.Now)
	switch {
	case !r.Complete() && !r.TooEarly && r.Error != "":
		return fail("see what the message names: the endpoint, its credentials (the values inventory.endpoint, inventory.credentials) or the way to it; metawire inventory trigger makes a run now", lines...)
	case !r.Complete() && !r.TooEarly:
		return fail("metawire inventory types says what is missed and why; metawire inventory trigger makes a run now", lines...)
	case !due.IsZero():
		return fail(t.whyNoRun(sender), append(lines, "a run was due at "+due.UTC().Format(time.RFC3339)+", and none has ended since")...)
	case r.TooEarly:
		return warn("once in a while that is nothing; if it is so after most runs, the schedule is denser than the endpoint wants: the value inventory.schedule", lines...)
	}
	return fine(lines...)
}

func (t *Target) whyNoRun(s *installation.Sender) string {
	if s.CronJob != nil {
		return fmt.Sprintf("kubectl -n %s describe cronjob %s; kubectl -n %s get jobs,pods -l app.kubernetes.io/component=inventory", s.CronJob.Namespace, s.CronJob.Name, s.CronJob.Namespace)
	}
	return fmt.Sprintf("are the collectors ready? kubectl -n %s logs -l app.kubernetes.io/component=collector", t.found.Namespace)
}

// missed returns when a run should have been that was not, zero if none. A
// schedule that cannot be read misses none: the collector refuses it.
func missed(s *installation.Sender, ended, now time.Time) time.Time {
	location, err := time.LoadLocation(s.TimeZone)
	if err != nil {
		return time.Time{}
	}
	times, err := cron.ParseStandard(cmp.Or(s.Schedule, defaultSchedule))
	if err != nil {
		return time.Time{}
	}
	delay, _ := time.ParseDuration(s.Jitter) // 0: of it late has enough
	if due := times.Next(ended.In(location)); now.Sub(due) > late+delay {
		return due
	}
	return time.Time{}
}

// failedJob says of the CronJob's last Job that it failed, and why.
func (t *Target) failedJob(ctx context.Context, s *installation.Sender) string {
	if s.CronJob == nil {
		return ""
	}
	list, err := t.found.Client().BatchV1().Jobs(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b batchv1.Job) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, c := range last.Status.Conditions {
		if c.Type == batchv1.JobFailed {
			return fmt.Sprintf("Job %s failed: %s: %s", last.Name, c.Reason, c.Message)
		}
	}
	return ""
}
