package main

import (
	"regexp"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What is on a command line is seen by every user of the machine, and by pprof's cmdline: no flag takes a secret.
func TestNoFlagTakesASecret(t *testing.T) {
	secret := regexp.MustCompile(`(?i)passw|secret|token|seal|private|session`)
	flags := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		check := func(f *pflag.Flag) {
			flags++
			if secret.MatchString(f.Name) {
				t.Errorf("%s --%s: %s", c.CommandPath(), f.Name, f.Usage)
			}
		}
		c.LocalFlags().VisitAll(check)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if flags < 20 {
		t.Errorf("only %d flags were looked at", flags)
	}
}
