package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/filters"
	"sluice/proxy/config"
)

func newCheckConfig() *cobra.Command {
	return &cobra.Command{
		Use:   "check-config FILE",
		Short: "Find every mistake in a configuration file",
		Long: `Find every mistake in a configuration file, settings that contradict each other, and
rules that can never match. Each is one line: file:line: key: what is wrong and what to
do. Without mistakes it prints ok and what is in effect.

Flags, environment variables and the files that the configuration names are not looked
at, so a file can be checked on another machine.`,
		Example: "  sluice check-config sluice.yml",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(args[0])
			if err != nil {
				return err
			}
			if err := inThisBuild(c); err != nil {
				return err
			}
			return summarize(cmd.OutOrStdout(), c)
		},
	}
}

func summarize(w io.Writer, c *config.Config) error {
	var b strings.Builder
	scheme := "http"
	if c.TLS.Certificate != "" {
		scheme = "https"
	}
	fmt.Fprintf(&b, "ok\nlisten    %s://%s, access %s", scheme, c.Listen, c.Access.Mode)
	if n := len(c.Access.Permissions); n > 0 {
		b.WriteString(", " + count(n, "permission"))
	}
	b.WriteByte('\n')
	if c.DryRun {
		b.WriteString("dry run   everything is forwarded\n")
	}
	for _, u := range c.Upstreams {
		prefix := "**"
		if u.Prefix != "" {
			prefix = u.Prefix + "/**"
		}
		fmt.Fprintf(&b, "upstream  %s -> %s, credentials %s\n", prefix, u.URL, c.CredentialsOf(u))
	}
	if c.Storage.Shared() {
		fmt.Fprintf(&b, "storage   %s, which replicas can share\n", c.Storage.Driver())
	}
	if c.Store.To != config.StoreToStorage {
		b.WriteString("store     " + destination(c) + "\n")
	}
	for _, r := range append(slices.Clone(c.Rules), config.Rule{}) {
		fmt.Fprintf(&b, "rule      %s\n", effective(c.Effective(r)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// destination is where store puts attestations that leave the storage.
func destination(c *config.Config) string {
	to := "attestations go to the image's own repository, as referrers"
	if c.Store.To == config.StoreToRepository {
		to = "attestations go to repository " + c.Store.Repository
	}
	for _, r := range append(slices.Clone(c.Rules), config.Rule{}) {
		if c.Effective(r).Attestations == filters.Store {
			return to
		}
	}
	return to + ", and no rule stores any"
}

func effective(s config.RuleSettings) string {
	return fmt.Sprintf("%s: attestations %s, unwrap %s, view %s, media types %s, cache index %s, signed originals %s",
		cmp.Or(s.Name, config.DefaultRule), s.Attestations, s.Unwrap, s.View, s.MediaTypes, s.CacheIndex, s.SignedOriginals)
}
