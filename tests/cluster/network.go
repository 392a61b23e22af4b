package cluster

import "fmt"

// maxSubnet is the highest Options.Subnet.
const maxSubnet = 15

// network is the address plan of a cluster.
type network struct {
	Pods         string // of all nodes
	NodePods     string // of the one real node: the first /24 of Pods
	Services     string
	Services6    string // of IPv6, where a Service may be of both families
	KubernetesIP string // the first Service address
	DNSIP        string
	HostIP       string // host end of the veth
	NodeIP       string // its other end
}

// newNetwork lays out subnet n. The ranges are ones that neither Docker nor
// kind, minikube and the clouds use by default.
func newNetwork(n int) network {
	pods, services := fmt.Sprintf("10.%d", 192+2*n), fmt.Sprintf("10.%d", 193+2*n)
	return network{
		Pods: pods + ".0.0/16", NodePods: pods + ".0.0/24",
		Services: services + ".0.0/16", Services6: fmt.Sprintf("fd00:%x::/112", 193+2*n), KubernetesIP: services + ".0.1", DNSIP: services + ".0.10",
		HostIP: fmt.Sprintf("10.224.0.%d", 4*n+1), NodeIP: fmt.Sprintf("10.224.0.%d", 4*n+2),
	}
}
