package main

import (
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
)

const variablePrefix = "SLUICE_"

// ofAService are the variables that Kubernetes sets in every pod beside a service called sluice or sluice-admin.
var ofAService = regexp.MustCompile(`^SLUICE_(.*_)?(PORT|SERVICE_HOST|SERVICE_PORT)(_.*)?$`)

// warnOfUnknownVariables: a setting whose variable is misspelled would be its default, and nobody would see why. It is
// no error, since whoever starts Sluice may have variables of this form for other things.
func warnOfUnknownVariables(environ []string, logger *slog.Logger) {
	known := knownVariables(newServe())
	others := append(knownVariables(newECRSim()), knownVariables(newDemo())...)
	others = append(others, "SLUICE_CACHE") // of the Makefile
	settings := make([]string, len(known))  // what all names begin with would make any two of them alike
	for i, name := range known {
		settings[i] = strings.TrimPrefix(name, variablePrefix)
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, variablePrefix) || value == "" || ofAService.MatchString(name) ||
			slices.Contains(known, name) || slices.Contains(others, name) {
			continue
		}
		hint := "see sluice serve --help; all other settings are in the file of --config"
		if near := config.Nearest(strings.TrimPrefix(name, variablePrefix), settings); near != "" {
			hint = "did you mean " + variablePrefix + near + "?"
		}
		logger.Warn("an environment variable sets nothing", "variable", name, "hint", hint) // its value may be a secret
	}
}

// knownVariables are those of a command's flags, and of what has no flag.
func knownVariables(cmd *cobra.Command) []string {
	var names []string
	for _, name := range config.OverrideNames() {
		names = append(names, config.EnvironmentName(name))
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, config.EnvironmentName(f.Name)) })
	return names
}
