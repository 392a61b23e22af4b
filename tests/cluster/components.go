package cluster

import (
	"fmt"
	"path/filepath"
	"strconv"
)

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	kubelet           = "kubelet"
	kubeProxy         = "kube-proxy"

	// nodeName is the one node of size Node.
	nodeName = "node1"
	// apiRate lifts the client limits of the controllers, with which 1,000
	// pods take most of a minute to be made.
	apiRate = 1000
)

// plan is all that the command lines of the components depend on. Pid 1 of a
// node gets it as JSON.
type plan struct {
	Dir           string
	Bin           string
	Size          Size
	Controllers   bool
	Address       string // of the API server
	APIPort       int
	EtcdPort      int
	PeerPort      int
	ManagerPort   int // of the controller manager
	SchedulerPort int
	Name          string
	Net           network
}

// component is a command of the cluster: its name and its arguments.
type component struct {
	name string
	args []string
}

func (p plan) apiURL() string   { return fmt.Sprintf("https://%s:%d", p.Address, p.APIPort) }
func (p plan) etcdURL() string  { return fmt.Sprintf("http://127.0.0.1:%d", p.EtcdPort) }
func (p plan) auditLog() string { return filepath.Join(p.Dir, "logs", "audit.log") }

// path returns the path of a file of the cluster.
func (p plan) path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

func (p plan) etcd() component {
	peer := fmt.Sprintf("http://127.0.0.1:%d", p.PeerPort)
	return component{etcd, []string{
		"--data-dir=" + p.path("etcd"),
		"--listen-client-urls=" + p.etcdURL(), "--advertise-client-urls=" + p.etcdURL(),
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--unsafe-no-fsync", // its data outlives a killed process, and no machine
		"--log-level=warn",
	}}
}

func (p plan) apiServer() component {
	services := p.Net.Services
	if p.Size == ControlPlane { // no node that must know of it
		services += "," + p.Net.Services6
	}
	args := []string{
		"--etcd-servers=" + p.etcdURL(),
		"--advertise-address=" + p.Address, "--secure-port=" + strconv.Itoa(p.APIPort),
		"--tls-cert-file=" + p.path("pki", "apiserver.crt"),
		"--tls-private-key-file=" + p.path("pki", "apiserver.key"),
		"--client-ca-file=" + p.path("pki", "ca.crt"),
		"--service-account-key-file=" + p.path("pki", "sa.crt"),
		"--service-account-signing-key-file=" + p.path("pki", "sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range=" + services,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--requestheader-client-ca-file=" + p.path("pki", "ca.crt"),
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.path("pki", "front-proxy.crt"),
		"--proxy-client-key-file=" + p.path("pki", "front-proxy.key"),
		"--audit-policy-file=" + p.path("audit.yaml"),
		"--audit-log-path=" + p.auditLog(),
		// A test that asks for much is the only client there is.
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=0", "--max-mutating-requests-inflight=0",
	}
	if p.Size == Node {
		return component{apiServer, append(args,
			"--bind-address=0.0.0.0",
			"--endpoint-reconciler-type=lease",
			"--kubelet-client-certificate="+p.path("pki", "admin.crt"),
			"--kubelet-client-key="+p.path("pki", "admin.key"),
			"--kubelet-preferred-address-types=InternalIP")}
	}
	// A loopback address is refused as an endpoint of Service kubernetes.
	args = append(args, "--bind-address="+p.Address, "--endpoint-reconciler-type=none")
	if !p.Controllers {
		// Nobody makes the ServiceAccounts that it would look for.
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	return component{apiServer, args}
}

func (p plan) controllerManager() component {
	args := []string{
		"--kubeconfig=" + p.path("kcm.kubeconfig"),
		"--service-account-private-key-file=" + p.path("pki", "sa.key"),
		"--root-ca-file=" + p.path("pki", "ca.crt"),
		"--cluster-signing-cert-file=" + p.path("pki", "ca.crt"),
		"--cluster-signing-key-file=" + p.path("pki", "ca.key"),
		"--use-service-account-credentials=true",
		"--leader-elect=false", "--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.ManagerPort),
		"--tls-cert-file=" + p.path("pki", "apiserver.crt"),
		"--tls-private-key-file=" + p.path("pki", "apiserver.key"),
		fmt.Sprintf("--kube-api-qps=%d", apiRate), fmt.Sprintf("--kube-api-burst=%d", 2*apiRate),
		"--flex-volume-plugin-dir=" + p.path("run"), // the default is made, below /usr
		"--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20",
	}
	if p.Size == Node {
		args = append(args, "--allocate-node-cidrs=true", "--cluster-cidr="+p.Net.Pods,
			"--node-cidr-mask-size=24")
	}
	return component{controllerManager, args}
}

func (p plan) scheduler() component {
	return component{scheduler, []string{
		"--kubeconfig=" + p.path("scheduler.kubeconfig"),
		"--leader-elect=false", "--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.SchedulerPort),
		"--tls-cert-file=" + p.path("pki", "apiserver.crt"),
		"--tls-private-key-file=" + p.path("pki", "apiserver.key"),
		fmt.Sprintf("--kube-api-qps=%d", apiRate), fmt.Sprintf("--kube-api-burst=%d", 2*apiRate),
	}}
}

func (p plan) kubelet() component {
	return component{kubelet, []string{
		"--config=" + p.path("kubelet.yaml"), "--kubeconfig=" + p.path("kubelet.kubeconfig"),
		"--hostname-override=" + nodeName, "--node-ip=" + p.Net.NodeIP,
	}}
}

func (p plan) kubeProxy() component {
	return component{kubeProxy, []string{"--config=" + p.path("proxy.yaml")}}
}

// auditPolicy records lists and watches without their bodies: what a client
// asks of the API server, per user.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [list, watch]}
- {level: None}
`
