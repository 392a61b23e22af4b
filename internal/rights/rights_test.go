package rights_test

import (
	"strings"
	"testing"

	"github.com/metawire/metawire/internal/rights"
)

func TestList(t *testing.T) {
	all := []rights.Right{
		{Verb: "list", Resource: "pods"}, {Verb: "get", Group: "apps", Resource: "deployments", Namespace: "ns", Name: "x"},
		{Verb: "watch", Resource: "pods"}, {Verb: "create", Resource: "pods", Sub: "exec"},
	}
	if got, want := rights.List(all), "list and watch pods, get deployments.apps x in namespace ns, create pods/exec"; got != want {
		t.Errorf("got %s", got)
	}
	all = nil
	for i := range 18 {
		all = append(all, rights.Right{Verb: "list", Resource: strings.Repeat("x", i+1)})
	}
	if got := rights.List(all); !strings.HasSuffix(got, ", and 3 more") {
		t.Errorf("got %s", got)
	}
}
