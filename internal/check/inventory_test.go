package check

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/installation"
)

// TestStuckRun: a pod that cannot begin is told at once where Kubernetes says why,
// else when it took too long; one that runs or has ended is not.
func TestStuckRun(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}}
	}
	for name, tc := range map[string]struct {
		status corev1.PodStatus
		age    time.Duration
		stuck  bool
	}{
		"no image": {waiting("ImagePullBackOff"), time.Second, true},
		"no node": {corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		}}}, time.Second, true},
		"begins":             {waiting("ContainerCreating"), time.Minute, false},
		"begins for long":    {waiting("ContainerCreating"), 3 * time.Minute, true},
		"just made":          {corev1.PodStatus{Phase: corev1.PodPending}, time.Second, false},
		"no kubelet took it": {corev1.PodStatus{Phase: corev1.PodPending}, time.Hour, true},
		"runs": {corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}}, time.Hour, false},
		"has ended": {corev1.PodStatus{Phase: corev1.PodSucceeded}, time.Hour, false},
		"failed":    {corev1.PodStatus{Phase: corev1.PodFailed}, time.Hour, false},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now().Add(-tc.age))}, Status: tc.status}
		if got := stuckRun(p, now()); got != tc.stuck {
			t.Errorf("%s: stuck is %t", name, got)
		}
	}
}

// TestSince: without a report runs are missed too, from when there is who makes
// them and where they tell of it.
func TestSince(t *testing.T) {
	ago := func(d time.Duration) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "report", CreationTimestamp: metav1.NewTime(now().Add(-d))}
	}
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		report, cronJob time.Duration // ago; 0 is: there is none
		missed          bool
	}{
		"a CronJob of today":                        {2 * day, time.Minute, false},
		"a CronJob of two days ago":                 {0, 2 * day, true},
		"made anew, where one had been":             {9 * day, 2 * time.Hour, false},
		"the collectors, installed today":           {time.Minute, 0, false},
		"the collectors, installed two days ago":    {2 * day, 0, true},
		"the collectors, and nobody knows for long": {0, 0, false},
	} {
		s := &installation.Sender{Schedule: "0 3 * * *"}
		s.State.Report = "report"
		if tc.cronJob != 0 {
			s.CronJob = &batchv1.CronJob{ObjectMeta: ago(tc.cronJob)}
		}
		maps := []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Name: "configuration", CreationTimestamp: metav1.NewTime(now())}}}
		if tc.report != 0 {
			maps = append(maps, corev1.ConfigMap{ObjectMeta: ago(tc.report)})
		}
		if due := missed(s, since(s, maps), now()); due.IsZero() == tc.missed {
			t.Errorf("%s: missed is %s", name, due)
		}
	}
}
