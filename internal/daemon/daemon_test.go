package daemon

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestCommand: what is parsed is what is run with; what is wrong is named, and
// nothing runs.
func TestCommand(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, c := range map[string]struct {
		args []string
		want string // of the error
	}{
		"all flags":           {[]string{"--config", "c", "--kubeconfig", "k", "--log-level", "debug", "--log-format", "text"}, "--kubeconfig k"},
		"no kubeconfig":       {[]string{"--config", "c"}, "not in a pod"},
		"no configuration":    {nil, "config"},
		"an argument":         {[]string{"--config", "c", "more"}, "more"},
		"no level":            {[]string{"--config", "c", "--log-level", "loud"}, "loud"},
		"no format":           {[]string{"--config", "c", "--log-format", "xml"}, "json or text"},
		"a flag of no daemon": {[]string{"--confg", "c"}, "--confg"},
	} {
		t.Run(name, func(t *testing.T) {
			var logs, out bytes.Buffer
			cmd := Command(&cobra.Command{Use: "test"}, &logs, func(_ context.Context, f Flags) error {
				f.Log.Debug("hello")
				if f.Config != "c" {
					t.Errorf("parsed %+v", f)
				}
				_, err := f.API("test")
				return err
			})
			cmd.SetArgs(c.args)
			cmd.SetOut(&out)
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if name == "all flags" && !strings.Contains(logs.String(), "level=DEBUG msg=hello") {
				t.Errorf("logged %q", logs.String())
			}
		})
	}
}
