package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"helm.sh/helm/v3/pkg/action"
	helmregistry "helm.sh/helm/v3/pkg/registry"
	"helm.sh/helm/v3/pkg/repo"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

// chartFile is the name that Helm gives the packaged chart.
func (r *release) chartFile() string { return "metawire-" + r.version + ".tgz" }

// packageChart is helm package. Helm writes the time of packaging into the
// archive, so it is packed again.
func packageChart(ctx context.Context, r *release) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	p := action.NewPackage()
	p.Version, p.AppVersion, p.Destination = r.version, r.version, r.work
	packed, err := p.Run(filepath.Join(root, "charts", "metawire"), nil)
	if err != nil {
		return err
	}
	entries, err := readTar(packed)
	if err != nil {
		return err
	}
	return writeTar(r.file(r.chartFile()), r.epoch, entries)
}

// index is what helm repo add reads. The file with all releases is made from it
// and the last one's: helm repo index --merge.
func index(_ context.Context, r *release) error {
	i, err := repo.IndexDirectory(r.dir, r.url)
	if err != nil {
		return err
	}
	i.Generated = r.epoch
	for _, versions := range i.Entries {
		for _, v := range versions {
			v.Created = r.epoch
		}
	}
	return i.WriteFile(r.file("index.yaml"), 0o644)
}

// ociLayout is the artifact that helm push makes, with the same digest wherever
// it is pushed to: Helm pushes it to a registry here, from which it is copied.
func ociLayout(ctx context.Context, r *release) error {
	chart, err := os.ReadFile(r.file(r.chartFile()))
	if err != nil {
		return err
	}
	address, end, err := serveRegistry(ctx)
	if err != nil {
		return err
	}
	repository := address + "/metawire"
	err = pushChart(chart, repository+":"+r.version, r.epoch)
	layout := filepath.Join(r.work, "chart.oci")
	if err == nil {
		err = copyLayout(ctx, repository, r.version, layout)
	}
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	return tarDirectory(r.file(fmt.Sprintf("metawire-%s-chart.oci.tar", r.version)), r.epoch, layout)
}

// serveRegistry starts a registry on loopback, which end ends.
func serveRegistry(ctx context.Context) (address string, end func() error, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	return l.Addr().String(), func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

func pushChart(chart []byte, reference string, epoch time.Time) error {
	var said bytes.Buffer
	client, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(), helmregistry.ClientOptWriter(&said))
	if err != nil {
		return err
	}
	if _, err := client.Push(chart, reference, helmregistry.PushOptCreationTime(epoch.Format(time.RFC3339))); err != nil {
		return fmt.Errorf("helm push: %w: %s", err, said.Bytes())
	}
	return nil
}

func copyLayout(ctx context.Context, repository, tag, dir string) error {
	from, err := remote.NewRepository(repository)
	if err != nil {
		return err
	}
	from.PlainHTTP = true
	to, err := oci.New(dir)
	if err != nil {
		return err
	}
	_, err = oras.Copy(ctx, from, tag, to, tag, oras.DefaultCopyOptions)
	return err
}
