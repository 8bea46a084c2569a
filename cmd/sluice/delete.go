package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"
)

func newDelete() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "delete IMAGE --yes",
		Short: "Delete the attestations of an image for good",
		Long: `Delete the attestation manifests of IMAGE, with all their statements. They cannot be brought
back: export them first. The image itself stays. What store.to has put into a registry is deleted
there as well.

One that the image's index lists itself, such as after attestations: forward, stays too:
registries and clients take an index for broken when an entry is missing. Delete that index,
or push the image again through Sluice with attestations: store. A single image by its digest is
refused, since that does not lead to an index that may list its attestations: give the tag, or
the digest of the index.`,
		Example: `  sluice attestations export localhost:5000/app:1 --dir attestations
  sluice attestations delete localhost:5000/app:1 --yes`,
		Args: exactly("IMAGE"),
	}
	// Not by type: one manifest holds several statements, and goes as a whole.
	cmd.Flags().BoolVar(&s.insecure, "insecure", false, "allow plain http to a host other than this one")
	cmd.Flags().StringVar(&s.platform, "platform", "", "only of images of this `PLATFORM`, such as linux/amd64 (linux/arm includes its variants)")
	yes := cmd.Flags().Bool("yes", false, "really delete them")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope := transport.PullScope
		if *yes {
			scope = transport.DeleteScope
		}
		repo, found, digest, err := s.find(cmd.Context(), args[0], scope)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.none(args[0])
		}
		// BuildKit's attestations with oci-artifact=true are referrers of the image, and entries of an index all the same.
		single := func(x statement) bool { return x.Image == digest }
		if strings.Contains(args[0], "@") && slices.ContainsFunc(found, single) {
			return fmt.Errorf("nothing was deleted: %s is a single image, and an index that lists its attestations would be broken without them; "+
				"give the tag, or the digest of the index", args[0])
		}
		done, kept := map[string]bool{}, map[string]bool{}
		for _, x := range found {
			if x.inIndex {
				kept[x.Attestation] = true
			}
		}
		for _, x := range found {
			if done[x.Attestation] || kept[x.Attestation] {
				continue
			}
			done[x.Attestation] = true
			verb := "would delete"
			if *yes {
				if err := repo.deleteManifest(cmd.Context(), x.Attestation); err != nil {
					return err
				}
				verb = "deleted"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", verb, orDash(x.Platform), x.Attestation); err != nil {
				return err
			}
		}
		if len(kept) > 0 && (*yes || len(done) == 0) {
			return fmt.Errorf("%s of %s: not deleted, since its index in the registry lists them and would be broken without them; "+
				"delete the index, or push again with attestations: store", count(len(kept), "attestation"), args[0])
		}
		if !*yes {
			return fmt.Errorf("nothing was deleted; with --yes: %s", count(len(done), "attestation"))
		}
		return nil
	}
	return cmd
}

func (r *repository) deleteManifest(ctx context.Context, digest string) error {
	resp, err := r.do(ctx, http.MethodDelete, "manifests/"+digest)
	if err != nil {
		return fmt.Errorf("delete %s of %s: %w", digest, r.name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound { // somebody else was faster
		return nil
	}
	if err := checkStatus(resp, http.StatusOK, http.StatusAccepted, http.StatusNoContent); err != nil {
		return fmt.Errorf("delete %s of %s: %w", digest, r.name, err)
	}
	return nil
}
