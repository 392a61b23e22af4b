package inventory

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrSpoolFull is of a page that has no room on disk.
var ErrSpoolFull = errors.New("the spool is full")

// errCorrupt is of a file that does not hold what was written.
var errCorrupt = errors.New("it is corrupt")

// spoolSuffix ends the names of pages: <order>-<key>.page, so that their order
// is that of their names.
const spoolSuffix = ".page"

// Spool keeps pages on disk that could not be delivered, in their order, one
// file a page. It survives restarts; two processes must not share a directory.
// Any goroutine may use it.
type Spool struct {
	dir   string
	limit int64

	mu    sync.Mutex
	files []spooled // oldest first
	next  int
	size  int64
}

type spooled struct {
	name string
	size int64
}

// spooledPage is the first line of a file; the body follows.
type spooledPage struct {
	Run     string `json:"run"`
	Number  int    `json:"number"`
	Last    bool   `json:"last"`
	Key     string `json:"key"`
	Path    string `json:"path"`
	Gzip    bool   `json:"gzip"`
	Objects int    `json:"objects"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"` // of the body
}

// OpenSpool opens the spool in a directory, which is made if it is missing, and
// finds what is in it. It takes maxBytes of files, default 64 MiB.
func OpenSpool(dir string, maxBytes int64) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool: %w", err)
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	s := &Spool{dir: dir, limit: cmp.Or(maxBytes, 64<<20)}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") { // of a write that was cut off
			_ = os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		var order int
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(e.Name(), spoolSuffix) {
			continue
		}
		if _, err := fmt.Sscanf(e.Name(), "%d-", &order); err != nil {
			continue
		}
		s.files = append(s.files, spooled{name: e.Name(), size: info.Size()})
		s.size += info.Size()
		s.next = max(s.next, order)
	}
	return s, nil
}

// Waiting is how many pages wait, and their size on disk in bytes.
func (s *Spool) Waiting() (pages int, size int64) {
	if s == nil {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files), s.size
}

// put keeps a page behind all others: it is whole on disk when put returns.
func (s *Spool) put(p Page) error {
	content, err := formatSpooled(p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+int64(len(content)) > s.limit {
		return fmt.Errorf("keep page %q: %w: %d of %d bytes are taken by %d pages", p.Key, ErrSpoolFull, s.size, s.limit, len(s.files))
	}
	name := fmt.Sprintf("%010d-%s%s", s.next+1, fileSafe(p.Key), spoolSuffix)
	if err := writeWhole(s.dir, name, content); err != nil {
		return fmt.Errorf("keep page %q: %w", p.Key, err)
	}
	s.next++
	s.files = append(s.files, spooled{name: name, size: int64(len(content))})
	s.size += int64(len(content))
	return nil
}

// first reads the oldest page, and says which file it is; an empty name is that
// there is none. errCorrupt is of a file that will never be read, any other
// error may pass.
func (s *Spool) first() (Page, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return Page{}, "", nil
	}
	name := s.files[0].name
	content, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Page{}, name, err
	}
	p, err := parseSpooled(content)
	if err != nil {
		return Page{}, name, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return p, name, nil
}

// remove forgets the file, which is the oldest.
func (s *Spool) remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %q from the spool: %w", name, err)
	}
	if len(s.files) > 0 && s.files[0].name == name {
		s.size -= s.files[0].size
		s.files = s.files[1:]
	}
	return nil
}

// unfinish lets no page of the run that waits say that it is the last: one
// before it was lost.
func (s *Spool) unfinish(run string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, f := range s.files {
		if runOf(f.name) != run {
			continue
		}
		content, err := os.ReadFile(filepath.Join(s.dir, f.name))
		if err != nil {
			return err
		}
		p, err := parseSpooled(content)
		if err != nil || !p.Last {
			continue // what is corrupt is found in its turn
		}
		p.Last = false
		if content, err = formatSpooled(p); err != nil {
			return err
		}
		if err := writeWhole(s.dir, f.name, content); err != nil {
			return err
		}
		s.size += int64(len(content)) - f.size
		s.files[n].size = int64(len(content))
	}
	return nil
}

func formatSpooled(p Page) ([]byte, error) {
	sum := sha256.Sum256(p.Body)
	head, err := json.Marshal(spooledPage{
		Run: p.Run, Number: p.Number, Last: p.Last, Key: p.Key, Path: p.Path, Gzip: p.Gzip,
		Objects: p.Objects, Bytes: p.Bytes, SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return nil, fmt.Errorf("encode page %q: %w", p.Key, err)
	}
	return slices.Concat(head, []byte("\n"), p.Body), nil
}

func parseSpooled(content []byte) (Page, error) {
	head, body, ok := bytes.Cut(content, []byte("\n"))
	if !ok {
		return Page{}, errors.New("it ends within its first line")
	}
	var in spooledPage
	d := json.NewDecoder(bytes.NewReader(head))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return Page{}, fmt.Errorf("its first line: %w", err)
	}
	if sum := sha256.Sum256(body); in.SHA256 != hex.EncodeToString(sum[:]) {
		return Page{}, errors.New("its body is not what was written")
	}
	if in.Key == "" || in.Run == "" || in.Number < 1 {
		return Page{}, errors.New("it names no page")
	}
	return Page{
		Run: in.Run, Number: in.Number, Last: in.Last, Key: in.Key, Path: in.Path, Body: body, Gzip: in.Gzip,
		Objects: in.Objects, Bytes: in.Bytes,
	}, nil
}

// runOf is the run whose page a file holds, by its name.
func runOf(name string) string {
	_, key, _ := strings.Cut(strings.TrimSuffix(name, spoolSuffix), "-")
	run, _, _ := strings.Cut(key, "-")
	return run
}

func fileSafe(key string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, key)
}

// writeWhole writes a file that is there whole or not at all, even if the power
// goes.
func writeWhole(dir, name string, content []byte) (err error) {
	f, err := os.CreateTemp(dir, ".new-*") // for this user alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
