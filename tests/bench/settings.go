package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settings are the flags.
type settings struct {
	nodes, pods, replicas, rounds int
	rate, stuckRate               float64
	idle, load, stuckFor          time.Duration
	growthSizes                   []int
	growthPods                    int
	growthLoad                    time.Duration
	admissions                    float64
	leaves, changes               int
	quick                         bool
	binary, bin, log              string
}

// quickValues are the values of flags that --quick gives when they are not given.
func quickValues() map[string]string {
	return map[string]string{
		"nodes": "50", "pods-per-node": "10", "idle": "2s", "load": "5s", "stuck": "10s",
		"growth": "20,50,100", "growth-load": "5s", "leaves": "5", "changes": "1",
	}
}

// parse reads the flags. It returns flag.ErrHelp after it printed the help.
func parse(args []string) (s settings, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.nodes, "nodes", 1000, "nodes, with one subscriber each; a multiple of --replicas")
	flags.IntVar(&s.pods, "pods-per-node", 30, "pods a node, each of another Deployment with a Service")
	flags.IntVar(&s.replicas, "replicas", 10, "pods a Deployment, each on another node")
	flags.IntVar(&s.rounds, "rounds", 3, "rounds of the first sync")
	flags.Float64Var(&s.rate, "rate", 200, "changes a second")
	flags.DurationVar(&s.idle, "idle", 10*time.Second, "how long what an idle process uses is measured")
	flags.DurationVar(&s.load, "load", 30*time.Second, "how long changes are measured")
	flags.DurationVar(&s.stuckFor, "stuck", time.Minute, "how long a subscriber does not read, and how long it does for comparison; 0 leaves it out")
	flags.Float64Var(&s.stuckRate, "stuck-rate", 50, "changes a second, out of --rate, of the stuck subscriber's node")
	growth := flags.String("growth", "250,1000,5000", "three or more numbers of nodes and subscribers for the growth, ascending; empty leaves it out")
	flags.IntVar(&s.growthPods, "growth-pods-per-node", 6, "pods a node for the growth")
	flags.DurationVar(&s.growthLoad, "growth-load", 20*time.Second, "how long changes are measured at each size")
	flags.Float64Var(&s.admissions, "admissions", 500, "pods admitted a second; 0 leaves it out")
	flags.IntVar(&s.leaves, "leaves", 100, "how often each daemon's certificate is renewed at least")
	flags.IntVar(&s.changes, "changes", 5, "how often the authority of certificates changes; 0 leaves it and the leaves out")
	flags.StringVar(&s.binary, "collector", "", "the collector's binary (default: build bin/collector)")
	flags.StringVar(&s.bin, "kubernetes", "", "directory of the control plane's binaries (default: build them)")
	flags.StringVar(&s.log, "collector-log", "", "file for the collector's log (default: standard error)")
	flags.BoolVar(&s.quick, "quick", false, "small sizes and short times: to see that it works, not to judge")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if s.quick {
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		for name, value := range quickValues() {
			if !given[name] {
				err = errors.Join(err, flags.Set(name, value))
			}
		}
	}
	for v := range strings.SplitSeq(*growth, ",") {
		if v == "" {
			continue
		}
		n, convErr := strconv.Atoi(v)
		err = errors.Join(err, convErr)
		s.growthSizes = append(s.growthSizes, n)
	}
	return s, errors.Join(err, s.validate())
}

func (s settings) validate() (err error) {
	last := 0
	for _, n := range append([]int{s.nodes}, s.growthSizes...) {
		if n < 2*s.replicas || s.replicas < 1 || n%s.replicas != 0 {
			err = errors.Join(err, fmt.Errorf("%d nodes: must be a multiple of --replicas %d, twice that at least", n, s.replicas))
		}
	}
	if n := len(s.growthSizes); n == 1 || n == 2 {
		err = errors.Join(err, fmt.Errorf("--growth: %d sizes show no line: three at least, or none", n))
	}
	for _, n := range s.growthSizes {
		if n <= last {
			err = errors.Join(err, fmt.Errorf("--growth: %d after %d: must ascend", n, last))
		}
		last = n
	}
	for name, v := range map[string]float64{
		"pods-per-node": float64(s.pods), "growth-pods-per-node": float64(s.growthPods), "rounds": float64(s.rounds), "rate": s.rate,
		"stuck-rate": s.stuckRate, "idle": s.idle.Seconds(), "load": s.load.Seconds(), "growth-load": s.growthLoad.Seconds(),
	} {
		if v <= 0 {
			err = errors.Join(err, fmt.Errorf("--%s: must be more than 0", name))
		}
	}
	if s.stuckRate >= s.rate {
		err = errors.Join(err, fmt.Errorf("--stuck-rate %v: must be less than --rate %v", s.stuckRate, s.rate))
	}
	if s.pods > 250 || s.growthPods > 250 {
		err = errors.Join(err, errors.New("pods a node: at most 250, for their addresses"))
	}
	return err
}
