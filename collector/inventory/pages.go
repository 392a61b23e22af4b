package inventory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// PageOptions say how objects are packed. The zero value is right for most.
type PageOptions struct {
	// Bytes is how much JSON makes a page, default 1,200,000. An object that is
	// larger travels alone.
	Bytes int
	// MaxObject is the JSON of the largest object that is sent, default
	// 1,500,000.
	MaxObject int
	// Plain sends without compression.
	Plain bool
}

func (o PageOptions) withDefaults() PageOptions {
	o.Bytes = cmp.Or(o.Bytes, 1_200_000)
	o.MaxObject = cmp.Or(o.MaxObject, max(o.Bytes, 1_500_000))
	return o
}

// compressor makes bodies. One goroutine uses it at a time.
type compressor struct {
	plain bool
	zip   *gzip.Writer
	out   bytes.Buffer // used again and again
	// sink is where compressed bytes go, &out; tests let it fail.
	sink io.Writer
}

func newCompressor(plain bool) *compressor {
	c := &compressor{plain: plain, zip: gzip.NewWriter(nil)}
	c.sink = &c.out
	return c
}

// body returns the JSON as it is sent, in memory of its own: plain if
// compression is off or fails.
func (c *compressor) body(raw []byte) (body []byte, zipped bool) {
	if !c.plain && c.compress(raw) == nil {
		return bytes.Clone(c.out.Bytes()), true
	}
	return bytes.Clone(raw), false
}

func (c *compressor) compress(raw []byte) error {
	c.out.Reset()
	c.zip.Reset(c.sink)
	if _, err := c.zip.Write(raw); err != nil {
		return err
	}
	return c.zip.Close()
}

// packer packs objects into pages. It keeps the JSON of a page until it is full,
// so that the page can still go plain when compression fails, and holds one
// page back, so that the last is known to be last.
type packer struct {
	run   string
	path  string
	head  string // before the first object
	o     PageOptions
	zip   *compressor
	send  func(context.Context, Page) error
	raw   bytes.Buffer // head and the objects of the page; empty before the first
	gone  bytes.Buffer // what is deleted
	count int          // objects in raw
	pages int
	held  *Page
}

const (
	deletedHead = `],"deleted":[`
	pageTail    = `]}`
)

func newPacker(run, path, head string, o PageOptions, send func(context.Context, Page) error) *packer {
	o = o.withDefaults()
	return &packer{run: run, path: path, head: head, o: o, zip: newCompressor(o.Plain), send: send}
}

// add packs the JSON of an object, with what stands before and after it in the
// page.
func (p *packer) add(ctx context.Context, before string, object []byte, after string) error {
	object = bytes.TrimSpace(object)
	if len(object) > p.o.MaxObject {
		return fmt.Errorf("%w: %d bytes, and at most %d are sent", ErrTooLarge, len(object), p.o.MaxObject)
	}
	if err := p.room(ctx, len(before)+len(object)+len(after)); err != nil {
		return err
	}
	if p.raw.Len() > 0 {
		p.raw.WriteByte(',')
	} else {
		p.raw.WriteString(p.head)
	}
	p.raw.WriteString(before)
	p.raw.Write(object)
	p.raw.WriteString(after)
	p.count++
	return nil
}

// delete packs the identity of an object that is gone.
func (p *packer) delete(ctx context.Context, gone Identity) error {
	line, err := json.Marshal(gone)
	if err != nil {
		return fmt.Errorf("encode the identity of %s %q: %w", gone.Kind, gone.Name, err)
	}
	if err := p.room(ctx, len(line)); err != nil {
		return err
	}
	if p.gone.Len() > 0 {
		p.gone.WriteByte(',')
	}
	p.gone.Write(line)
	return nil
}

// room closes the page if it has no room for so many bytes more.
func (p *packer) room(ctx context.Context, n int) error {
	empty := p.raw.Len()+p.gone.Len() == 0
	has := max(p.raw.Len(), len(p.head)) + len(deletedHead) + p.gone.Len() + len(",") + len(pageTail)
	if empty || has+n <= p.o.Bytes {
		return nil
	}
	return p.turn(ctx)
}

// turn closes the page, and sends the one before it.
func (p *packer) turn(ctx context.Context) error {
	if p.raw.Len() == 0 {
		p.raw.WriteString(p.head)
	}
	if p.gone.Len() > 0 {
		p.raw.WriteString(deletedHead)
		p.raw.Write(p.gone.Bytes())
	}
	p.raw.WriteString(pageTail)

	p.pages++
	next := &Page{
		Run: p.run, Number: p.pages, Key: fmt.Sprintf("%s-%d", p.run, p.pages), Path: p.path,
		Objects: p.count, Bytes: int64(p.raw.Len()),
	}
	next.Body, next.Gzip = p.zip.body(p.raw.Bytes())
	p.raw.Reset()
	p.gone.Reset()
	p.count = 0

	held := p.held
	p.held = next
	if held == nil {
		return nil
	}
	return p.send(ctx, *held)
}

// finish sends what is left: one page at least, so that a run without objects
// is seen too. The last says that it is if complete does, which is asked after
// all before it were sent.
func (p *packer) finish(ctx context.Context, complete func() bool) error {
	if p.raw.Len()+p.gone.Len() > 0 || p.held == nil {
		if err := p.turn(ctx); err != nil {
			return err
		}
	}
	page := *p.held
	p.held = nil
	page.Last = complete()
	return p.send(ctx, page)
}
