package migrate

import (
	"github.com/metawire/metawire/migrate/values"
)

// Plan is what a migration will do. There is no secret in it.
type Plan struct {
	Old OldRelease `json:"old"`
	New NewRelease `json:"new"`
	// Resumes is the phase at which a run that ended goes on; empty if none began.
	Resumes string `json:"resumes,omitempty"`
	// Steps are the phases that are ahead, in words.
	Steps []string `json:"steps"`
	// Values tell of every value of the old release.
	Values []values.Note `json:"values"`
	// NewValues are those of the new release.
	NewValues map[string]any `json:"newValues"`
	Objects   []Change       `json:"objects"`
	// Permissions say who could read what, and who will.
	Permissions []string `json:"permissions"`
	// Falco says what happens to Falco pods that run.
	Falco []string `json:"falco,omitempty"`
	// ByHand is what a person has to do or to know.
	ByHand []string `json:"byHand,omitempty"`
	// Problems are why nothing is done; each says what to do.
	Problems []string `json:"problems,omitempty"`

	state *state      // of a plan that resumes
	draft *draftState // of a new one
}

// OldRelease is what is migrated.
type OldRelease struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Chart     string `json:"chart"`
	Version   string `json:"version"`
	Revision  int    `json:"revision"`
}

func (o OldRelease) String() string { return o.Namespace + "/" + o.Name }

// NewRelease is what it becomes.
type NewRelease struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Version   string `json:"version"`
}

func (n NewRelease) String() string { return n.Namespace + "/" + n.Name }

// Action is what happens to an object.
type Action string

// The actions.
const (
	Create Action = "create"
	Keep   Action = "keep"
	Alter  Action = "change"
	Remove Action = "remove"
)

// Change is what happens to one object.
type Change struct {
	Action Action `json:"action"`
	Object
	// Why says it where it is not plain.
	Why string `json:"why,omitempty"`
}

// draftState is what the plan's making found and its doing needs.
type draftState struct {
	state    state
	backup   backup
	endpoint *Endpoint // of an inventory
}
