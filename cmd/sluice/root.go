package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
)

// Exit codes. A script can tell that it called wrongly from that it failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot() //nolint:contextcheck // cobra hands the context to the commands
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sluice: %s (see %s --help)\n", oneLine(err), cmd.CommandPath())
		return exitUsage
	}
	report(stderr, err)
	return exitFailed
}

// report prints one plain line, or for a configuration one per mistake.
func report(stderr io.Writer, err error) {
	var mistakes config.Mistakes
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			fmt.Fprintf(stderr, "%s\n", m.Error())
		}
		return
	}
	fmt.Fprintf(stderr, "sluice: %s\n", oneLine(err))
}

// oneLine also keeps what a registry wrote into an error from steering a terminal.
func oneLine(err error) string {
	return printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "An OCI registry proxy that keeps attestations out of the registry",
		Long: `Sluice is an OCI registry proxy. Clients push to it as if it were the registry; it
streams layers through, takes BuildKit's attestations (provenance, SBOM) out of what
is pushed, keeps them apart, and forwards the rest.`,
		Example: `  # A proxy with a registry of its own, and a push through it, by a builder that reaches this machine.
  sluice serve
  docker buildx create --name sluice --driver docker-container --driver-opt network=host
  docker buildx build --builder sluice --push -t localhost:5000/app:1 .

  # Which digest is in the registry, to deploy and to sign?
  sluice resolve localhost:5000/app:1

  # What was taken out?
  sluice attestations list localhost:5000/app:1`,
		SilenceErrors:     true, // execute prints them
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	group(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{withNearestFlag(cmd, err)} })
	root.AddCommand(newServe(), newCheckConfig(), newResolve(), newAttestations(), newDemo(), newECRSim(), newHealthcheck(), newVersion())
	return root
}

// withNearestFlag adds the flag that was meant: one that is misspelled, or has one dash, where each letter would be a
// flag of its own.
func withNearestFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	word := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		word, _, _ = strings.Cut(letters, "=")
		err = fmt.Errorf("unknown flag: -%s", word)
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	if near := config.Nearest(word, known); near != "" && len(word) > 1 {
		return fmt.Errorf("%w, did you mean --%s?", err, near)
	}
	return err
}

// group makes a command that only has others below it: alone it prints its help, and
// with a word that is none of them it is used wrongly.
func group(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q, did you mean %q?", args[0], near[0])
		}
		return usagef("unknown command %q", args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// exactly wants as many arguments as there are names for them.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// oneOf checks a flag that has a few values.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return usagef("--%s %q: choose one of %s", flag, value, strings.Join(allowed, ", "))
}
