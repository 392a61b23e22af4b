package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// lock takes the lock on a file, which it makes. Closing the file, or the end
// of the process, frees it.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// Running returns the process that holds the cluster in dir, if one runs there.
func Running(dir string) (pid int, running bool) {
	path := filepath.Join(dir, "lock")
	if _, err := os.Stat(path); err != nil {
		return 0, false
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	f, err := lock(path)
	if err == nil {
		return 0, f.Close() != nil
	}
	pid, err = strconv.Atoi(string(content))
	return pid, err == nil
}

// waitLock is lock, but blocks until the lock is free or ctx ends; it calls
// busy once if it has to wait.
func waitLock(ctx context.Context, path string, busy func()) (f *os.File, err error) {
	f, err = lock(path)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return f, err
	}
	busy()
	err = poll(ctx, nil, func(context.Context) error {
		f, err = lock(path)
		return err
	})
	return f, err
}
