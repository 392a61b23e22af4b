package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroupPatience is how long the kernel may take to let go of a cgroup whose
// processes were killed.
const cgroupPatience = 5 * time.Second

// cgroupMounts returns where the hierarchies are mounted: one for each
// controller of version 1, and the one of version 2.
func cgroupMounts() ([]string, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			mounts = append(mounts, f[1])
		}
	}
	return mounts, nil
}

// cgroupsUp makes a cgroup in every hierarchy: kubelet wants its root to be there.
func cgroupsUp(name string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		dir := filepath.Join(m, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// Version 2 hands on only the controllers that are switched on.
		if _, err := os.Stat(filepath.Join(m, "cgroup.controllers")); err == nil {
			if err := delegate(m, dir); err != nil {
				return err
			}
		}
		// An empty cpuset takes no process.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(m, f))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, f), value, 0o644)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate switches the controllers of a version 2 hierarchy on in dirs.
func delegate(dirs ...string) error {
	for _, dir := range dirs {
		controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for c := range strings.FieldsSeq(string(controllers)) {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
				return fmt.Errorf("switch cgroup controller %s on: %w", c, err)
			}
		}
	}
	return nil
}

// cgroupsDown removes a cgroup and all below it from every hierarchy.
func cgroupsDown(name string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	deadline := time.After(cgroupPatience)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for _, m := range mounts {
		root := filepath.Join(m, name)
		for err := removeTree(root); err != nil; err = removeTree(root) {
			select {
			case <-tick.C:
			case <-deadline:
				return fmt.Errorf("remove cgroup %s: %w", root, err)
			}
		}
	}
	return nil
}

// removeTree removes directories bottom-up; the files of a cgroup go with it.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) {
		if e := syscall.Rmdir(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
