//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

func dieWithParent() *syscall.SysProcAttr { return nil }

func cpuTime(int) (time.Duration, error) { return 0, errNoProc }

func residentMemory(int) (now, peak int64, err error) { return 0, 0, errNoProc }

var errNoProc = errors.New("the CPU time and memory of processes are read from /proc: run this on Linux")
