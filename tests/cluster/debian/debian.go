// Package debian installs the Debian packages that a make target lacks.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// policyFile is what Debian's packages ask before they start a service.
const policyFile = "/usr/sbin/policy-rc.d"

// Install installs the packages of those commands that are not there, and says
// so to log in one line. commands maps a command's name or path to its Debian
// packages, separated by spaces. No service of a package is started. It needs root and apt-get; the
// error names what is missing when it has them not.
func Install(ctx context.Context, log io.Writer, commands map[string]string) error {
	missing := missing(commands)
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install these yourself, there is no apt-get here: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("not root; run: sudo apt-get install --no-install-recommends %s", list)
	}
	fmt.Fprintf(log, "installing Debian packages: %s\n", list)
	allow, err := forbidServices()
	if err != nil {
		return err
	}
	defer allow()
	install := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)
	if first := apt(ctx, install...); first != nil {
		// The usual reason is a package list that is old or not there.
		if err := apt(ctx, "update", "-qq"); err != nil {
			return errors.Join(first, err)
		}
		if err := apt(ctx, install...); err != nil {
			return err
		}
	}
	if missing := missingCommands(commands); len(missing) > 0 {
		return fmt.Errorf("installed %s, but there is still no %s", list, strings.Join(missing, ", "))
	}
	return nil
}

func missingCommands(commands map[string]string) (missing []string) {
	for command := range commands {
		if _, err := exec.LookPath(command); err != nil {
			missing = append(missing, command)
		}
	}
	return missing
}

// missing returns the packages of the commands that are not there, sorted.
func missing(commands map[string]string) []string {
	packages := map[string]bool{}
	for _, command := range missingCommands(commands) {
		for p := range strings.FieldsSeq(commands[command]) {
			packages[p] = true
		}
	}
	return slices.Sorted(maps.Keys(packages))
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// forbidServices keeps packages from starting their services until allow is
// called: the cluster runs its own containerd. A policy that is there stays.
func forbidServices() (allow func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n") // 101: forbidden by policy
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(policyFile))
	}
	return func() { _ = os.Remove(policyFile) }, nil
}
