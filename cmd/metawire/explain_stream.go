package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscription"
)

// streams is what the collectors say of a pod's subscription.
type streams struct {
	// Asked is how many collectors answered, Unasked which did not and why. With
	// some of them what stands here may not be all.
	Asked   int       `json:"asked"`
	Unasked []unasked `json:"unasked,omitempty"`
	// Open are the pod's streams, Unknown how many are open for its node of which
	// no collector knows whose they are: by a node's address, or a person's.
	Open    []openStream `json:"open"`
	Unknown int          `json:"unknown,omitempty"`
	// Refused is what collectors refused the pod, one entry a reason.
	Refused []refusal `json:"refused,omitempty"`
}

type unasked struct {
	Collector string `json:"collector,omitempty"` // empty: any
	Error     string `json:"error"`
}

type openStream struct {
	Collector  string `json:"collector"`
	Since      string `json:"since"` // RFC 3339, as all times here
	By         string `json:"by"`    // ticket, address, nodeAddress, token, nothing
	EventsSent int64  `json:"eventsSent"`
	Pending    int64  `json:"pending"`
}

type refusal struct {
	Collector string `json:"collector"`
	Of        string `json:"of"` // subscription, revocation, ticket
	Node      string `json:"node,omitempty"`
	Code      string `json:"code"`
	Reason    string `json:"reason"`
	First     string `json:"first"`
	Last      string `json:"last"`
	Times     int64  `json:"times"`
	Served    bool   `json:"served,omitempty"` // it is only audited
}

// streamsOf asks the collectors about a pod.
func streamsOf(ctx context.Context, found *installation.Installation, p *corev1.Pod) *streams {
	replicas, err := found.Subscriptions(ctx, p.Spec.NodeName)
	if err != nil {
		return &streams{Open: []openStream{}, Unasked: []unasked{{Error: err.Error()}}}
	}
	return told(replicas, p)
}

// told picks what concerns the pod.
func told(replicas []installation.Replica, p *corev1.Pod) *streams {
	s := &streams{Open: []openStream{}}
	for _, r := range replicas {
		if r.Err != nil {
			s.Unasked = append(s.Unasked, unasked{r.Pod, r.Err.Error()})
			continue
		}
		s.Asked++
		if n := r.Told.GetLeftOut(); n > 0 {
			s.Unasked = append(s.Unasked, unasked{r.Pod, fmt.Sprintf("its answer leaves %d subscribers out: it is too long", n)})
		}
		for _, o := range r.Told.GetSubscribers() {
			switch {
			case of(o.GetPod(), p):
				s.Open = append(s.Open, openStream{r.Pod, o.GetSince(), o.GetBy(), o.GetEventsSent(), o.GetPending()})
			case o.GetPod() == nil:
				s.Unknown++
			}
		}
		for _, f := range r.Told.GetRefusals() {
			if of(f.GetPod(), p) {
				s.Refused = append(s.Refused, refusal{r.Pod, f.GetOf(), f.GetNode(), f.GetCode(), f.GetReason(), f.GetFirst(), f.GetLast(), f.GetTimes(), f.GetServed()})
			}
		}
	}
	return s
}

func of(whose *subscription.Pod, p *corev1.Pod) bool { return whose.GetUid() == string(p.UID) }

// lines writes it for people, by lines of what and a text.
func (s *streams) lines(line func(what, format string, args ...any)) {
	for _, o := range s.Open {
		line("stream", "connected to %s since %s, %s: %d events sent, %d pending", o.Collector, local(o.Since), byWords(o.By), o.EventsSent, o.Pending)
	}
	switch {
	case len(s.Open) > 0:
	case s.Asked == 0:
		line("stream", "not known: no collector could be asked")
	case s.Unknown > 0:
		line("stream", "no stream is known to be this pod's, at %d collectors; %d of its node are open that may be: nobody knows whose they are, by a node's address or without authorization", s.Asked, s.Unknown)
	default:
		line("stream", "not connected, by what %d collectors say", s.Asked)
	}
	for _, u := range s.Unasked {
		name := u.Collector
		if name == "" {
			name = "the collectors"
		}
		line("", "%s could not be asked: %s", name, u.Error)
	}
	for _, f := range s.Refused {
		what := map[string]string{"ticket": "a ticket", "revocation": "its open stream", "subscription": "node " + f.Node}[f.Of]
		often := ""
		if f.Times > 1 {
			often = fmt.Sprintf(", %d times since %s", f.Times, local(f.First))
		}
		if f.Served {
			often += ", and served all the same: stream.authorization is audit"
		}
		line("refused", "%s, %s by %s: %s (%s)%s", local(f.Last), what, f.Collector, f.Reason, f.Code, often)
	}
}

// byWords says what the leave to read a stream stands on.
func byWords(by string) string {
	switch by {
	case "nothing":
		return "authorized by nothing"
	case "nodeAddress":
		return "by its node's address"
	}
	return "by its " + by
}

// local is a time of a collector as it is here.
func local(at string) string {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return at
	}
	return t.Local().Format(time.DateTime)
}
