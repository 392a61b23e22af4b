package report

import (
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/metawire/metawire/internal/wiring"
)

// Stream is one that is open at this replica, of whoever is no person.
type Stream struct {
	Node string
	Pod  string // UID, empty if it is not known whose it is
	// NoTicket says that no ticket authorized it, though somebody asked for one:
	// it is none of a pod that has one.
	NoTicket bool
}

// connected counts the wired pods that are subscribed here when it is scraped:
// streams come and go without a change of a pod.
type connected struct {
	pods    *prometheus.Desc
	streams func() []Stream // nil: there are none

	mu    sync.Mutex
	wired []wiredPod
}

type wiredPod struct {
	uid, node string
	state     wiring.State
	ticket    bool
}

// wiredStates are those in which a pod should subscribe.
func wiredStates() []wiring.State { return []wiring.State{wiring.StateWired, wiring.StateNoTicket} }

func newConnected() *connected {
	return &connected{pods: prometheus.NewDesc("metawire_falco_pods_connected",
		"Falco pods that are wired and subscribed at this replica, by state: wired, wired_without_ticket. The sum over replicas is how many of metawire_falco_pods are connected.",
		[]string{"state"}, nil)}
}

// set takes the pods over. Which of them a stream is counted for must not depend on
// their order: those with a ticket come first, for they are the ones that subscribe.
func (c *connected) set(pods []wiredPod) {
	slices.SortFunc(pods, func(a, b wiredPod) int {
		if a.ticket != b.ticket {
			if a.ticket {
				return -1
			}
			return 1
		}
		return strings.Compare(a.uid, b.uid)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wired = pods
}

// Describe implements prometheus.Collector.
func (c *connected) Describe(descs chan<- *prometheus.Desc) { descs <- c.pods }

// Collect implements prometheus.Collector.
func (c *connected) Collect(out chan<- prometheus.Metric) {
	counts := c.count()
	for _, s := range wiredStates() {
		out <- prometheus.MustNewConstMetric(c.pods, prometheus.GaugeValue, float64(counts[s]), string(s))
	}
}

// count counts a pod once, however many streams it has, and a stream of which
// the pod is not known for one pod of its node that may be it: many share an
// address of a node.
func (c *connected) count() map[wiring.State]int {
	counts := map[wiring.State]int{}
	if c.streams == nil {
		return counts
	}
	by, ticketless, others := map[string]bool{}, map[string]int{}, map[string]int{}
	for _, s := range c.streams() {
		switch {
		case s.Pod != "":
			by[s.Pod] = true
		case s.NoTicket:
			ticketless[s.Node]++
		default:
			others[s.Node]++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.wired {
		switch {
		case by[p.uid]:
		case !p.ticket && ticketless[p.node] > 0:
			ticketless[p.node]--
		case others[p.node] > 0:
			others[p.node]--
		default:
			continue
		}
		counts[p.state]++
	}
	return counts
}
