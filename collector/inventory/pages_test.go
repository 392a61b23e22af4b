package inventory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"pgregory.net/rapid"
)

// plainBody is a page's JSON.
func plainBody(t interface{ Fatal(...any) }, p Page) []byte {
	if !p.Gzip {
		return p.Body
	}
	z, err := gzip.NewReader(bytes.NewReader(p.Body))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type testBody struct {
	Objects []json.RawMessage `json:"objects"`
	Deleted []Identity        `json:"deleted"`
}

// TestPacker: whatever comes, everything is in some page once, in order, no page
// of several is larger than it may be, and the last alone says so.
func TestPacker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := PageOptions{
			Bytes: rapid.IntRange(50, 2000).Draw(t, "page"), MaxObject: rapid.IntRange(2000, 3000).Draw(t, "max"),
			Plain: rapid.Bool().Draw(t, "plain"),
		}
		var pages []Page
		p := newPacker("run", "/path", `{"objects":[`, o, func(_ context.Context, p Page) error {
			pages = append(pages, p)
			return nil
		})
		if rapid.Bool().Draw(t, "broken") {
			p.zip.sink = failing{}
		}
		var want, gone []string
		for n, pad := range rapid.SliceOf(rapid.IntRange(0, 3200)).Draw(t, "objects") {
			o := testObject(n, pad)
			switch err := p.add(t.Context(), "", o.JSON, ""); {
			case errors.Is(err, ErrTooLarge) == (len(o.JSON) > p.o.MaxObject) && err != nil:
			case err != nil:
				t.Fatal(err)
			default:
				want = append(want, string(o.JSON))
			}
			if pad%3 == 0 {
				gone = append(gone, o.UID)
				if err := p.delete(t.Context(), o.Identity); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.finish(t.Context(), func() bool { return true }); err != nil {
			t.Fatal(err)
		}
		var got, deleted []string
		for n, page := range pages {
			raw := plainBody(t, page)
			var in testBody
			if err := json.Unmarshal(raw, &in); err != nil {
				t.Fatalf("page %d: %v: %s", n, err, raw)
			}
			if page.Number != n+1 || page.Last != (n == len(pages)-1) || page.Key != fmt.Sprintf("run-%d", n+1) {
				t.Fatalf("page %d of %d is %d, last %t, key %q", n, len(pages), page.Number, page.Last, page.Key)
			}
			if page.Objects != len(in.Objects) || page.Bytes != int64(len(raw)) || in.Objects == nil {
				t.Fatalf("page %d has %d objects, %d bytes; it says %d and %d", n, len(in.Objects), len(raw), page.Objects, page.Bytes)
			}
			if len(raw) > o.Bytes && len(in.Objects)+len(in.Deleted) > 1 {
				t.Fatalf("page %d has %d bytes of %d", n, len(raw), o.Bytes)
			}
			for _, o := range in.Objects {
				got = append(got, string(o))
			}
			for _, d := range in.Deleted {
				deleted = append(deleted, d.UID)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(deleted) != fmt.Sprint(gone) {
			t.Fatalf("%d of %d objects, %d of %d deleted", len(got), len(want), len(deleted), len(gone))
		}
	})
}

// failing takes no bytes: compression fails.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("no room") }

// BenchmarkPacker packs objects of some 2 KiB.
func BenchmarkPacker(b *testing.B) {
	o := testObject(1, 2000)
	p := newPacker("run", "", `{"objects":[`, PageOptions{}, func(context.Context, Page) error { return nil })
	b.SetBytes(int64(len(o.JSON)))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.add(b.Context(), "", o.JSON, ""); err != nil {
			b.Fatal(err)
		}
	}
}
