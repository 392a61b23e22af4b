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
	corev1 "k8s.io/api/core/v1"

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
	causes, err := t.stuckRuns(ctx, sender)
	if err != nil {
		return unread(err, "list pods in namespace "+t.found.Namespace)
	}
	list, err := t.found.Client().CoreV1().ConfigMaps(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil {
		return unread(err, "list configmaps in namespace "+t.found.Namespace)
	}
	r, err := lastReport(list.Items)
	if err != nil {
		return fail("metawire inventory trigger makes a new report", err.Error())
	}
	if r == nil {
		return t.neverTold(ctx, sender, causes, list.Items)
	}
	if job := t.failedJob(ctx, sender, r.Ended); job != "" {
		causes = append(causes, cause{text: job, hint: t.whyNoRun(sender)})
	}
	if len(causes) > 0 {
		return because(causes, r.Lines(t.Now)...)
	}
	return t.judgeRun(r, sender)
}

// lastReport returns what the last run told, nil if none has.
func lastReport(maps []corev1.ConfigMap) (*lastrun.Report, error) {
	for _, m := range maps {
		text, ok := m.Data[lastrun.Key]
		if !ok {
			continue
		}
		r, err := lastrun.Parse([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("ConfigMap %s/%s, %s: %w", m.Namespace, m.Name, lastrun.Key, err)
		}
		return r, nil
	}
	return nil, nil
}

// neverTold judges that no run has told how it ended.
func (t *Target) neverTold(ctx context.Context, sender *installation.Sender, causes []cause, maps []corev1.ConfigMap) finding {
	if job := t.failedJob(ctx, sender, time.Time{}); job != "" {
		causes = append(causes, cause{text: job, hint: t.whyNoRun(sender)})
	}
	if due := missed(sender, since(sender, maps), t.Now); len(causes) == 0 && !due.IsZero() {
		causes = append(causes, cause{text: "a run was due at " + due.UTC().Format(time.RFC3339), hint: t.whyNoRun(sender)})
	}
	if len(causes) > 0 {
		return because(causes, "no run has told how it ended")
	}
	return fine("there was no run yet")
}

// because fails, and tells the causes first.
func because(causes []cause, details ...string) finding {
	var all []string
	for _, c := range causes {
		all = append(all, c.text)
	}
	return fail(hints(causes), append(all, details...)...)
}

// since returns from when on runs were due that nobody has told of: since whoever
// makes them, and where they tell of it, is there. Zero: it is not known.
func since(s *installation.Sender, maps []corev1.ConfigMap) (at time.Time) {
	for _, m := range maps {
		if m.Name == s.State.Report {
			at = m.CreationTimestamp.Time
		}
	}
	if s.CronJob != nil && s.CronJob.CreationTimestamp.After(at) {
		at = s.CronJob.CreationTimestamp.Time
	}
	return at
}

// stuckRuns says why pods of the CronJob do not begin. While one does not, no other
// run begins either.
func (t *Target) stuckRuns(ctx context.Context, s *installation.Sender) (causes []cause, err error) {
	if s.CronJob == nil { // the check of the collectors says it
		return nil, nil
	}
	pods, err := t.found.Pods(ctx, installation.Inventory)
	if err != nil {
		return nil, err
	}
	// Its Job keeps what it was made with: what is mended helps the next one.
	next := fmt.Sprintf("; then kubectl -n %s delete jobs -l %s, for no other run begins before this one ends; metawire inventory trigger makes one now", t.found.Namespace, t.found.Only(installation.Inventory).LabelSelector)
	for i := range pods {
		if p := &pods[i]; stuckRun(p, t.Now) {
			c := t.whyNotReady(ctx, p)
			causes = append(causes, cause{text: fmt.Sprintf("pod %s does not begin its run: %s", p.Name, c.text), hint: c.hint + next})
		}
	}
	return causes, nil
}

// starting is how long a pod may take to begin, if nothing says why it does not.
const starting = 2 * time.Minute

// stuckRun reports whether a pod has not begun, and is not about to.
func stuckRun(p *corev1.Pod, now time.Time) bool {
	if p.Status.Phase != corev1.PodPending && p.Status.Phase != "" {
		return false
	}
	_, ask := podCause(p)
	return ask == askNobody || now.Sub(p.CreationTimestamp.Time) > starting
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
		return fmt.Sprintf("kubectl -n %s describe cronjob %s; kubectl -n %[1]s get jobs,pods -l %[3]s", s.CronJob.Namespace, s.CronJob.Name, t.found.Only(installation.Inventory).LabelSelector)
	}
	return "are the collectors ready? " + t.logs(installation.Collector)
}

// missed returns when a run should have been that was not, zero if none, or if it
// is not known since when there was none. A schedule that cannot be read misses
// none: the collector refuses it.
func missed(s *installation.Sender, ended, now time.Time) time.Time {
	if ended.IsZero() {
		return time.Time{}
	}
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

// failedJob says of the CronJob's last Job that it failed, and why, if it was made
// after that time.
func (t *Target) failedJob(ctx context.Context, s *installation.Sender, after time.Time) string {
	if s.CronJob == nil {
		return ""
	}
	list, err := t.found.Client().BatchV1().Jobs(t.found.Namespace).List(ctx, t.found.Only(installation.Inventory))
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(list.Items, func(a, b batchv1.Job) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	if !last.CreationTimestamp.After(after) {
		return ""
	}
	for _, c := range last.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return fmt.Sprintf("Job %s failed: %s: %s", last.Name, c.Reason, c.Message)
		}
	}
	return ""
}
