// Command cmd writes the image of the stand-in for Falco as a docker-archive, for a
// cluster that was made by hand (CONTRIBUTING.md).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/metawire/metawire/tests/falco/image"
)

func main() {
	archive := flag.String("o", filepath.Join("bin", "image", "falco.tar"), "docker-archive to write")
	flag.Parse()
	if err := image.Build(context.Background(), *archive); err != nil {
		fmt.Fprintln(os.Stderr, "falco image:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stdout, "%s is in %s\n", image.Falco, *archive)
}
