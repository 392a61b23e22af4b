// Command release makes all files of a release into one directory: the command
// line for each platform, the image, the chart in each form that it is installed
// from, plain manifests, bills of materials, and the checksums of all of it. It
// publishes nothing. The same commit gives the same bytes, wherever and whenever
// it is run with the same Go.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// release is what the files are made of and for.
type release struct {
	version string    // without a v
	epoch   time.Time // of everything that has a time: the commit's
	url     string    // where the files of this release will be, for the chart's repository
	sbom    string    // cyclonedx-gomod
	dir     string    // where finished files go
	work    string    // where others may
	out     io.Writer // for people
}

// step makes some of the files.
type step struct {
	name string
	make func(context.Context, *release) error
}

// programs are the steps that compile, which takes minutes; the others take
// seconds.
func programs() []step {
	return []step{
		{"command line", commandLine},
		{"image", images},
		{"bills of materials", boms},
	}
}

func texts() []step {
	return []step{
		{"chart", packageChart},
		{"repository of charts", index},
		{"chart as an OCI layout", ociLayout},
		{"manifests", manifests},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	r := &release{out: out}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "`x.y.z`, which must be the chart's; empty: the chart's")
	draft := flags.Bool("draft", false, "build what is not committed too")
	target := flags.String("o", "bin/release", "`directory`, which is replaced")
	flags.StringVar(&r.sbom, "cyclonedx-gomod", "cyclonedx-gomod", "`program` that makes bills of materials")
	flags.StringVar(&r.url, "url", "", "`URL` of the directory that the files will be in; empty: that of the project's releases")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if r.version, err = versionOf(*version); err != nil {
		return err
	}
	if r.epoch, err = commitTime(ctx, *draft); err != nil {
		return err
	}
	r.url = cmp.Or(r.url, "https://github.com/metawire/metawire/releases/download/v"+r.version)
	noteChangelog(r.version, out)
	return r.replace(ctx, *target, append(texts(), programs()...))
}

// replace makes the files beside the target, which they replace when all went
// well.
func (r *release) replace(ctx context.Context, target string, steps []step) error {
	target, err := filepath.Abs(target)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), ".release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := r.makeIn(ctx, tmp, steps); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if err := os.Rename(r.dir, target); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "Metawire %s is in %s\n", r.version, target)
	return nil
}

// makeIn runs the steps; what they make is in r.dir afterwards, with its
// checksums.
func (r *release) makeIn(ctx context.Context, tmp string, steps []step) error {
	r.dir, r.work = filepath.Join(tmp, "files"), filepath.Join(tmp, "work")
	for _, dir := range []string{r.dir, r.work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, s := range append(steps, step{"checksums", checksums}) {
		began := time.Now()
		if err := s.make(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(r.out, "%-24s %5.1f s\n", s.name, time.Since(began).Seconds())
	}
	return nil
}

// file is the path of a finished file.
func (r *release) file(name string) string { return filepath.Join(r.dir, name) }
