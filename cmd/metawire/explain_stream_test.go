package main

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metawire/metawire/internal/installation"
	"github.com/metawire/metawire/internal/subscription"
)

// TestExplainStream: what is said of a pod's stream, by what the collectors told.
func TestExplainStream(t *testing.T) {
	const since = "2026-01-02T03:04:05Z"
	own, other := &subscription.Pod{Uid: "own"}, &subscription.Pod{Uid: "other"}
	stream := func(of *subscription.Pod, by string) *subscription.Subscriber {
		return &subscription.Subscriber{Node: "n", Pod: of, By: by, Since: since, EventsSent: 7, Pending: 2}
	}
	refused := &subscription.Refusal{Of: "subscription", Node: "m", Pod: own, Code: "address_other_node", Reason: "it is on another node", First: since, Last: since, Times: 3}
	for name, c := range map[string]struct {
		told       []installation.Replica
		says, nots []string
	}{
		"connected to one of two": {
			[]installation.Replica{
				{Pod: "c-1", Told: &subscription.ListResponse{Subscribers: []*subscription.Subscriber{stream(other, "ticket")}}},
				{Pod: "c-2", Told: &subscription.ListResponse{Subscribers: []*subscription.Subscriber{stream(own, "ticket")}}},
			},
			[]string{"connected to c-2 since " + local(since) + ", by its ticket: 7 events sent, 2 pending"}, []string{"c-1", "not connected", "refused"},
		},
		"refused": {
			[]installation.Replica{{Pod: "c-1", Told: &subscription.ListResponse{Refusals: []*subscription.Refusal{refused, {Pod: other, Reason: "another's"}, {Reason: "nobody's"}}}}},
			[]string{"not connected, by what 1 collectors say", "node m by c-1: it is on another node (address_other_node), 3 times since " + local(since)},
			[]string{"another's", "nobody's", "served"},
		},
		"one cannot be asked": {
			[]installation.Replica{{Pod: "c-1", Told: &subscription.ListResponse{}}, {Pod: "c-2", Err: errors.New("it is Pending")}},
			[]string{"not connected, by what 1 collectors say", "c-2 could not be asked: it is Pending"}, nil,
		},
		"none can": {
			[]installation.Replica{{Pod: "c-1", Err: errors.New("it is Pending")}},
			[]string{"not known: no collector could be asked", "c-1 could not be asked: it is Pending"}, []string{"not connected"},
		},
		"nobody knows whose a stream is": {
			[]installation.Replica{{Pod: "c-1", Told: &subscription.ListResponse{Subscribers: []*subscription.Subscriber{stream(nil, "nodeAddress")}}}},
			[]string{"no stream is known to be this pod's, at 1 collectors; 1 of its node are open"}, []string{"connected to"},
		},
		"an answer that is too long": {
			[]installation.Replica{{Pod: "c-1", Told: &subscription.ListResponse{LeftOut: 9}}}, []string{"leaves 9 subscribers out"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID("own")}, Spec: corev1.PodSpec{NodeName: "n"}}
			x := &explanation{Container: "falco", Streams: told(c.told, p)}
			var out strings.Builder
			if err := x.print(&out); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.says {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			for _, not := range c.nots {
				if strings.Contains(out.String(), not) {
					t.Errorf("there is %q in\n%s", not, out.String())
				}
			}
		})
	}
}
