package inventory

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Document is a Contract that sends nothing: it writes a run as one JSON
// document, {"clusterID", "objects": [...], "report": {...}}, object by object.
type Document struct {
	w     *bufio.Writer
	limit int
	sent  Sent
	begun bool
}

// NewDocument returns a document that is written to w. Objects of more than
// maxObject bytes are left out, as they would be if they were sent; default is
// the default of PageOptions.
func NewDocument(w io.Writer, maxObject int) *Document {
	return &Document{w: bufio.NewWriterSize(w, 64<<10), limit: cmp.Or(maxObject, PageOptions{}.withDefaults().MaxObject)}
}

// Begin implements Contract.
func (d *Document) Begin(_ context.Context, run Run) error { return d.begin(run.ClusterID) }

func (d *Document) begin(clusterID string) error {
	d.begun = true
	id, err := json.Marshal(clusterID)
	if err != nil {
		return fmt.Errorf("encode the cluster id: %w", err)
	}
	return d.write([]byte(`{"clusterID":`), id, []byte(`,"objects":[`))
}

// Add implements Contract.
func (d *Document) Add(_ context.Context, o Object) error {
	if len(o.JSON) > d.limit {
		return ErrTooLarge
	}
	separator := ",\n"
	if d.sent.Objects == 0 {
		separator = "\n"
	}
	d.sent.Objects++
	d.sent.Bytes += int64(len(o.JSON))
	return d.write([]byte(separator), o.JSON)
}

// Delete implements Contract: a document is of what is there.
func (d *Document) Delete(context.Context, Identity) error { return nil }

// End implements Contract.
func (d *Document) End(_ context.Context, r *Report) error {
	r.Sent = d.sent
	return nil
}

// Finish writes what came of the run, and makes a document of it even if the run
// did not begin.
func (d *Document) Finish(r *Report) error {
	if !d.begun {
		if err := d.begin(r.ClusterID); err != nil {
			return err
		}
	}
	report, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	if err := d.write([]byte("\n],\"report\":"), report, []byte("}\n")); err != nil {
		return err
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return nil
}

func (d *Document) write(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := d.w.Write(p); err != nil {
			return fmt.Errorf("write the document: %w", err)
		}
	}
	return nil
}
