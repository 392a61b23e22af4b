package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/metawire/metawire/cmd/metawire/view"
	"github.com/metawire/metawire/collector/metadata"
)

// notices tells what happens to the connection.
type notices struct {
	w    io.Writer
	addr string
}

func (n notices) Connected(took time.Duration) {
	fmt.Fprintf(n.w, "connected to %s in %s\n", n.addr, took.Round(100*time.Microsecond))
}

func (n notices) Retrying(reason error, pause time.Duration) {
	fmt.Fprintf(n.w, "%v; again in %s\n", reason, pause)
}

// lines prints a line for people for each event. Deletions of what it was not told
// of say nothing to them: a collector begins with what left the node lately, for
// subscribers that come back.
type lines struct {
	view *view.View
	w    io.Writer
	notices
}

func (l lines) Event(e *metadata.Event) error {
	now := time.Now()
	unseen := !l.view.Has(e.GetUid())
	object, err := l.view.Apply(e, now)
	if err != nil || unseen && e.GetReason() == metadata.Delete {
		return err
	}
	_, err = fmt.Fprintf(l.w, "%s %s %s\n", now.Format("15:04:05.000"), e.GetReason(), object)
	return err
}

// jsonLines prints a JSON object for each event.
type jsonLines struct {
	w io.Writer
	notices
}

// jsonEvent is such an object. What the event has as JSON text is embedded.
type jsonEvent struct {
	Time   time.Time           `json:"time"` // of arrival
	Reason string              `json:"reason"`
	UID    string              `json:"uid"`
	Kind   string              `json:"kind"`
	Meta   json.RawMessage     `json:"meta,omitempty"`
	Status json.RawMessage     `json:"status,omitempty"`
	Refs   map[string][]string `json:"refs,omitempty"`
}

func (j jsonLines) Event(e *metadata.Event) error {
	out := jsonEvent{
		Time: time.Now().UTC(), Reason: e.GetReason(), UID: e.GetUid(), Kind: e.GetKind(),
		Meta: json.RawMessage(e.GetMeta()), Status: json.RawMessage(e.GetStatus()),
	}
	if e.Refs != nil {
		out.Refs = make(map[string][]string, len(e.Refs.GetResources()))
		for kind, uids := range e.Refs.GetResources() {
			out.Refs[kind] = append([]string{}, uids.GetList()...) // [] and not null
		}
	}
	line, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("event of %s %s: %w", e.GetKind(), e.GetUid(), err)
	}
	_, err = j.w.Write(append(line, '\n'))
	return err
}
