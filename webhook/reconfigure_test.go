package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/metawire/metawire/internal/reload"
	"github.com/metawire/metawire/webhook/config"
)

const configFile = `
apiVersion: metawire.dev/v1alpha1
kind: WebhookConfig
address: ":%d"
health: {address: ":8081"}
metrics: {address: ":8080"}
tls: %s
stream: {host: collector.n.svc, port: 45000, service: {namespace: n, name: collector}}
image: {name: %q}
plugin: {reference: ghcr.io/falcosecurity/plugins/plugin/k8smeta}
`

const selfManaged = "{mode: selfManaged, secret: {namespace: n, name: ca}, dnsNames: [localhost]}"

// logs keeps what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watching returns a webhook that follows the file, and where it says why it
// ends.
func watching(t *testing.T, file string) (*Webhook, *logs, <-chan error) {
	t.Helper()
	cfg, data, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	l := &logs{}
	w, err := New(cfg, fake.NewClientset(), slog.New(slog.NewTextHandler(l, nil)))
	if err != nil {
		t.Fatal(err)
	}
	w.reload = reload.Options{Poll: time.Millisecond, Spread: time.Millisecond, Leave: time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.WatchConfig(ctx, file, data) }()
	t.Cleanup(cancel)
	return w, l, ended
}

// replace does it as the kubelet does: at no time is there half a file.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestConfigChange: what this process can be is taken up, not ready at first;
// what only new pods can be is reported once, and left to them.
func TestConfigChange(t *testing.T) {
	dir := t.TempDir()
	files := fmt.Sprintf("{mode: files, certFile: %[1]s/tls.crt, keyFile: %[1]s/tls.key}", dir)
	for name, change := range map[string]string{
		"an unknown key":    fmt.Sprintf(configFile, 9443, selfManaged, "metawire:1") + "imagee: {}\n",
		"another port":      fmt.Sprintf(configFile, 9444, selfManaged, "metawire:1"),
		"files to be there": fmt.Sprintf(configFile, 9443, files, "metawire:1"),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "webhook.yaml")
			replace(t, file, fmt.Sprintf(configFile, 9443, selfManaged, "metawire:1"))
			w, l, ended := watching(t, file)
			replace(t, file, change)
			eventually(t, func() error {
				if !strings.Contains(l.String(), "going on with the old one") {
					return fmt.Errorf("logged: %s", l)
				}
				return nil
			})
			select {
			case err := <-ended:
				t.Fatalf("ended: %v", err)
			case <-time.After(50 * time.Millisecond): // fifty polls
			}
			if n := strings.Count(l.String(), "going on with the old one"); n != 1 {
				t.Errorf("logged %d times", n)
			}
			replace(t, file, fmt.Sprintf(configFile, 9443, selfManaged, "metawire:2"))
			select {
			case err := <-ended:
				if !errors.Is(err, reload.ErrChanged) {
					t.Errorf("ended: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("goes on")
			}
			if err := w.ready(t.Context()); err == nil || !strings.Contains(err.Error(), "ending") {
				t.Errorf("ready says %v", err)
			}
		})
	}
}
