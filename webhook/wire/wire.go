// Package wire is what the init container of a wired Falco pod does: it reads
// the configuration that Falco will read, gets the plugin's library and the
// pod's ticket, and writes the fragment that makes Falco subscribe, or stands
// down. It never touches Falco's own files, and nothing that fails here may keep
// Falco from starting: every outcome is a Verdict, none an error.
package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metawire/metawire/internal/wiring"
)

// Options are for tests; their zero values are what a pod uses.
type Options struct {
	// Root is put before every path; default "/".
	Root string
	// Total bounds Run; default 60 s.
	Total time.Duration
	// Library bounds getting the plugin's library; default 30 s.
	Library time.Duration
	// Ticket bounds getting the ticket; default 20 s.
	Ticket time.Duration
}

// path is where a path of the pod is found.
func (o Options) path(p string) string {
	return filepath.Join(cmp.Or(o.Root, "/"), filepath.Clean("/"+p))
}

// maxReason keeps a verdict far below the 4 KiB of a termination message, also
// where JSON writes six bytes for one.
const maxReason = 600

// Run wires Falco as the task says. It blocks for at most o.Total and always
// returns a verdict that fits into a termination message.
func Run(ctx context.Context, task wiring.Task, o Options) wiring.Verdict {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Total, time.Minute))
	defer cancel()
	v := run(ctx, task, o)
	v.Reason = shorten(v.Reason)
	return v
}

func run(ctx context.Context, task wiring.Task, o Options) wiring.Verdict {
	// One that an earlier run of this pod left may be wrong by now.
	if err := os.Remove(o.path(wiring.FragmentFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwired("remove the fragment of an earlier run", err)
	}
	if err := check(task); err != nil {
		return unwired("read the task", err)
	}
	version := parseVersion(task.FalcoVersion)
	if !version.joins() {
		return unwired("add to Falco's configuration", fmt.Errorf("falco %s merges no configuration file given by an option, and replaces lists: 0.41 or later is needed", task.FalcoVersion))
	}
	conf, err := readConfiguration(o, task)
	switch {
	case err != nil:
		return unwired("read Falco's configuration", err)
	case conf.configuredBy != "" && !conf.loaded:
		return unwired("stand down", fmt.Errorf("the plugin %s is configured by %s, but load_plugins does not list it", pluginName, conf.configuredBy))
	case conf.configuredBy != "":
		return wiring.Verdict{StoodDown: true, Reason: fmt.Sprintf("the plugin %s is already configured by %s", pluginName, conf.configuredBy)}
	}
	library, err := getLibrary(ctx, task, version, o)
	if err != nil {
		return unwired("get the plugin's library", err)
	}
	nodeName, noTicket := getNodeName(ctx, task, o)
	content, err := fragment(task, library, nodeName, conf)
	if err == nil {
		err = writeFile(o.path(wiring.FragmentFile), content)
	}
	if err != nil {
		return unwired("write the fragment", err)
	}
	v := wiring.Verdict{Wired: true, Ticket: noTicket == nil, Reason: "wired with a ticket"}
	if noTicket != nil {
		v.Reason = fmt.Sprintf("wired without a ticket, the collector decides by the pod's address: %v", noTicket)
	}
	if task.Plugin.Source == wiring.PluginPreinstalled {
		v.Reason += fmt.Sprintf("; whether Falco's image has %s was not checked", library)
	}
	return v
}

func unwired(step string, err error) wiring.Verdict {
	return wiring.Verdict{Reason: fmt.Sprintf("not wired: %s: %v", step, err)}
}

// check finds what would make an invalid fragment.
func check(task wiring.Task) error {
	switch {
	case task.Host == "":
		return errors.New("host is empty")
	case task.Port < 1 || task.Port > 65535:
		return fmt.Errorf("port %d is none", task.Port)
	case !isName(task.NodeVariable):
		return fmt.Errorf("nodeVariable %q is not the name of a variable", task.NodeVariable)
	}
	return nil
}

func isName(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// shorten makes one line of bounded length.
func shorten(reason string) string {
	reason = strings.Join(strings.Fields(strings.ToValidUTF8(reason, "?")), " ")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "..."
	}
	return reason
}
