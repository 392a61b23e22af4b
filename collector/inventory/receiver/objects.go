package receiver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// body reads the JSON of a request: whether it is compressed is decided by the
// header alone.
func (r *Receiver) body(q *http.Request) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "the Content-Type %q is not application/json", q.Header.Get("Content-Type"))
	}
	if charset := params["charset"]; charset != "" && charset != "UTF-8" && charset != "utf-8" {
		return nil, refuse(http.StatusUnsupportedMediaType, "the charset %q is not UTF-8", charset)
	}
	var in io.Reader = q.Body
	switch coding := q.Header.Get("Content-Encoding"); coding {
	case "":
	case "gzip":
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "Content-Encoding is gzip, and the body is not: %v", err)
		}
		in = z
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "the Content-Encoding %q is not gzip", coding)
	}
	raw, err := io.ReadAll(io.LimitReader(in, r.o.MaxBody+1))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "read the body: %v", err)
	}
	if int64(len(raw)) > r.o.MaxBody {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body holds more than %d bytes of JSON", r.o.MaxBody)
	}
	return raw, nil
}

// decode is strict: an unknown key, and what follows the value, are errors.
func decode(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse(http.StatusBadRequest, "the body is not what the contract says: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "the body goes on after its JSON")
	}
	return nil
}

// object is what every object must have.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		UID       string `json:"uid"`
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
}

// id is the UID; some aggregated APIs give none.
func (o object) id() string {
	if o.Metadata.UID != "" {
		return o.Metadata.UID
	}
	return strings.Join([]string{o.APIVersion, o.Kind, o.Metadata.Namespace, o.Metadata.Name}, "/")
}

func parseObject(raw json.RawMessage, n int) (object, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return o, refuse(http.StatusUnprocessableEntity, "object %d: %v", n, err)
	}
	for name, value := range map[string]string{
		"apiVersion": o.APIVersion, "kind": o.Kind, "metadata.name": o.Metadata.Name,
	} {
		if value == "" {
			return o, refuse(http.StatusUnprocessableEntity, "object %d has no %s", n, name)
		}
	}
	return o, nil
}

// page is what the headers say of a page.
type page struct {
	run    string
	number int // 0 without headers
	last   bool
	key    string
}

// parsePage wants all of the headers or none: a plain client of the contract
// objects has none.
func parsePage(q *http.Request) (page, error) {
	p := page{run: q.Header.Get("Metawire-Run"), key: q.Header.Get("Idempotency-Key")}
	number, last := q.Header.Get("Metawire-Page"), q.Header.Get("Metawire-Last")
	if p.run == "" && number == "" && last == "" {
		return p, nil
	}
	var err error
	if p.number, err = strconv.Atoi(number); err != nil || p.number < 1 {
		return p, refuse(http.StatusBadRequest, "the header Metawire-Page %q is not a number from 1", number)
	}
	if last != "true" && last != "false" {
		return p, refuse(http.StatusBadRequest, "the header Metawire-Last %q is neither true nor false", last)
	}
	p.last = last == "true"
	if p.run == "" || p.key == "" {
		return p, refuse(http.StatusBadRequest, "Metawire-Page without Metawire-Run and Idempotency-Key")
	}
	return p, nil
}

// objects takes a page of the contract objects.
func (r *Receiver) objects(q *http.Request) (answer, error) {
	if err := r.authorize(q); err != nil {
		return answer{}, err
	}
	p, err := parsePage(q)
	if err != nil {
		return answer{}, err
	}
	raw, err := r.body(q)
	if err != nil {
		return answer{}, err
	}
	var in struct {
		Objects []json.RawMessage `json:"objects"`
		Deleted []Gone            `json:"deleted"`
	}
	if err := decode(raw, &in); err != nil {
		return answer{}, err
	}
	if in.Objects == nil {
		return answer{}, refuse(http.StatusBadRequest, `the body has no "objects"`)
	}
	for n, g := range in.Deleted {
		if g.UID == "" || g.APIVersion == "" || g.Kind == "" || g.Name == "" {
			return answer{}, refuse(http.StatusUnprocessableEntity, "deleted %d lacks its uid, apiVersion, kind or name", n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.keep(p, raw, in.Objects, in.Deleted); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, nil
}

// keep takes in a page, if it is not one that came before. The caller holds the
// lock.
func (r *Receiver) keep(p page, raw []byte, objects []json.RawMessage, deleted []Gone) error {
	uids := make([]string, len(objects))
	for n, o := range objects {
		parsed, err := parseObject(o, n)
		if err != nil {
			return err
		}
		uids[n] = parsed.id()
	}
	again, err := r.seen(p.key, raw)
	if err != nil || again {
		return err
	}
	key := p.key
	if key == "" {
		key = fmt.Sprintf("#%d", len(r.kept.Pages)+1)
	}
	r.kept.Pages[key] = uids
	for n, uid := range uids {
		r.kept.Objects[uid] = objects[n]
		r.kept.Times[uid]++
		delete(r.kept.Deleted, uid)
	}
	for _, g := range deleted {
		delete(r.kept.Objects, g.UID)
		r.kept.Deleted[g.UID] = g
	}
	if p.run != "" {
		s := r.runs[p.run]
		if s == nil {
			s = &run{}
			r.runs[p.run] = s
		}
		s.Pages++
		if p.last {
			s.Last = p.number
		}
		// With the contract runs a PATCH does it.
		s.Closed = s.Closed || s.cluster == "" && s.Pages == s.Last
	}
	return nil
}

// seen says whether a body with this key was taken before, and remembers it. The
// caller holds the lock.
func (r *Receiver) seen(key string, raw []byte) (bool, error) {
	if key == "" {
		return false, nil
	}
	sum := sha256.Sum256(raw)
	before, ok := r.keys[key]
	if ok && before != sum {
		return false, refuse(http.StatusUnprocessableEntity, "the Idempotency-Key %q came before, with another body", key)
	}
	r.keys[key] = sum
	if ok {
		r.kept.Duplicates++
	}
	return ok, nil
}
