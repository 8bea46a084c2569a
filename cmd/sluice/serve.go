package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
)

const (
	defaultLogLevel  = "info"
	defaultLogFormat = "text"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Run the proxy until SIGINT or SIGTERM, after which running pushes get shutdown_timeout
to finish. Without flags it listens on 127.0.0.1:5000 with a registry of its own in
./sluice-data behind it.

A flag wins over its environment variable, which wins over the file; a variable that is
empty counts as not set. Credentials for the upstream have no flag, since command lines can
be read by others: SLUICE_UPSTREAM_USERNAME with SLUICE_UPSTREAM_PASSWORD or
SLUICE_UPSTREAM_PASSWORD_FILE. Nor have the keys that seal upload URLs: SLUICE_SEAL_KEYS or
SLUICE_SEAL_KEYS_FILE.

SIGHUP reads the file of --config again, with the same flags and environment over it.
Requests that run end by the old configuration, those that follow go by the new one. One
with mistakes, or with another listen, admin, tls or storage, which need a restart, is
refused in the log, and nothing changes.`,
		Example: `  # Try it out.
  sluice serve

  # In front of a registry, with the credentials that docker login has left.
  sluice serve --upstream https://registry.example.com

  # The same for others, behind something that speaks TLS: everybody with their own credentials.
  sluice serve --listen :5000 --upstream https://registry.example.com --access passthrough

  # With everything in a file.
  sluice check-config sluice.yml && sluice serve --config sluice.yml`,
		Args: exactly(),
	}
	f, d := cmd.Flags(), config.Default()
	for _, x := range []struct{ name, usage, otherwise string }{
		{"config", "read the configuration `FILE`", "none"},
		{"listen", "`ADDRESS` for clients", d.Listen},
		{"admin", "`ADDRESS` for health and metrics; \"\" for none", d.Admin},
		{"upstream", "`URL` of the registry behind the proxy, or embedded", d.Upstreams[0].URL},
		{"credentials", "how to sign in there, `MODE` auto, ecr, docker, basic, passthrough or anonymous", string(d.Upstreams[0].Credentials)},
		{"access", "how clients are let in, `MODE` none, htpasswd, token, oidc, mtls or passthrough", string(d.Access.Mode)},
		{"attestations", "what becomes of attestations, `ACTION` store, strip or forward", string(d.Attestations)},
		{"data", "keep all state in `DIR`", d.Storage.Filesystem.RootDirectory},
		{"log-level", "`LEVEL` debug, info, warn or error", defaultLogLevel},
		{"log-format", "`FORMAT` text or json", defaultLogFormat},
	} {
		f.String(x.name, "", fmt.Sprintf("%s (%s, default %s)", x.usage, config.EnvironmentName(x.name), x.otherwise))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), cmd.Flags(), os.LookupEnv, cmd.ErrOrStderr())
	}
	return cmd
}

func serve(ctx context.Context, flags *pflag.FlagSet, env func(string) (string, bool), stderr io.Writer) error {
	logger, err := newLogger(stderr, setting(flags, env, "log-level", defaultLogLevel), setting(flags, env, "log-format", defaultLogFormat))
	if err != nil {
		return err
	}
	takeOverLogs(logger)
	warnOfUnknownVariables(os.Environ(), logger)
	overrides := config.Environment(env)
	for _, name := range config.OverrideNames() {
		if f := flags.Lookup(name); f != nil && f.Changed {
			overrides = append(overrides, config.Override{Name: name, Value: f.Value.String(), From: "--" + name})
		}
	}
	file := setting(flags, env, "config", "")
	load := func() (*config.Config, error) {
		cfg, err := config.Load(file, overrides...)
		if err != nil {
			return nil, err
		}
		if err := inThisBuild(cfg); err != nil {
			return nil, err
		}
		return cfg, cfg.CheckFiles()
	}
	hangups := make(chan os.Signal, 1) // one that comes before serving is not lost
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Ignore(syscall.SIGHUP) // as before: none must end what still ends in good order
	cfg, err := load()
	if err != nil {
		return err
	}
	driver, err := openStorage(ctx, cfg.Storage, logger)
	if err != nil {
		return err
	}
	if f := cfg.Storage.Filesystem; f != nil {
		defer occupy(f.RootDirectory, logger)()
	}
	warnOfOwnImages(cfg, logger)
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan *config.Config)
	var background sync.WaitGroup
	notify := newNotify(env, logger)
	background.Go(func() {
		onHangup(ctx, hangups, file, load, changes, notify, logger)
		notify(stateStopping)
	})
	defer background.Wait()
	defer cancel()
	defer time.AfterFunc(time.Second, letGoOfStart).Stop()
	return run(ctx, cfg, logger, driver, changes, func() { notify(stateReady) })
}

// warnOfOwnImages: with shared storage there are other replicas, and the embedded registry keeps its images in a folder
// of this one.
func warnOfOwnImages(cfg *config.Config, logger *slog.Logger) {
	if !cfg.Storage.Shared() {
		return
	}
	for _, u := range cfg.Upstreams {
		if u.URL == config.Embedded {
			logger.Warn("the embedded registry keeps its images in a folder of this process, where other replicas on the same storage do not find them: set the upstream's url",
				"storage", cfg.Storage.Driver(), "prefix", u.Prefix)
		}
	}
}

// setting reads a flag that is not part of the configuration.
func setting(flags *pflag.FlagSet, env func(string) (string, bool), name, otherwise string) string {
	if flags.Changed(name) {
		v, _ := flags.GetString(name)
		return v
	}
	v, _ := env(config.EnvironmentName(name))
	return cmp.Or(v, otherwise)
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	if err := oneOf("log-level", level, "debug", "info", "warn", "error"); err != nil {
		return nil, err
	}
	if err := oneOf("log-format", format, "text", "json"); err != nil {
		return nil, err
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{err}
	}
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(plainLines{w, plainJSON}, o)), nil
	}
	return slog.New(slog.NewTextHandler(plainLines{w, plainText}, o)), nil
}
