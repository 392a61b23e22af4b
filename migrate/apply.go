package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/metawire/metawire/migrate/release"
)

// Phases that are spoken of elsewhere; the last three are none of the table, but
// what a state says when they are reached.
const (
	phaseHandOver = "hand over"
	phaseVerify   = "verify"
	phaseRemove   = "remove"
	phaseDone     = "done"
	// PhaseKept is after --keep-old: all but the removal is done.
	PhaseKept = "kept"
	// PhaseRollBack is when what was done is being undone.
	PhaseRollBack = "roll back"
)

// phase is a part of a migration. It can be done again, whole, after it was
// interrupted anywhere.
type phase struct {
	name string
	says string // in words, for the plan
	// concerns tells whether a migration has such a phase; nil: each has.
	concerns func(*state) bool
	// final phases are not undone when they fail: what is removed is on its way.
	final bool
	run   func(*run, context.Context) error
}

// phases is the table, in the order in which they are done.
func phases() []phase {
	sends := func(s *state) bool { return s.CronJob != nil }
	streams := func(s *state) bool { return s.Deployment != nil }
	return []phase{
		{"back up", "back up the old release, to a file and to a Secret", nil, false, (*run).backUp},
		{"pause", "let the old CronJob make no more Jobs, and wait for the one that runs", sends, false, (*run).pause},
		{"install", "install the new release beside the old one, and wait until it is ready", nil, false, (*run).install},
		{"send", "let the new release send the inventory once", sends, false, (*run).send},
		{phaseVerify, "run the new release's tests (helm test)", nil, false, (*run).verify},
		{phaseHandOver, "lead the old Service to the new collectors, end the old ones, and see that nobody is refused", streams, false, (*run).handOver},
		{phaseRemove, "see once more that the new release does the work, and remove the old release, without running its hooks", nil, true, (*run).remove},
	}
}

// ahead are the phases of a migration from one on; from the first if that is
// empty.
func (s *state) ahead(from string) []phase {
	all := slices.DeleteFunc(phases(), func(p phase) bool { return p.concerns != nil && !p.concerns(s) })
	switch from {
	case "":
		return all
	case PhaseKept:
		from = phaseVerify
	}
	at := slices.IndexFunc(all, func(p phase) bool { return p.name == from })
	if at < 0 {
		return nil
	}
	return all[at:]
}

// steps says what is to be done from a phase on.
func (s *state) steps(from string) []string {
	if from == PhaseRollBack {
		return []string{"go on undoing what was done"}
	}
	var says []string
	for _, p := range s.ahead(from) {
		says = append(says, p.says)
	}
	return says
}

// run is a migration that is being done, or undone.
type run struct {
	*Migrator
	state *state
}

// Apply does what a plan says, and blocks until it is done. When it fails before
// the old release is removed, what was done is undone; when ctx ends or the
// process does, the next Apply goes on where it was. It says in words what has
// come of it.
func (m *Migrator) Apply(ctx context.Context, p *Plan) (came string, err error) {
	if len(p.Problems) > 0 {
		return "", fmt.Errorf("%w: release %s cannot be migrated:\n%s", ErrProblems, p.Old, strings.Join(p.Problems, "\n"))
	}
	err = m.locked(ctx, p.Old, func(ctx context.Context) error {
		r := &run{Migrator: m, state: p.state}
		if r.state == nil {
			err = r.begin(ctx, p)
		} else {
			err = r.refresh(ctx)
		}
		if err != nil {
			return err
		}
		if r.state.Phase == PhaseRollBack {
			came, err = r.rollBack(ctx)
			return err
		}
		if err := r.unchanged(ctx); err != nil {
			return err
		}
		if p.state != nil && r.state.CronJob != nil && !r.state.Kept && r.state.Phase != phaseRemove {
			if err := r.pause(ctx); err != nil { // somebody may have let it go on meanwhile
				return fmt.Errorf("%w; %s", err, goOn)
			}
		}
		err := r.forward(ctx)
		if came = fmt.Sprintf("release %s is Metawire's release %s now", p.Old, p.New); r.state.Phase == PhaseKept {
			came = fmt.Sprintf("Metawire's release %s does the work of release %s, which is kept: run it again to remove that", p.New, p.Old)
		}
		return err
	})
	return came, err
}

