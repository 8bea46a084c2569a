package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"
)

func newAttestations() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attestations",
		Short: "Read and delete what was attested about an image",
		Long: `Read and delete attestations (provenance, SBOM) of an image, whether Sluice has taken
them out of a push and stored them, or a registry holds them, as referrers or as entries
of the image's index. They are read over the registry API, so this works from anywhere.
Credentials come from the Docker configuration.`,
		Example: `  sluice attestations list localhost:5000/app:1
  sluice attestations show localhost:5000/app:1 --predicate-type https://slsa.dev/provenance/v1
  sluice attestations export localhost:5000/app:1 --dir attestations`,
	}
	group(cmd)
	cmd.AddCommand(newList(), newShow(), newExport(), newDelete())
	return cmd
}

// selection is which of an image's statements are wanted.
type selection struct {
	insecure      bool
	predicateType string
	platform      string
}

func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.insecure, "insecure", false, "allow plain http to a host other than this one")
	cmd.Flags().StringVar(&s.predicateType, "predicate-type", "", "only statements of this `TYPE`, such as https://spdx.dev/Document")
	cmd.Flags().StringVar(&s.platform, "platform", "", "only images of this `PLATFORM`, such as linux/amd64 (linux/arm includes its variants)")
}

func (s *selection) wants(x statement) bool {
	return (s.predicateType == "" || s.predicateType == x.PredicateType) &&
		(s.platform == "" || s.platform == x.Platform || strings.HasPrefix(x.Platform, s.platform+"/"))
}

// find opens the image's repository and lists the statements that are wanted.
func (s *selection) find(ctx context.Context, image, scope string) (*repository, []statement, string, error) {
	ref, err := parseImage(image, s.insecure)
	if err != nil {
		return nil, nil, "", err
	}
	repo, err := openRepository(ctx, ref, s.insecure, scope)
	if err != nil {
		return nil, nil, "", err
	}
	all, digest, err := repo.statements(ctx, ref.Identifier())
	if err != nil {
		return nil, nil, "", err
	}
	wanted := []statement{}
	for _, x := range all {
		if s.wants(x) {
			wanted = append(wanted, x)
		}
	}
	return repo, wanted, digest, nil
}

// findSigned is find with what signs the statements.
func (s *selection) findSigned(ctx context.Context, image string) (*repository, []statement, string, error) {
	repo, found, digest, err := s.find(ctx, image, transport.PullScope)
	if err == nil {
		err = repo.addSignatures(ctx, found)
	}
	return repo, found, digest, err
}

// none is the error of a command that has nothing to work on.
func (s *selection) none(image string) error {
	if s.predicateType != "" || s.platform != "" {
		return fmt.Errorf("%s has no such attestations; sluice attestations list shows those it has", image)
	}
	return fmt.Errorf("%s has no attestations", image)
}

func newList() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "list IMAGE",
		Short: "List the attestations of an image",
		Long: `List the statements about IMAGE, or about each image of a multi-platform one: the platform,
the image, the attestation manifest, the type, the statement and its size in bytes, and what
signs the attestation manifest (sigstore bundles, and other signatures that refer to it, but no
tags sha256-....sig). Signatures are found, not verified.

They are found as referrers of each image, and as entries of the index that IMAGE stands for:
give a tag, since the digest of a single image does not lead to an index that lists it.
Those of an image that is not in the registry any more are found by the image's digest.`,
		Example: `  sluice attestations list localhost:5000/app:1
  sluice attestations list localhost:5000/app:1 --output json | jq -r '.[].predicateType'`,
		Args: exactly("IMAGE"),
	}
	output := cmd.Flags().String("output", "table", "`FORMAT`: table, json")
	s.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf("output", *output, "table", "json"); err != nil {
			return err
		}
		_, found, _, err := s.findSigned(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(cmd.OutOrStdout(), found)
		}
		if len(found) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), s.none(args[0]))
		}
		return writeTable(cmd.OutOrStdout(), found)
	}
	return cmd
}

func writeTable(w io.Writer, found []statement) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PLATFORM\tIMAGE\tATTESTATION\tTYPE\tSTATEMENT\tSIZE\tSIGNATURE")
	for _, s := range found {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", orDash(s.Platform), short(s.Image), short(s.Attestation), orDash(s.PredicateType), short(s.Statement), s.Size, shorts(s.Signatures))
	}
	return t.Flush()
}

// short is as much of a digest as people compare.
func short(digest string) string {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok {
		return "-"
	}
	return algorithm + ":" + hex[:min(12, len(hex))]
}

func shorts(digests []string) string {
	var list []string
	for _, d := range digests {
		list = append(list, short(d))
	}
	return orDash(strings.Join(list, ","))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
