package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below the range from which systems pick the local ports of
// outgoing connections, so that a component that restarts finds its port free.
const (
	firstPort = 20000
	lastPort  = 31999
)

// claimPorts returns n free loopback ports, claimed against other clusters.
func claimPorts(n int) (ports []int, release func(), err error) {
	var releases []func()
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	for try := 0; len(ports) < n && try < lastPort-firstPort; try++ {
		port := firstPort + rand.N(lastPort-firstPort+1)
		r, err := claim("port-" + strconv.Itoa(port))
		if err != nil {
			continue
		}
		if err := portFree(port); err != nil {
			r()
			continue
		}
		ports, releases = append(ports, port), append(releases, r)
	}
	if len(ports) < n {
		release()
		return nil, nil, fmt.Errorf("no %d free ports in %d-%d", n, firstPort, lastPort)
	}
	return ports, release, nil
}

// portFree tells whether a component can listen on a loopback port.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
