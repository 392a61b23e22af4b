// Package daemon is what the commands of both daemons have around their work:
// flags, log, memory limit and the way to the API server. It ends no process.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/metawire/metawire/internal/version"
)

// Flags are those that every daemon has.
type Flags struct {
	Config     string // file, required
	Kubeconfig string // file; empty: the pod's ServiceAccount
	Log        *slog.Logger
}

// Command completes a daemon's command: it adds the flags, and hands them to
// run. The log is written to logs.
func Command(cmd *cobra.Command, logs io.Writer, run func(context.Context, Flags) error) *cobra.Command {
	var f Flags
	level, format := slog.LevelInfo, "json"
	cmd.Version, cmd.Args = version.String(), cobra.NoArgs
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if f.Log, err = logger(logs, level, format); err != nil {
			return err
		}
		return run(cmd.Context(), f)
	}
	cmd.Flags().StringVar(&f.Config, "config", "", "configuration `FILE` (required)")
	cmd.Flags().StringVar(&f.Kubeconfig, "kubeconfig", "", "kubeconfig `FILE`; default: the pod's ServiceAccount")
	cmd.Flags().TextVar(&level, "log-level", &level, "lowest level that is logged: debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", format, "json or text")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func logger(w io.Writer, level slog.Level, format string) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("--log-format: %q is not allowed: must be json or text", format)
	}
}

// SetUp has Kubernetes' libraries log where the daemon does, and keeps the
// garbage collector below the container's memory limit.
func SetUp(log *slog.Logger) {
	klog.SetLogger(logr.FromSlogHandler(log.Handler()))
	ctrllog.SetLogger(logr.FromSlogHandler(log.Handler()))
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(0.9))
	if err == nil && limit < math.MaxInt64 {
		log.Debug("memory limit set", "bytes", limit)
	}
}

// API says how the program of that name reaches the API server.
func (f Flags) API(program string) (*rest.Config, error) {
	api, err := rest.InClusterConfig()
	if f.Kubeconfig != "" {
		if api, err = clientcmd.BuildConfigFromFlags("", f.Kubeconfig); err != nil {
			return nil, fmt.Errorf("--kubeconfig %s: %w", f.Kubeconfig, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("not in a pod: give the API server's address and credentials with --kubeconfig FILE: %w", err)
	}
	api.UserAgent = "metawire-" + program + "/" + version.Version
	return api, nil
}
