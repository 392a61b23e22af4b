package view

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// text is a frame as the terminal shows it without colors.
func text(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}

func TestFrame(t *testing.T) {
	v := shop(t)
	apply(t, v, pod("Update", "p", "web-5d-x1", "10.0.0.12", map[string][]string{"Deployment": {"d"}, "Service": {"s2"}}), at(3))
	apply(t, v, gone("Service", "s1"), at(3))
	const want = `head
5 objects · 8 events · first view: 6 objects in 100ms
1 Pod · 1 Namespace · 1 Deployment · 1 ReplicaSet · 1 Service
note
  KIND        NAMESPACE  NAME       IP         OWNER           SERVICES  LAST EVENT
~ Pod         shop       web-5d-x1  10.0.0.12  Deployment/web  web       updated 0s
  Namespace              shop                                            seen 3s
  Deployment  shop       web                                             seen 3s
  ReplicaSet  shop       web-5d                                          seen 3s
- Service     shop       all                                             deleted 0s
  Service     shop       web                                             seen 3s
`
	got := v.Frame("head", "note", at(3.2), 100, 40)
	if diff := cmp.Diff(want, text(got)); diff != "" {
		t.Error(diff)
	}
	if !got[4].Title || got[5].Change != Updated || got[9].Change != Deleted || got[10].Change != None {
		t.Errorf("wrongly marked: %+v", got)
	}
}

func TestFrameBeforeAnythingArrives(t *testing.T) {
	v := New("worker-1")
	if diff := cmp.Diff("head\n\n\nconnecting\n", text(v.Frame("head", "connecting", at(0), 80, 24))); diff != "" {
		t.Error(diff)
	}
	v.Subscribed(at(1))
	const want = `head
nothing has arrived: is this the name of a node that has pods?


`
	if diff := cmp.Diff(want, text(v.Frame("head", "", at(1), 80, 24))); diff != "" {
		t.Error(diff)
	}
}

func TestFrameFitsTheTerminal(t *testing.T) {
	v := shop(t)
	for i := range 30 {
		apply(t, v, pod("Create", fmt.Sprint("uid", i), fmt.Sprintf("a-rather-long-name-of-a-pod-%d-x%dz", i, i), "10.0.0.1",
			map[string][]string{"Service": {"s1", "s2"}, "Deployment": {"d"}}), at(2))
	}
	for _, width := range []int{0, 1, 20, 60, 80, 200} {
		for _, height := range []int{0, 1, 3, 4, 5, 6, 24, 100} {
			lines := v.Frame("head of the frame", "note", at(5), width, height)
			if len(lines) > height {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l.Text); n > width {
					t.Errorf("%dx%d: line %q has %d columns", width, height, l.Text, n)
				}
			}
		}
	}
	for width, want := range map[int][]string{ // the services go first, then the owners
		70:  {"a-rather-lo…-pod-0-x0z", "10.0.0.1", "… 32 more"},
		84:  {"a-rather-l…pod-0-x0z", "Deployment/web", "… 32 more"},
		120: {"a-rather-long-name-of-a-pod-0-x0z", "Deployment/web", "all,web", "… 32 more"},
	} {
		got := text(v.Frame("head", "", at(5), width, 10))
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("want %q in\n%s", w, got)
			}
		}
	}
}

func TestRowsThatChangedStayInACutTable(t *testing.T) {
	v := shop(t)
	apply(t, v, gone("Service", "s2"), at(3)) // the last row
	got := text(v.Frame("", "", at(3.1), 100, 8))
	if !strings.Contains(got, "- Service") || !strings.Contains(got, "Pod") || !strings.Contains(got, "… 4 more") {
		t.Errorf("want the first and the deleted row and 4 more in\n%s", got)
	}
}

func TestControlCharactersDoNotReachTheTerminal(t *testing.T) {
	v := New("n")
	apply(t, v, pod("Create", "p", "web\x1b[2J", "10.0.0.1", map[string][]string{"Evil\x07": {"\x1bu"}}), at(0))
	for _, l := range v.Frame("head", "refused: \x1b[2J", at(0), 100, 20) {
		if strings.ContainsAny(l.Text, "\x1b\x07") {
			t.Errorf("control characters in %q", l.Text)
		}
	}
}

func TestReconnectsAreCounted(t *testing.T) {
	v := shop(t)
	v.Subscribed(at(3))
	if got := text(v.Frame("", "", at(3), 100, 20)); !strings.Contains(got, "in 100ms · reconnects: 1\n") {
		t.Errorf("want one reconnect in\n%s", got)
	}
}

func TestCuts(t *testing.T) {
	for _, tc := range []struct {
		cut   func(string, int) string
		width int
		want  string
	}{
		{cutStart, 8, "12345678"},
		{cutStart, 5, "…5678"},
		{cutMiddle, 5, "12…78"},
		{cutMiddle, 4, "12…8"},
		{cutEnd, 5, "1234…"},
		{cutStart, 1, "…"},
		{cutMiddle, 1, "…"},
		{cutEnd, 1, "…"},
		{cutMiddle, 0, ""},
	} {
		if got := tc.cut("12345678", tc.width); got != tc.want {
			t.Errorf("cut to %d: %q, want %q", tc.width, got, tc.want)
		}
	}
}
