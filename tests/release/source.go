package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	ours "github.com/metawire/metawire/migrate/release"
)

// versionOf returns the version to release. The chart has it, since the command
// line carries the chart: another one that is asked for is an error.
func versionOf(asked string) (string, error) {
	chart, err := ours.Chart()
	if err != nil {
		return "", err
	}
	m := chart.Metadata
	if m.Version != m.AppVersion {
		return "", fmt.Errorf("charts/metawire/Chart.yaml: version %q and appVersion %q: want the same", m.Version, m.AppVersion)
	}
	if asked != "" && strings.TrimPrefix(asked, "v") != m.Version {
		return "", fmt.Errorf("version %q is asked for, and charts/metawire/Chart.yaml says %q: write version and appVersion there, make generate, commit", asked, m.Version)
	}
	return m.Version, nil
}

// commitTime returns when the commit was made, which is the time of all that is
// built from it. What is not committed is an error, but for a draft.
func commitTime(ctx context.Context, draft bool) (time.Time, error) {
	changed, err := output(ctx, "git", "status", "--porcelain")
	if err != nil {
		return time.Time{}, err
	}
	if changed != "" && !draft {
		return time.Time{}, fmt.Errorf("there are changes that are not committed; DRAFT=1 builds with them:\n%s", changed)
	}
	seconds, err := output(ctx, "git", "log", "-1", "--format=%ct")
	if err != nil {
		return time.Time{}, err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("time of the commit: %w", err)
	}
	return time.Unix(unix, 0).UTC(), nil
}

// noteChangelog says what whoever releases may have forgotten.
func noteChangelog(version string, out io.Writer) {
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil || !bytes.Contains(changelog, []byte("\n## ["+version+"]")) {
		fmt.Fprintf(out, "note: CHANGELOG.md has no section [%s]\n", version)
	}
}

// output runs a command and returns what it writes, without white space around.
func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputOf(exec.CommandContext(ctx, name, args...))
}

func outputOf(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