// forward does the phases that are ahead.
func (r *run) forward(ctx context.Context) error {
	for _, p := range r.state.ahead(r.state.Phase) {
		if p.final && r.options.KeepOld && r.state.Phase != p.name { // else it is too late
			return r.state.enter(ctx, r.api, PhaseKept)
		}
		if p.final {
			if err := r.lookAgain(ctx); err != nil {
				return fmt.Errorf("%w; nothing was removed by this run: %s", err, goOn)
			}
		}
		if err := r.state.enter(ctx, r.api, p.name); err != nil {
			return err
		}
		err := p.run(r, ctx)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted: %w; %s", err, goOn)
		case p.final:
			return fmt.Errorf("%w; the old release is not wholly removed: %s", err, goOn)
		case r.state.Kept:
			return fmt.Errorf("%w; nothing was removed by this run: %s", err, goOn)
		default:
			return r.retreat(ctx, err)
		}
	}
	return r.state.enter(ctx, r.api, phaseDone)
}

const goOn = "run it again to go on, or with --rollback to undo it"

// retreat undoes what was done, because of err.
func (r *run) retreat(ctx context.Context, err error) error {
	came, back := r.rollBack(ctx)
	if back != nil {
		return fmt.Errorf("%w; and it could not be undone, run it again to go on with that: %w", err, back)
	}
	return fmt.Errorf("%w; all is as it was: %s", err, came)
}

// begin backs up and records that the migration has begun: from then on it can be
// resumed.
func (r *run) begin(ctx context.Context, p *Plan) error {
	draft := p.draft
	if draft == nil {
		return errors.New("the plan is of no survey")
	}
	if err := r.taken(ctx, p.Old, draft.endpoint); err != nil {
		return err
	}
	r.state = &draft.state
	r.state.Began, r.state.Phase = time.Now().UTC(), phases()[0].name
	err := r.renew(ctx, p.Old, &draft.backup)
	if err != nil {
		return err
	}
	r.state.File, err = draft.backup.write(r.options.Backup, p.Old)
	if err != nil {
		return err
	}
	return r.state.begin(ctx, r.api, &draft.backup)
}

// renew completes the backup, whose objects were read when the plan was made. That
// the release is another by now is an error.
func (r *run) renew(ctx context.Context, old OldRelease, b *backup) (err error) {
	changed := fmt.Errorf("release %s has changed since the plan was made: run it again", old)
	if b.Records, err = r.records.All(ctx, old.Namespace, old.Name); err != nil {
		return err
	}
	found := false
	for _, record := range b.Records {
		n := release.Revision(record)
		if found = found || n == old.Revision; n > old.Revision && record.Labels["status"] != "failed" {
			return changed
		}
	}
	if !found {
		return changed
	}
	for i, u := range b.Objects {
		now, err := r.objects.live(ctx, u)
		if err != nil {
			return err
		}
		if now == nil || owner(now) != old.String() || !equality.Semantic.DeepEqual(portable(u).Object, portable(now).Object) {
			return changed
		}
		b.Objects[i] = now
	}
	return nil
}

// taken asks the endpoint of an inventory whether it takes this cluster under its
// id, which is known only by opening a run; so it is not asked by a plan. An
// interrupted run is nothing to the service.
func (r *run) taken(ctx context.Context, old OldRelease, e *Endpoint) error {
	if e == nil || r.options.Endpoint == nil {
		return nil
	}
	return r.step(ctx, old, r.options.Timeout, "ask the endpoint whether it takes cluster "+e.ClusterID, func(ctx context.Context) ([]string, error) {
		open := *e
		open.Open = true
		if err := r.options.Endpoint(ctx, open); err != nil {
			return nil, fmt.Errorf("%w: %s", ErrProblems, refusal(err))
		}
		return nil, nil
	})
}

// refresh reads the state again, now that nobody else changes it.
func (r *run) refresh(ctx context.Context) error {
	all, err := states(ctx, r.api, r.state.Plan.Old.Namespace)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(s *state) bool { return s.Plan.Old.Name == r.state.Plan.Old.Name })
	if i < 0 {
		return fmt.Errorf("the migration of release %s was undone by somebody else", r.state.Plan.Old)
	}
	r.state = all[i]
	return nil
}

// do is a step of this migration.
func (r *run) do(ctx context.Context, says string, do func(context.Context) ([]string, error)) error {
	return r.step(ctx, r.state.Plan.Old, r.options.Timeout, says, do)
}
