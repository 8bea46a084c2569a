package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice/proxy/config"
)

const healthTimeout = 4 * time.Second

// newHealthcheck is for containers, which have no curl to ask with.
func newHealthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck [URL]",
		Short: "Ask a running Sluice whether it is ready",
		Long: `Ask URL, or /readyz of the admin address (SLUICE_ADMIN, default ` + config.Default().Admin + `), and exit with 0 if it
answers with a status below 500. For the HEALTHCHECK of a container.`,
		Example: `  sluice healthcheck
  sluice healthcheck http://127.0.0.1:9090/readyz`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		url := "http://" + loopback(cmp.Or(os.Getenv(config.EnvironmentName("admin")), config.Default().Admin)) + "/readyz"
		if len(args) > 0 {
			url = args[0]
		}
		return healthy(cmd.Context(), url)
	}
	return cmd
}

// loopback is where this machine reaches an address that a server listens on.
func loopback(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || host != "" && !net.ParseIP(host).IsUnspecified() {
		return listen
	}
	return net.JoinHostPort("127.0.0.1", port)
}

func healthy(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		return fmt.Errorf("not ready: %s answers %s", url, resp.Status)
	}
	return nil
}
