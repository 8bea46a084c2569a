package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"sluice/cmd/sluice/demo"
	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
)

func newDemo() *cobra.Command {
	var o struct{ upstream, via string }
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show on a double of Amazon ECR what Sluice changes",
		Long: `Push one image with provenance and SBOM to Amazon ECR twice, directly and through Sluice, and
print what ECR then lists, with the columns of its console: two untagged entries of 0.01 MB
on one side, none on the other. Then list the attestations, which Sluice has kept.

Without flags ECR is a double of it in this process, see sluice ecrsim, and so is Sluice;
nothing is left behind. With --upstream it is a real registry: credentials are found as by
every AWS tool, and the repositories sluice-demo/direct and sluice-demo/through are made
in it and stay. With --via it is a Sluice that runs already, in front of that registry.`,
		Example: `  sluice demo

  # On an account of yours. Afterwards, for both repositories:
  # aws ecr delete-repository --force --repository-name sluice-demo/direct
  sluice demo --upstream https://123456789012.dkr.ecr.eu-west-1.amazonaws.com`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&o.upstream, "upstream", "", "`URL` of an Amazon ECR registry ("+config.EnvironmentName("upstream")+", default a double in this process)")
	f.StringVar(&o.via, "via", "", "`HOST:PORT` of a running Sluice in front of it ("+config.EnvironmentName("via")+", default one in this process)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.upstream = cmp.Or(o.upstream, os.Getenv(config.EnvironmentName("upstream")))
		o.via = cmp.Or(o.via, os.Getenv(config.EnvironmentName("via")))
		if o.via != "" && o.upstream == "" {
			return usagef("--via needs --upstream: which registry is behind %s?", o.via)
		}
		return runDemo(cmd.Context(), o.upstream, o.via, cmd.OutOrStdout())
	}
	return cmd
}

// runDemo starts what is not there already, and ends it.
func runDemo(ctx context.Context, registry, via string, w io.Writer) (err error) {
	var servers closers
	defer func() { err = errors.Join(err, servers.close()) }()
	if registry == "" {
		if registry, err = startDouble(&servers); err != nil {
			return err
		}
	}
	if via == "" {
		if via, err = startProxy(&servers, registry); err != nil {
			return err
		}
	}
	return demo.Run(ctx, demo.Options{Registry: registry, Sluice: via, Attestations: listStatements}, w)
}

// listStatements is `sluice attestations list`.
func listStatements(ctx context.Context, image string, w io.Writer) error {
	s := selection{insecure: true}
	_, found, _, err := s.find(ctx, image, transport.PullScope)
	if err != nil {
		return err
	}
	return writeTable(w, found)
}

// startDouble gives this process an Amazon ECR, and the variables by which AWS tools find it.
func startDouble(servers *closers) (registry string, err error) {
	blobs, err := net.Listen("tcp", "localhost:0") // another host name than the registry's, as S3 is
	if err != nil {
		return "", err
	}
	double, err := ecrsim.New(ecrsim.Options{BlobURL: fmt.Sprintf("http://localhost:%d", blobs.Addr().(*net.TCPAddr).Port)})
	if err != nil {
		return "", errors.Join(err, blobs.Close())
	}
	servers.add(double.Close)
	servers.serve(blobs, double.Blobs())
	var address [2]string
	for i, h := range []http.Handler{double.Registry(), double.ControlPlane()} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		servers.serve(ln, h)
		address[i] = "http://" + ln.Addr().String()
	}
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_ECR": address[1], "AWS_REGION": ecrsim.DefaultRegion,
		"AWS_ACCESS_KEY_ID": ecrsim.DefaultAccessKey, "AWS_SECRET_ACCESS_KEY": "demo", "AWS_SESSION_TOKEN": "",
	} {
		if err := os.Setenv(k, v); err != nil {
			return "", err
		}
	}
	return address[0], nil
}

// startProxy gives this process a Sluice that forgets everything in the end.
func startProxy(servers *closers, registry string) (host string, err error) {
	cfg, err := config.Load("", config.Override{Name: "upstream", Value: registry, From: "--upstream"},
		config.Override{Name: "credentials", Value: string(config.CredentialsECR), From: "demo"})
	if err != nil {
		return "", err
	}
	p, err := proxy.New(proxy.Options{Config: cfg, Storage: inmemory.New(), Version: version()})
	if err != nil {
		return "", err
	}
	servers.add(p.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	servers.serve(ln, p.Handler())
	return ln.Addr().String(), nil
}

// closers end what was started, the last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) serve(ln net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	c.add(func() error {
		err := s.Close()
		<-done
		return err
	})
}

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	return errors.Join(errs...)
}
