package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// maxShown bounds one statement in memory. BuildKit writes up to 80 MiB.
const maxShown = 128 << 20

func newShow() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Print the statements about an image",
		Long: `Print the statements about IMAGE as JSON: the very bytes if there is one, an array if there
are more. Signed ones are printed as the DSSE envelopes that they are. Of an attestation manifest that
is signed, standard error says so; sluice attestations export writes the signatures.`,
		Example: `  # The SBOM of one platform.
  sluice attestations show localhost:5000/app:1 --platform linux/amd64 --predicate-type https://spdx.dev/Document

  # What the images were built from, by SLSA provenance 0.2 and 1.
  sluice attestations show localhost:5000/app:1 |
    jq -rs 'flatten(1)[].predicate | (.materials, .buildDefinition.resolvedDependencies)[]?.uri'`,
		Args: exactly("IMAGE"),
	}
	s.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		repo, found, _, err := s.findSigned(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.none(args[0])
		}
		w := cmd.OutOrStdout()
		for i, x := range found {
			var b bytes.Buffer
			if x.Size > maxShown {
				return fmt.Errorf("statement %s has %d bytes, more than can be shown; sluice attestations export writes it to a file", x.Statement, x.Size)
			}
			if err := repo.blob(cmd.Context(), x.descriptor(), &b); err != nil {
				return err
			}
			if !json.Valid(b.Bytes()) {
				return fmt.Errorf("statement %s is not JSON; sluice attestations export writes it to a file as it is", x.Statement)
			}
			if _, err := fmt.Fprintf(w, "%s%s", separator(i, len(found)), b.Bytes()); err != nil {
				return err
			}
		}
		if _, err = io.WriteString(w, separator(len(found), len(found))); err != nil {
			return err
		}
		return tellSigned(cmd.ErrOrStderr(), found)
	}
	return cmd
}

// tellSigned is a line for each attestation manifest that is signed.
func tellSigned(w io.Writer, found []statement) error {
	told := map[string]bool{}
	for _, x := range found {
		if told[x.Attestation] || len(x.Signatures) == 0 {
			continue
		}
		told[x.Attestation] = true
		_, err := fmt.Fprintf(w, "attestation %s %s is signed by %s, which was not verified\n", orDash(x.Platform), x.Attestation, strings.Join(x.Signatures, " and "))
		if err != nil {
			return err
		}
	}
	return nil
}

// separator stands before the i-th of n documents, and after the last.
func separator(i, n int) string {
	switch {
	case n == 1 && i == 0:
		return ""
	case n == 1:
		return "\n"
	case i == 0:
		return "[\n"
	case i == n:
		return "\n]\n"
	}
	return ",\n"
}
