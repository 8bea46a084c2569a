// Sluice is an OCI registry proxy that takes BuildKit's attestations out of what is
// pushed through it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// For serve it means to read the configuration again, see there. Before that, and in the
	// other commands, a terminal that closes ends nothing.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends in good order; a second one, while that takes too long, ends at once.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
