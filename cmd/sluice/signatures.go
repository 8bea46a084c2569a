package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// Artifact types of signatures: what cosign 3 writes, which has versions, cosign 2 with --registry-referrers-mode oci-1-1
// (pkg/oci/remote/remote.go, ArtifactType), and notation.
const (
	sigstoreBundle  = "application/vnd.dev.sigstore.bundle"
	cosignSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"
	notarySignature = "application/vnd.cncf.notary.signature"
)

// signature is an artifact whose subject is an attestation manifest.
type signature struct {
	digest   string
	manifest *ocidoc.Document
	signed   string // digest of the attestation manifest that it is about
}

func isSignature(doc *ocidoc.Document) bool {
	kind := artifactTypeOf(doc)
	return doc.Kind == ocidoc.KindManifest && doc.Subject != nil &&
		(strings.HasPrefix(kind, sigstoreBundle) || kind == cosignSignature || kind == notarySignature)
}

func artifactTypeOf(doc *ocidoc.Document) string {
	if doc.ArtifactType == "" && doc.Config != nil {
		return doc.Config.MediaType
	}
	return doc.ArtifactType
}

// addSignatures says of each statement what signs the attestation manifest that it is in. Whether a signature is good is
// for who has the key, or knows whose identity it has to have.
func (r *repository) addSignatures(ctx context.Context, found []statement) error {
	of := map[string][]signature{}
	for i, s := range found {
		signatures, known := of[s.Attestation]
		if !known {
			var err error
			if signatures, err = r.signatures(ctx, s.Attestation); err != nil {
				return fmt.Errorf("signatures of attestation %s: %w", s.Attestation, err)
			}
			of[s.Attestation] = signatures
		}
		for _, sig := range signatures {
			signs, err := r.signs(ctx, sig, s)
			if err != nil {
				return err
			}
			if signs {
				found[i].Signatures = append(found[i].Signatures, sig.digest)
				found[i].signatures = append(found[i].signatures, sig)
			}
		}
	}
	return nil
}

// signatures are the signatures that are listed for an attestation, by digest. An entry does not tell one: cosign 3 itself
// lists its bundles as application/vnd.oci.empty.v1+json in a referrers tag.
func (r *repository) signatures(ctx context.Context, attestation string) ([]signature, error) {
	listed, err := r.referrers(ctx, attestation)
	if err != nil {
		return nil, err
	}
	var found []signature
	for _, digest := range listed {
		doc, err := r.manifest(ctx, digest)
		if notFound(err) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		if isSignature(doc) {
			found = append(found, signature{digest, doc, doc.Subject.Digest})
		}
	}
	slices.SortFunc(found, func(a, b signature) int { return cmp.Compare(a.digest, b.digest) })
	return found, nil
}

// signs is true if a statement is in what a signature is about. For an attestation that Sluice shows as a referrer made of
// the one that was pushed, it lists the signatures of the latter, which has the same statements.
func (r *repository) signs(ctx context.Context, sig signature, s statement) (bool, error) {
	if sig.signed == s.Attestation {
		return true, nil
	}
	doc, err := r.manifest(ctx, sig.signed)
	if notFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return filters.IsAttestation(doc) && slices.ContainsFunc(doc.Layers, func(l ocidoc.Descriptor) bool { return l.Digest == s.Statement }), nil
}
