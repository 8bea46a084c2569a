package main

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Run the proxy until SIGINT or SIGTERM, after which running pushes get shutdown_timeout
to finish. Without flags it listens on 127.0.0.1:5000 with a registry of its own in
./sluice-data behind it.

Each flag is also an environment variable: --log-level is SLUICE_LOG_LEVEL. A flag wins
over the variable, which wins over the file. Credentials for the upstream have no flag,
since command lines can be read by others: SLUICE_UPSTREAM_USERNAME with
SLUICE_UPSTREAM_PASSWORD or SLUICE_UPSTREAM_PASSWORD_FILE.`,
		Example: `  # Try it out.
  sluice serve

  # In front of a registry, with the credentials that docker login has left.
  sluice serve --upstream https://registry.example.com

  # The same for others in the network: everybody with their own credentials.
  sluice serve --listen :5000 --upstream https://registry.example.com --access passthrough

  # With everything in a file.
  sluice check-config sluice.yml && sluice serve --config sluice.yml`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.String("config", "", "read the configuration `FILE`; without it none is read")
	f.String("listen", "", "`ADDRESS` for clients (default 127.0.0.1:5000)")
	f.String("admin", "", "`ADDRESS` for health and metrics, \"\" for none (default 127.0.0.1:5080)")
	f.String("upstream", "", "`URL` of the registry behind the proxy, or embedded (default embedded)")
	f.String("credentials", "", "how to sign in there, `MODE` auto, docker, basic, passthrough or anonymous (default auto)")
	f.String("access", "", "how clients are let in, `MODE` none, htpasswd or passthrough (default none)")
	f.String("attestations", "", "what becomes of attestations, `ACTION` store, strip or forward (default store)")
	f.String("data", "", "keep all state in `DIR` (default ./sluice-data)")
	f.String("log-level", "", "`LEVEL` debug, info, warn or error (default info)")
	f.String("log-format", "", "`FORMAT` text or json (default text)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), cmd.Flags(), os.LookupEnv, cmd.ErrOrStderr())
	}
	return cmd
}

func serve(ctx context.Context, flags *pflag.FlagSet, env func(string) (string, bool), stderr io.Writer) error {
	logger, err := newLogger(stderr, setting(flags, env, "log-level", "info"), setting(flags, env, "log-format", "text"))
	if err != nil {
		return err
	}
	overrides := config.Environment(env)
	for _, name := range config.OverrideNames() {
		if f := flags.Lookup(name); f != nil && f.Changed {
			overrides = append(overrides, config.Override{Name: name, Value: f.Value.String(), From: "--" + name})
		}
	}
	cfg, err := config.Load(setting(flags, env, "config", ""), overrides...)
	if err != nil {
		return err
	}
	if err := cfg.CheckFiles(); err != nil {
		return err
	}
	driver, err := openStorage(cfg.Storage, logger)
	if err != nil {
		return err
	}
	return run(ctx, cfg, logger, driver)
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
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}
