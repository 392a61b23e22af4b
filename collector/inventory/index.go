package inventory

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/klauspost/compress/gzip"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The ledger is cut by the objects' UIDs into shards, one a ConfigMap, which the
// API server takes up to 1 MiB of. Roles of the chart name as many ConfigMaps as
// there can be shards.
const (
	maxShards    = 32
	maxShardSize = 900 << 10 // bytes, compressed
	// usualShard is how many objects are expected to fit well: some 40 bytes each.
	usualShard = 15_000
	// maxPlain bounds what is unpacked.
	maxPlain = 64 << 20
	shardKey = "index.json.gz"
)

// shard is a shard's JSON.
type shard struct {
	Format     int         `json:"format"`
	Generation string      `json:"generation"` // all shards of a ledger have the same
	Shard      int         `json:"shard"`
	Shards     int         `json:"shards"`
	Basis      string      `json:"basis"`
	Runs       int         `json:"runs"`
	Types      []shardType `json:"types"`
}

type shardType struct {
	Name       string      `json:"name"`
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Objects    [][4]string `json:"objects"` // UID, namespace, name, resourceVersion
}

const shardFormat = 1

func (l *Ledger) shardName(i int) string { return l.state.Index + "-" + strconv.Itoa(i) }

// read returns what is kept, or why that is nothing to go by.
func (l *Ledger) read(ctx context.Context) (saved, error) {
	s := saved{types: map[string]*known{}}
	var first shard
	for i, n := 0, 1; i < n; i++ {
		part, err := l.readShard(ctx, i)
		if err != nil {
			return s, err
		}
		if i == 0 {
			first, n, s.generation = *part, part.Shards, part.Generation
		}
		switch {
		case part.Format != shardFormat:
			return s, fmt.Errorf("ConfigMap %s has the format %d, not %d", l.shardName(i), part.Format, shardFormat)
		case part.Basis != l.options.Basis:
			return s, errors.New("it is of another configuration")
		case part.Generation != first.Generation || part.Shards != n || part.Shard != i || n > maxShards:
			return s, fmt.Errorf("ConfigMap %s does not belong to the others", l.shardName(i))
		}
		s.add(part)
	}
	s.runs = first.Runs
	return s, nil
}

func (l *Ledger) readShard(ctx context.Context, i int) (*shard, error) {
	c, err := l.state.get(ctx, l.shardName(i))
	if err != nil {
		return nil, err
	}
	packed, ok := c.BinaryData[shardKey]
	if !ok {
		return nil, fmt.Errorf("there is no %s in a ConfigMap %s/%s", shardKey, l.state.Namespace, l.shardName(i))
	}
	part := &shard{}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		// Whole, since only then the checksum is compared.
		var plain []byte
		if plain, err = io.ReadAll(io.LimitReader(unpacked, maxPlain)); err == nil {
			err = json.Unmarshal(plain, part)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %w", l.state.Namespace, l.shardName(i), err)
	}
	return part, nil
}

func (s *saved) add(part *shard) {
	for _, t := range part.Types {
		k := s.types[t.Name]
		if k == nil {
			k = &known{apiVersion: t.APIVersion, kind: t.Kind, objects: make(map[string]*entry, len(t.Objects)*part.Shards)}
			s.types[t.Name] = k
		}
		namespace := "" // many share one: they share its bytes too
		for _, o := range t.Objects {
			if o[1] != namespace {
				namespace = o[1]
			}
			k.objects[o[0]] = &entry{namespace: namespace, name: o[2], version: o[3]}
		}
	}
}

// write keeps the ledger. When it fails in between, what it leaves is of two
// generations, which is as good as lost.
func (l *Ledger) write(ctx context.Context) error {
	if first, err := l.readShard(ctx, 0); err == nil && first.Generation != l.generation {
		return errors.New("another replica has written the index since this run began")
	}
	parts, err := l.encode()
	if err != nil {
		return err
	}
	for i, part := range parts {
		if err := l.state.put(ctx, l.shardName(i), contents{BinaryData: map[string][]byte{shardKey: part}}); err != nil {
			return err
		}
	}
	for i := len(parts); i < maxShards; i++ {
		err := l.state.API.CoreV1().ConfigMaps(l.state.Namespace).Delete(ctx, l.shardName(i), metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			break // they were made in order
		}
		if err != nil {
			return fmt.Errorf("delete ConfigMap %s/%s: %w", l.state.Namespace, l.shardName(i), err)
		}
	}
	return nil
}

// encode returns the shards, as few as are small enough.
func (l *Ledger) encode() ([][]byte, error) {
	objects := 0
	for _, k := range l.types {
		objects += len(k.objects)
	}
	for n := min(objects/usualShard+1, maxShards); ; n = min(2*n, maxShards) {
		parts, err := l.cut(n)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(parts, func(p []byte) bool { return len(p) > maxShardSize }) {
			return parts, nil
		}
		if n == maxShards {
			return nil, fmt.Errorf("%d objects are more than the index of what was sent can hold", objects)
		}
	}
}

func (l *Ledger) cut(n int) ([][]byte, error) {
	generation, parts := rand.Text(), make([]shard, n)
	for i := range parts {
		parts[i] = shard{Format: shardFormat, Generation: generation, Shard: i, Shards: n, Basis: l.options.Basis, Runs: l.runs}
	}
	for _, name := range slices.Sorted(maps.Keys(l.types)) {
		k := l.types[name]
		rows := make([][][4]string, n)
		for uid, e := range k.objects {
			h := fnv.New32a()
			_, _ = h.Write([]byte(uid)) // never fails
			i := h.Sum32() % uint32(n)
			rows[i] = append(rows[i], [4]string{uid, e.namespace, e.name, e.version})
		}
		for i := range parts {
			if len(rows[i]) == 0 {
				continue
			}
			// Names that are like each other pack well next to each other.
			slices.SortFunc(rows[i], func(a, b [4]string) int { return slices.Compare(a[1:3], b[1:3]) })
			parts[i].Types = append(parts[i].Types, shardType{Name: name, APIVersion: k.apiVersion, Kind: k.kind, Objects: rows[i]})
		}
	}
	packed := make([][]byte, n)
	for i := range parts {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if err := json.NewEncoder(w).Encode(&parts[i]); err != nil {
			return nil, fmt.Errorf("encode the index: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("pack the index: %w", err)
		}
		packed[i] = b.Bytes()
	}
	return packed, nil
}
