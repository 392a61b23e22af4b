package collector_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestConfigOfNewPods: a change that this pod cannot follow, other addresses or
// files that are not mounted, is said once and left to new pods.
func TestConfigOfNewPods(t *testing.T) {
	for name, edit := range map[string]func(r *running) (from, to string){
		"another address": func(r *running) (from, to string) { return r.health, freeAddress(t) },
		"files that are not there": func(*running) (from, to string) {
			return "{mode: disabled}", "{mode: files, certFile: /no/crt, keyFile: /no/key}"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t)
			from, to := edit(r)
			text := strings.Replace(string(r.data), from, to, 1)
			if text == string(r.data) {
				t.Fatal("nothing is edited")
			}
			ended := make(chan error, 1)
			go func() { ended <- r.WatchConfig(t.Context(), r.file, r.data) }()
			r.write(t, text)
			eventually(t, func() error {
				if !strings.Contains(r.logs.String(), "going on with the old one") {
					return fmt.Errorf("logged: %s", r.logs)
				}
				return nil
			})
			select {
			case err := <-ended:
				t.Errorf("ended: %v", err)
			default:
			}
		})
	}
}
