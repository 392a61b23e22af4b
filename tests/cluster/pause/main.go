// Pause holds the namespaces of a pod until it is told to end, as the image of
// that name does; the sample workloads run it too.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
