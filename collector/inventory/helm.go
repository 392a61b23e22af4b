package inventory

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/client-go/rest"
)

// helmLabel selects the Secrets in which Helm keeps its releases, without the
// revisions that another has taken the place of.
const helmLabel = "owner=helm,status!=superseded"

// maxRelease bounds a release that is unpacked.
const maxRelease = 64 << 20

// HelmRelease is what is told of a release of Helm.
type HelmRelease struct {
	Name         string `json:"name"`
	Namespace    string `json:"namespace"`
	Revision     int    `json:"revision"`
	Status       string `json:"status"`
	Chart        string `json:"chart"`
	ChartVersion string `json:"chartVersion"`
	AppVersion   string `json:"appVersion,omitempty"`
	Updated      string `json:"updated,omitempty"` // RFC 3339
	Values       any    `json:"values,omitempty"`  // redacted
}

// helmReleases is the type that releases are told as, where the contract has no
// place of its own for them.
func helmReleases() Type {
	return Type{Name: "helmreleases.metawire.dev", Group: "metawire.dev", Version: "v1alpha1", Resource: "helmreleases", Kind: "HelmRelease", Namespaced: true}
}

// releases hands over Helm's releases.
func (r *run) releases(ctx context.Context, t Type, tr *TypeReport) error {
	var broken []error
	err := r.lister.releases(ctx, r.options.Redaction, func(id Identity, release *HelmRelease, err error) error {
		if err != nil {
			broken = append(broken, err)
			return nil
		}
		id.APIVersion, id.Kind = t.APIVersion(), t.Kind
		return r.object(ctx, t, tr, id, func() any {
			return map[string]any{
				"apiVersion": id.APIVersion, "kind": id.Kind, "release": release,
				"metadata": map[string]any{"name": id.Name, "namespace": id.Namespace, "uid": id.UID, "resourceVersion": id.ResourceVersion},
			}
		})
	})
	if err == nil {
		r.report.Releases = tr.Listed
	}
	return errors.Join(append(broken, err)...)
}

// HelmReleases returns Helm's releases as JSON, for the contract that asks for
// them apart. One that cannot be decoded is told in the error, beside the others.
func HelmReleases(ctx context.Context, api *rest.Config, redaction *Redactor) (releases []json.RawMessage, err error) {
	l, err := newLister(api, defaultLimit)
	if err != nil {
		return nil, err
	}
	var broken []error
	err = l.releases(ctx, redaction, func(_ Identity, release *HelmRelease, err error) error {
		if err != nil {
			broken = append(broken, err)
			return nil
		}
		b, err := json.Marshal(release)
		if err == nil {
			releases = append(releases, b)
		}
		return err
	})
	return releases, errors.Join(append(broken, err)...)
}

// releases calls take with every release in the Secrets that may be listed, one
// decoded at a time, or with why it cannot be decoded.
func (l *lister) releases(ctx context.Context, redaction *Redactor, take func(Identity, *HelmRelease, error) error) error {
	few := *l
	few.limit = max(1, l.limit/10) // a release has up to 1 MiB
	secrets := Type{Name: "secrets", Version: "v1", Resource: "secrets", Kind: "Secret", Namespaced: true}
	err := few.each(ctx, secrets, map[string]string{"labelSelector": helmLabel}, func(o map[string]any) error {
		if text(o, "type") != "helm.sh/release.v1" {
			return nil
		}
		id := Identity{
			UID: text(o, "metadata", "uid"), Namespace: text(o, "metadata", "namespace"), Name: text(o, "metadata", "name"),
			ResourceVersion: text(o, "metadata", "resourceVersion"),
		}
		release, err := decodeRelease(text(o, "data", "release"))
		if err != nil {
			return take(id, nil, fmt.Errorf("release in Secret %s/%s: %w", id.Namespace, id.Name, err))
		}
		if redaction != nil {
			release.Values = redaction.of(id.UID).values("", release.Values)
		}
		return take(id, release, nil)
	})
	if err != nil {
		return fmt.Errorf("list Helm's releases: %w", err)
	}
	return nil
}

// decodeRelease reads what a Secret holds: JSON in gzip in base64, as Helm writes
// it, and base64 once more, as the API writes Secrets.
func decodeRelease(data string) (*HelmRelease, error) {
	inner, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	packed, err := base64.StdEncoding.DecodeString(string(inner))
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	var plain io.Reader = bytes.NewReader(packed)
	if bytes.HasPrefix(packed, []byte{0x1f, 0x8b}) {
		if plain, err = gzip.NewReader(plain); err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
	}
	var in struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Version   int    `json:"version"`
		Info      struct {
			Status   string `json:"status"`
			Deployed string `json:"last_deployed"`
		} `json:"info"`
		Chart struct {
			Metadata struct {
				Name       string `json:"name"`
				Version    string `json:"version"`
				AppVersion string `json:"appVersion"`
			} `json:"metadata"`
		} `json:"chart"`
		Config map[string]any `json:"config"`
	}
	d := json.NewDecoder(io.LimitReader(plain, maxRelease))
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	m := in.Chart.Metadata
	out := &HelmRelease{
		Name: in.Name, Namespace: in.Namespace, Revision: in.Version, Status: in.Info.Status, Updated: in.Info.Deployed,
		Chart: m.Name, ChartVersion: m.Version, AppVersion: m.AppVersion,
	}
	if len(in.Config) > 0 {
		out.Values = in.Config
	}
	return out, nil
}
