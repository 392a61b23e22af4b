// Command metrics writes the reference of the metrics, docs/metrics.md.
package main

import (
	"fmt"
	"os"

	"github.com/metawire/metawire/tests/metrics"
)

//go:generate sh -c "go run . >../../../../docs/metrics.md.new && mv ../../../../docs/metrics.md.new ../../../../docs/metrics.md"

func main() {
	if err := metrics.WriteReference(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "metrics:", err)
		os.Exit(1)
	}
}
