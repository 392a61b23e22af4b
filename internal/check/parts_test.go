package check

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOlder: a pod whose ServiceAccount was made anew holds a token of the one before.
func TestOlder(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sa", CreationTimestamp: metav1.NewTime(now())}}
	pod := func(name string, after time.Duration) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now().Add(after))}, Spec: corev1.PodSpec{ServiceAccountName: "sa"}}
	}
	if got := older([]corev1.Pod{pod("same", 0), pod("later", time.Second)}, account); got != "" {
		t.Errorf("%s is taken for older", got)
	}
	other := pod("of before", -time.Hour)
	other.Spec.ServiceAccountName = "another"
	if got := older([]corev1.Pod{other}, account); got != "" {
		t.Errorf("%s, of another account, is taken for older", got)
	}
	if got := older([]corev1.Pod{pod("later", time.Second), pod("old", -time.Second)}, account); got != "old" {
		t.Errorf("got %q", got)
	}
}
