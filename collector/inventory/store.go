package inventory

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TriggerAnnotation of the Lease asks for a run now, by any new value.
const TriggerAnnotation = "metawire.dev/inventory-trigger"

// Keys of the report's ConfigMap. Each holds text of its own, so that kubectl
// shows it.
const (
	reportKey   = "report.json"
	progressKey = "progress.json"
	successKey  = "lastSuccess"
	triggerKey  = "trigger"

	maxReport = 900 << 10 // bytes; a ConfigMap takes 1 MiB
)

// Status is what a release tells of its runs.
type Status struct {
	Report      *Report   // of the last run; nil before the first
	Trigger     string    // that was answered last, with that or an earlier report
	LastSuccess time.Time // when the last complete run ended; zero if none did
	Progress    *Progress // of the run that goes on; nil if none does
}

// Progress is how far a run is.
type Progress struct {
	Run     string    `json:"run"`
	Trigger string    `json:"trigger,omitempty"` // that it answers
	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	// Type is listed now, the Done+1st of Types.
	Type    string `json:"type,omitempty"`
	Done    int    `json:"done"`
	Types   int    `json:"types"`
	Objects int    `json:"objects"` // that were handed to the contract so far
}

// Status reads what the release tells of its runs.
func (s *State) Status(ctx context.Context) (Status, error) {
	var status Status
	c, err := s.get(ctx, s.Report)
	if err != nil {
		return status, err
	}
	status.Trigger = c.Data[triggerKey]
	for key, to := range map[string]any{reportKey: &status.Report, progressKey: &status.Progress, successKey: &status.LastSuccess} {
		text := c.Data[key]
		if text == "" {
			continue
		}
		if key == successKey {
			text = `"` + text + `"`
		}
		if err := json.Unmarshal([]byte(text), to); err != nil {
			return status, fmt.Errorf("ConfigMap %s/%s, %s: %w", s.Namespace, s.Report, key, err)
		}
	}
	return status, nil
}

// Ask asks the replica that holds the Lease for a run now. The status has the ID
// as Trigger when it has ended.
func (s *State) Ask(ctx context.Context, id string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{TriggerAnnotation: id}}})
	if err != nil {
		return fmt.Errorf("encode the annotation: %w", err)
	}
	if _, err := s.API.CoordinationV1().Leases(s.Namespace).Patch(ctx, s.Lease, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotate Lease %s/%s: %w", s.Namespace, s.Lease, err)
	}
	return nil
}

// Recorder tells what comes of runs: in the log, in the report's ConfigMap and
// as an Event of the Lease. One goroutine uses it.
type Recorder struct {
	State State
	Log   *slog.Logger
	Now   func() time.Time // default time.Now
	// Every is the least time between two progresses that are written, default 2s.
	Every time.Duration

	written time.Time
}

func (r *Recorder) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// Progress writes how far a run is, unless that was just done. What cannot be
// written is logged only: the run is worth more.
func (r *Recorder) Progress(ctx context.Context, p Progress) {
	now := r.now()
	if now.Sub(r.written) < cmp.Or(r.Every, 2*time.Second) {
		return
	}
	r.written, p.Updated = now, now
	text, err := json.Marshal(p)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err = r.State.put(ctx, r.State.Report, contents{Data: map[string]string{progressKey: string(text)}})
	}
	if err != nil {
		r.Log.Debug("cannot write the progress of the run", "error", err)
	}
}

// Done tells what came of a run, which a trigger may have asked for. The log has
// it in any case.
func (r *Recorder) Done(ctx context.Context, trigger string, report *Report) error {
	level := slog.LevelInfo
	if report.Result != Complete {
		level = slog.LevelWarn
	}
	r.Log.Log(ctx, level, "inventory run ended", "result", report.Result, "trigger", trigger, "report", report)
	r.written = time.Time{}
	text, err := reportText(report)
	if err != nil {
		return err
	}
	data := map[string]string{reportKey: string(text), progressKey: ""}
	if trigger != "" {
		data[triggerKey] = trigger
	}
	if report.Result == Complete {
		data[successKey] = report.Ended.UTC().Format(time.RFC3339)
	}
	if err := r.State.put(ctx, r.State.Report, contents{Data: data}); err != nil {
		return err
	}
	return r.event(ctx, report)
}

// reportText is the report as it is kept: one of thousands of types is cut down
// to those that did not arrive whole, and to none, until a ConfigMap takes it.
func reportText(report *Report) ([]byte, error) {
	short := *report
	for _, keep := range []func(TypeReport) bool{
		func(TypeReport) bool { return true },
		func(t TypeReport) bool { return t.Outcome != OK },
		func(TypeReport) bool { return false },
	} {
		short.Types = nil
		for i := range report.Types {
			if keep(report.Types[i]) {
				short.Types = append(short.Types, report.Types[i])
			}
		}
		if left := len(report.Types) - len(short.Types); left > 0 {
			short.Notes = append(slices.Clone(report.Notes), fmt.Sprintf("%d types are left out of this report: the log has them", left))
		}
		text, err := json.MarshalIndent(&short, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encode the report: %w", err)
		}
		if len(text) <= maxReport {
			return text, nil
		}
	}
	return nil, errors.New("the report is larger than a ConfigMap takes")
}

// event makes the Event of a run.
func (r *Recorder) event(ctx context.Context, report *Report) error {
	lease, err := r.State.lease(ctx)
	if err != nil {
		return err
	}
	kind, reason := corev1.EventTypeWarning, map[Result]string{
		Complete: "InventoryComplete", Partial: "InventoryPartial", NotSent: "InventoryFailed", Skipped: "InventorySkipped",
	}[report.Result]
	if report.Result == Complete {
		kind = corev1.EventTypeNormal
	}
	at := metav1.NewTime(r.now())
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.State.Namespace, Name: lease.Name + "." + strings.ToLower(rand.Text())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: lease.Namespace, Name: lease.Name, UID: lease.UID,
		},
		Type: kind, Reason: cmp.Or(reason, "InventoryEnded"), Message: Summary(report),
		Source:         corev1.EventSource{Component: "metawire-collector"},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
	if _, err := r.State.API.CoreV1().Events(r.State.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make an Event on Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	return nil
}
