package cluster

import (
	"fmt"
	"net"
	"syscall"
)

// dieWithParent adds to a that the process is killed when the thread that
// starts it ends, and that a ctrl-C on the terminal is not for it.
func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		a = &syscall.SysProcAttr{}
	}
	a.Pdeathsig, a.Setpgid = syscall.SIGKILL, true
	return a
}

// claim takes a name for this process until release, or its end, frees it. An
// abstract socket is a lock that leaves no file.
func claim(name string) (release func(), err error) {
	l, err := net.Listen("unix", "@metawire-cluster-"+name)
	if err != nil {
		return nil, fmt.Errorf("%s is taken by another cluster", name)
	}
	return func() { _ = l.Close() }, nil
}
