package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
)

func newECRSim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ecrsim",
		Short: "Run a double of Amazon ECR, for tests and demos",
		Long: `Run a double of a private Amazon ECR registry until SIGINT or SIGTERM: the registry API, and
of the control plane what the AWS SDKs and the AWS CLI need to sign in, to create repositories
and to look at images. It is not Amazon ECR, and what works with it may fail there.

On --listen it answers both, and tells them apart by X-Amz-Target. Everything but the layers of
--data is in memory. Any secret key will do; the access key must be the one of --access-key.

Downloads of layers are redirected to another address, which refuses credentials, as S3 does:
--blob-url, at --blob-listen, or, when that is "", at --listen under the host name of --blob-url.

With --tls it makes a certificate authority at each start, and a certificate for the registry's
host name, its control plane's (api.ecr.REGION.amazonaws.com), the host of --blob-url and
localhost.

What is not known of Amazon ECR is a switch:

` + switchTable(),
		Example: `  # On this machine, with the AWS CLI.
  sluice ecrsim --repository team/app
  export AWS_ACCESS_KEY_ID=` + ecrsim.DefaultAccessKey + ` AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=` + ecrsim.DefaultRegion + `
  aws ecr get-login-password --endpoint-url http://127.0.0.1:5100 |
    docker login --username AWS --password-stdin 127.0.0.1:5100
  docker push 127.0.0.1:5100/team/app:1
  aws ecr describe-images --endpoint-url http://127.0.0.1:5100 --repository-name team/app

  # Under its real host name, in a container that has the names as aliases.
  sluice ecrsim --tls --ca-out /ca --listen :443 --control-listen :8080 \
    --blob-listen "" --blob-url https://layers.s3.` + ecrsim.DefaultRegion + `.amazonaws.com

  # Without referrers, and with tokens that last a minute.
  sluice ecrsim --switch no-referrers --switch token-life=1m`,
		Args: exactly(),
	}
	f := cmd.Flags()
	for _, x := range []struct{ name, usage, otherwise string }{
		{"listen", "`ADDRESS` of the registry and the control plane", ecrListen},
		{"control-listen", "`ADDRESS` of the control plane alone, plain http; \"\" for none", ""},
		{"blob-listen", "`ADDRESS` that layers are downloaded from; \"\" for none of its own", ecrBlobListen},
		{"blob-url", "scheme and host that layers are downloaded from, `URL`; another host name than the registry's", "localhost and the port of --blob-listen"},
		{"account", "`ID` of the account, 12 digits", ecrsim.DefaultAccount},
		{"region", "`REGION` of the registry", ecrsim.DefaultRegion},
		{"access-key", "`ID` of the access key that may sign in", ecrsim.DefaultAccessKey},
		{"ca-out", "write the certificate authority to ca.pem in `DIR`", "none"},
		{"data", "keep layers in `DIR`", "memory"},
		{"log-level", "`LEVEL` debug, info, warn or error; debug has every request", defaultLogLevel},
		{"log-format", "`FORMAT` text or json", defaultLogFormat},
	} {
		f.String(x.name, "", fmt.Sprintf("%s (%s, default %s)", x.usage, config.EnvironmentName(x.name), orNone(x.otherwise)))
	}
	f.Bool("tls", false, "serve https with a certificate of its own (SLUICE_TLS)")
	f.StringArray("repository", nil, "create the repository `NAME` at start; may be repeated (SLUICE_REPOSITORY, with spaces between)")
	f.StringArray("switch", nil, "turn a switch, `NAME[=VALUE]`; may be repeated (SLUICE_SWITCH, with spaces between)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runECRSim(cmd.Context(), cmd.Flags(), os.LookupEnv, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

const (
	ecrListen     = "127.0.0.1:5100"
	ecrBlobListen = "127.0.0.1:5101"
)

func orNone(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

func switchTable() string {
	var b strings.Builder
	for _, n := range ecrsim.AllNamed() {
		name := n.Name
		if n.Value != "" {
			name += "=" + n.Value
		}
		fmt.Fprintf(&b, "  %-35s %s\n", name, n.Usage)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// settingOr is setting for a flag that may be set to "".
func settingOr(flags *pflag.FlagSet, env func(string) (string, bool), name, otherwise string) string {
	if flags.Changed(name) {
		v, _ := flags.GetString(name)
		return v
	}
	return setting(flags, env, name, otherwise)
}

// settings reads a flag that may be repeated, or its variable, in which spaces are between.
func settings(flags *pflag.FlagSet, env func(string) (string, bool), name string) []string {
	if flags.Changed(name) {
		v, _ := flags.GetStringArray(name)
		return v
	}
	v, _ := env(config.EnvironmentName(name))
	return strings.Fields(v)
}

// ecrListener is one address and what is behind it.
type ecrListener struct {
	what    string
	l       net.Listener
	handler http.Handler
	tls     *tls.Config
}

func runECRSim(ctx context.Context, flags *pflag.FlagSet, env func(string) (string, bool), stdout, stderr io.Writer) error {
	get := func(name, otherwise string) string { return settingOr(flags, env, name, otherwise) }
	logger, err := newLogger(stderr, get("log-level", defaultLogLevel), get("log-format", defaultLogFormat))
	if err != nil {
		return err
	}
	secure, _ := flags.GetBool("tls")
	if v, _ := env("SLUICE_TLS"); !flags.Changed("tls") && v != "" {
		if secure, err = strconv.ParseBool(v); err != nil {
			return usagef("SLUICE_TLS %q: true or false", v)
		}
	}
	o := ecrsim.Options{
		Account: get("account", ecrsim.DefaultAccount), Region: get("region", ecrsim.DefaultRegion), Logger: logger,
		Principals: []ecrsim.Principal{{AccessKey: get("access-key", ecrsim.DefaultAccessKey)}},
	}
	for _, text := range settings(flags, env, "switch") {
		if err := o.Switches.Set(text); err != nil {
			return usageError{fmt.Errorf("--switch: %w", err)}
		}
	}
	if o.Storage, err = layerStorage(get("data", "")); err != nil {
		return err
	}

	var listeners []*ecrListener
	defer func() {
		for _, l := range listeners {
			l.l.Close()
		}
	}()
	listen := func(what, address string) (*ecrListener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		listeners = append(listeners, &ecrListener{what: what, l: l})
		return listeners[len(listeners)-1], nil
	}
	registry, err := listen("registry", get("listen", ecrListen))
	if err != nil {
		return err
	}
	var blobs, control *ecrListener
	o.BlobURL = get("blob-url", "")
	if a := get("blob-listen", ecrBlobListen); a != "" {
		if blobs, err = listen("blobs", a); err != nil {
			return err
		}
		if o.BlobURL == "" {
			o.BlobURL = scheme(secure) + "://localhost:" + port(blobs.l)
		}
	}
	if a := get("control-listen", ""); a != "" {
		if control, err = listen("control plane", a); err != nil {
			return err
		}
	}
	sim, err := ecrsim.New(o)
	if err != nil {
		return usageError{err}
	}
	defer sim.Close()
	for _, name := range settings(flags, env, "repository") {
		if err := sim.CreateRepository(name); err != nil {
			return usagef("--repository %q: %w", name, err)
		}
	}

	blobHost := ""
	if u, err := url.Parse(o.BlobURL); err == nil {
		blobHost = u.Hostname()
	}
	registry.handler = everyECR(sim, blobHost, blobs == nil && blobHost != "")
	if blobs != nil {
		blobs.handler = sim.Blobs()
	}
	if control != nil {
		control.handler = sim.ControlPlane()
	}
	if secure {
		hosts := []string{ecrsim.Host(o.Account, o.Region), "api.ecr." + o.Region + ".amazonaws.com", "localhost", "127.0.0.1", "::1"}
		c, err := ownCertificate(append(hosts, blobHost), get("ca-out", ""))
		if err != nil {
			return err
		}
		registry.tls = c
		if blobs != nil {
			blobs.tls = c
		}
	} else if get("ca-out", "") != "" {
		return usagef("--ca-out needs --tls")
	}
	fmt.Fprintf(stdout, "registry       %s://%s (%s)\n", scheme(secure), registry.l.Addr(), ecrsim.Host(o.Account, o.Region))
	endpoint := scheme(secure) + "://" + registry.l.Addr().String()
	if control != nil {
		endpoint = "http://" + control.l.Addr().String()
	}
	fmt.Fprintf(stdout, "control plane  AWS_ENDPOINT_URL_ECR=%s AWS_REGION=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=any\n", endpoint, o.Region, o.Principals[0].AccessKey)
	fmt.Fprintf(stdout, "layers         %s\n", o.BlobURL)
	return serveECR(ctx, logger, listeners)
}

// everyECR tells apart what one address serves.
func everyECR(sim *ecrsim.Simulator, blobHost string, blobsToo bool) http.Handler {
	registry, control, blobs := sim.Registry(), sim.ControlPlane(), sim.Blobs()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		switch {
		case ecrsim.IsControlPlane(r):
			control.ServeHTTP(w, r)
		case blobsToo && strings.EqualFold(host, blobHost):
			blobs.ServeHTTP(w, r)
		default:
			registry.ServeHTTP(w, r)
		}
	})
}

func serveECR(ctx context.Context, logger *slog.Logger, listeners []*ecrListener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	servers := make([]*http.Server, len(listeners))
	for i, l := range listeners {
		s := &http.Server{Handler: l.handler, TLSConfig: l.tls, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
		servers[i] = s
		go func() {
			defer func() { done <- struct{}{} }()
			serve := s.Serve
			if l.tls != nil {
				serve = func(n net.Listener) error { return s.ServeTLS(n, "", "") }
			}
			if err := serve(l.l); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("%s: %w", l.what, err))
			}
		}()
	}
	<-ctx.Done()
	for _, s := range servers {
		_ = s.Close() // a double has nothing to finish
	}
	for range servers {
		<-done
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func layerStorage(dir string) (storagedriver.StorageDriver, error) {
	if dir == "" {
		return nil, nil
	}
	d, err := filesystem.FromParameters(map[string]any{"rootdirectory": dir})
	if err != nil {
		return nil, fmt.Errorf("--data %s: %w", dir, err)
	}
	return d, nil
}

func scheme(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}
