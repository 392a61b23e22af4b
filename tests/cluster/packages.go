package cluster

// Packages returns the commands that size Node needs, each with the Debian
// package that has it.
func Packages() map[string]string {
	return map[string]string{
		"containerd":       "containerd",
		"runc":             "runc",
		"iptables":         "iptables",
		"ip":               "iproute2",
		"conntrack":        "conntrack",
		"/usr/lib/cni/ptp": "containernetworking-plugins",
	}
}
