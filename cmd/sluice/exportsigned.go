package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"sluice/filters/ocidoc"
)

// signedFile is an attestation manifest that is signed. It is what a signature speaks of, and lists the digests of the
// statements: without it a signature has nothing to do with the files beside it.
type signedFile struct {
	File       string              `json:"file"`
	Digest     string              `json:"digest"` // as it was pushed; Sluice may show it as a referrer with another one
	Signatures []exportedSignature `json:"signatures"`

	manifest *ocidoc.Document
}

type exportedSignature struct {
	Digest       string       `json:"digest"` // of the artifact
	ArtifactType string       `json:"artifactType"`
	Files        []signedBlob `json:"files"`

	manifest *ocidoc.Document // written where the signature is in it and not in a blob
}

type signedBlob struct {
	File      string `json:"file"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

// addSigned lists what is to be written of signatures, each once: an attestation has several statements.
func (e *exported) addSigned(ctx context.Context, repo *repository, found []statement) error {
	for _, x := range found {
		for _, sig := range x.signatures {
			i := slices.IndexFunc(e.Signed, func(f signedFile) bool { return f.Digest == sig.signed })
			if i < 0 {
				manifest, err := repo.manifest(ctx, sig.signed)
				if err != nil {
					return err
				}
				i = len(e.Signed)
				e.Signed = append(e.Signed, signedFile{File: fileOf(x.Platform, "attestation", sig.signed, ".json"), Digest: sig.signed, manifest: manifest})
			}
			f := &e.Signed[i]
			if !slices.ContainsFunc(f.Signatures, func(s exportedSignature) bool { return s.Digest == sig.digest }) {
				f.Signatures = append(f.Signatures, exportSignature(x.Platform, sig))
			}
		}
	}
	return nil
}

func (e *exported) signatures() (n int) {
	for _, f := range e.Signed {
		n += len(f.Signatures)
	}
	return n
}

// exportSignature names the files of a signature. A sigstore bundle is one. cosign 2 has the signature in an annotation of
// the manifest, and notation its certificates.
func exportSignature(platform string, sig signature) exportedSignature {
	const kind = "signature"
	x := exportedSignature{Digest: sig.digest, ArtifactType: artifactTypeOf(sig.manifest)}
	bundle := strings.HasPrefix(x.ArtifactType, sigstoreBundle)
	if !bundle {
		x.manifest = sig.manifest
		x.Files = append(x.Files, signedBlob{fileOf(platform, kind, sig.digest, ".json"), sig.digest, sig.manifest.ContentType, int64(len(sig.manifest.Bytes))})
	}
	for _, l := range sig.manifest.Layers {
		extension := ".bin"
		if bundle {
			extension = ".sigstore.json"
		} else if strings.HasSuffix(l.MediaType, "json") {
			extension = ".json"
		}
		x.Files = append(x.Files, signedBlob{fileOf(platform, kind, l.Digest, extension), l.Digest, l.MediaType, l.Size})
	}
	return x
}

// signedContents are the files of addSigned.
func (e *exported) signedContents(ctx context.Context, repo *repository) (files []content) {
	document := func(doc *ocidoc.Document) func(*os.File) error {
		return func(out *os.File) error {
			_, err := out.Write(doc.Bytes)
			return err
		}
	}
	for _, f := range e.Signed {
		files = append(files, content{f.File, f.Digest, document(f.manifest)})
		for _, sig := range f.Signatures {
			for _, b := range sig.Files {
				fill := func(out *os.File) error {
					return repo.blob(ctx, ocidoc.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}, out)
				}
				if b.Digest == sig.Digest {
					fill = document(sig.manifest)
				}
				files = append(files, content{b.File, b.Digest, fill})
			}
		}
	}
	return files
}
