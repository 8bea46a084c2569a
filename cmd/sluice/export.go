package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/filters/ocidoc"
)

const indexFile = "index.json"

// exported is index.json.
type exported struct {
	Image      string         `json:"image"`  // as it was asked for
	Digest     string         `json:"digest"` // of what it stood for
	Statements []exportedFile `json:"statements"`
	// Signed are the attestation manifests that are signed. Without one there is no such field.
	Signed []signedFile `json:"signed,omitempty"`
}

type exportedFile struct {
	File string `json:"file"`
	statement
}

func newExport() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "export IMAGE --dir DIR",
		Short: "Write the statements about an image to files",
		Long: `Write each statement about IMAGE to a file DIR/<platform>-<type>-<digest>.json, byte for byte
with its digest checked, and DIR/index.json, which says what is in which. A file that is
there and has other content is never overwritten.

Of an attestation that is signed its manifest is written too, which lists the digests of the
statements and is what was signed, and each signature: DIR/<platform>-attestation-<digest>.json
and DIR/<platform>-signature-<digest>.sigstore.json, a bundle that cosign 3 verifies with the
manifest. Signatures are written, not verified.`,
		Example: `  sluice attestations export localhost:5000/app:1 --dir attestations

  # A signature that cosign 3 made with a key.
  cosign verify-blob-attestation --key cosign.pub --type https://sigstore.dev/cosign/sign/v1 \
    --bundle attestations/linux-amd64-signature-0123456789ab.sigstore.json \
    attestations/linux-amd64-attestation-abcdef012345.json`,
		Args: exactly("IMAGE"),
	}
	dir := cmd.Flags().String("dir", "", "`DIR` to write to; made when it is missing")
	s.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *dir == "" {
			return usagef("--dir is missing")
		}
		repo, found, digest, err := s.findSigned(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.none(args[0])
		}
		index := exported{Image: args[0], Digest: digest}
		for _, x := range found {
			index.Statements = append(index.Statements, exportedFile{fileName(x), x})
		}
		if err := index.addSigned(cmd.Context(), repo, found); err != nil {
			return err
		}
		if err := index.write(cmd.Context(), repo, *dir); err != nil {
			return err
		}
		if _, err = fmt.Fprintf(cmd.OutOrStdout(), "%s in %s\n", count(len(found), "statement"), *dir); err != nil || len(index.Signed) == 0 {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s of their attestations in %s, not verified\n", count(index.signatures(), "signature"), *dir)
		return err
	}
	return cmd
}

// fileName is made of letters, digits, dots and dashes only, whatever a registry says.
func fileName(s statement) string {
	return fileOf(s.Platform, slug(s.PredicateType, "statement"), s.Statement, ".json")
}

func fileOf(platform, kind, digest, extension string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return slug(platform, "unknown") + "-" + kind + "-" + hex[:12] + extension
}

func slug(s, empty string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.':
			return r
		}
		return '-'
	}, strings.ToLower(s))
	s = strings.Trim(s[:min(len(s), 80)], "-.")
	if s == "" {
		return empty
	}
	return s
}

// content is a file to be written.
type content struct {
	name, digest string
	fill         func(*os.File) error
}

// write looks at all names before it writes the first file, so that a refusal changes
// nothing. The index comes last: where it is, everything is.
func (e exported) write(ctx context.Context, repo *repository, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("--dir: %w; name a folder that you can write to", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var index bytes.Buffer
	if err := writeJSON(&index, e); err != nil {
		return err
	}
	files := e.signedContents(ctx, repo)
	for _, f := range e.Statements {
		files = append(files, content{f.File, f.Statement, func(out *os.File) error { return repo.blob(ctx, f.descriptor(), out) }})
	}
	digests := map[string]string{indexFile: ocidoc.DigestOf(index.Bytes())}
	for _, f := range files {
		digests[f.name] = f.digest
	}
	have := map[string]bool{}
	for name, digest := range digests {
		if have[name], err = same(root, name, digest); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	for _, f := range files {
		if have[f.name] {
			continue
		}
		have[f.name] = true
		if err := writeFile(root, f.name, f.fill); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	if have[indexFile] {
		return nil
	}
	return writeFile(root, indexFile, func(out *os.File) error {
		_, err := out.Write(index.Bytes())
		return err
	})
}

// same is false for a file that is not there, and an error for one with other content.
func same(root *os.Root, name, digest string) (bool, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := check(digest, f); err != nil {
		return false, fmt.Errorf("%s is there with other content; choose another folder, or move it away", name)
	}
	return true, nil
}

// writeFile gives the file its name only when it is complete.
func writeFile(root *os.Root, name string, fill func(*os.File) error) error {
	part := name + ".part"
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = errors.Join(fill(f), f.Close())
	if err == nil {
		// Not Rename, which would replace a file that has come into being meanwhile. Where there are no links, as on FAT, it is
		// looked for instead.
		if err = root.Link(part, name); err != nil && !errors.Is(err, fs.ErrExist) {
			if _, there := root.Lstat(name); errors.Is(there, fs.ErrNotExist) {
				return root.Rename(part, name)
			}
		}
	}
	return errors.Join(err, root.Remove(part))
}
