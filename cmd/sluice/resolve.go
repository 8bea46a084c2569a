package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"sluice/filters/ocidoc"
)

// forwardedHeader is how Sluice says what a pushed document was forwarded as.
const forwardedHeader = "Sluice-Forwarded-Digest"

// maxErrorBody bounds what is drained of an answer that is not wanted.
const maxErrorBody = 64 << 10

func newResolve() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resolve IMAGE",
		Short: "Print the reference to deploy and sign: what is in the registry",
		Long: `Print IMAGE by the digest that it has in the registry behind the proxy: the one to deploy
and to sign. IMAGE is a tag, or the digest that the build reported, which is that of the
original: when attestations were taken out, the registry holds it under another one.

For an image that went through unchanged, or a registry without Sluice in front, it is
the image's own digest. Credentials come from the Docker configuration.`,
		Example: `  sluice resolve localhost:5000/app:1

  # From the digest that buildx has written with --metadata-file.
  sluice resolve localhost:5000/app@$(jq -r '."containerimage.digest"' metadata.json)

  cosign sign $(sluice resolve localhost:5000/app:1)`,
		Args: exactly("IMAGE"),
	}
	output := cmd.Flags().String("output", "text", "`FORMAT`: text, json")
	insecure := addInsecure(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneOf("output", *output, "text", "json"); err != nil {
			return err
		}
		ref, err := parseImage(args[0], *insecure)
		if err != nil {
			return err
		}
		repo, err := openRepository(cmd.Context(), ref, *insecure, transport.PullScope)
		if err != nil {
			return err
		}
		r, err := repo.resolve(cmd.Context(), ref)
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(cmd.OutOrStdout(), r)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), r.Reference)
		return err
	}
	return cmd
}

// resolved is the JSON output of resolve.
type resolved struct {
	Image     string `json:"image"`              // as it was asked for
	Reference string `json:"reference"`          // repository@forwarded
	Forwarded string `json:"forwarded"`          // the digest in the registry
	Original  string `json:"original,omitempty"` // the digest that was pushed, if it is known and another
	Source    string `json:"source"`             // the header that Forwarded was taken from, or "content"
}

func (r *repository) resolve(ctx context.Context, ref name.Reference) (*resolved, error) {
	fail := func(err error) (*resolved, error) { return nil, fmt.Errorf("%s: %w", ref, err) }
	out := &resolved{Image: ref.String()}
	resp, err := r.do(ctx, http.MethodHead, "manifests/"+ref.Identifier(), acceptManifests...)
	if err != nil {
		return fail(err)
	}
	resp.Body.Close()
	own := resp.Header.Get("Docker-Content-Digest")
	forwarded := resp.Header.Get(forwardedHeader)
	switch {
	case forwarded != "" && resp.StatusCode == http.StatusNotFound:
		// The original's bytes are forgotten after retention, the alias never.
		out.Forwarded, out.Source = forwarded, forwardedHeader
	case resp.StatusCode != http.StatusOK:
		return fail(r.reason(ctx, ref.Identifier(), resp))
	case forwarded != "":
		out.Forwarded, out.Source = forwarded, forwardedHeader
	case own != "":
		out.Forwarded, out.Source = own, "Docker-Content-Digest"
	default: // optional in the distribution spec
		doc, err := r.manifest(ctx, ref.Identifier())
		if err != nil {
			return nil, err
		}
		out.Forwarded, out.Source = doc.Digest(), "content"
	}
	if _, byDigest := ref.(name.Digest); byDigest {
		own = ref.Identifier()
	}
	for _, d := range []string{out.Forwarded, own} {
		if d != "" && !ocidoc.ValidDigest(d) {
			return fail(fmt.Errorf("the registry answered with a digest that is none: %q", d))
		}
	}
	if own != out.Forwarded {
		out.Original = own
	}
	out.Reference = r.name.Name() + "@" + out.Forwarded
	return out, nil
}

// reason asks again with GET: the answer to HEAD has no body to say why.
func (r *repository) reason(ctx context.Context, reference string, head *http.Response) error {
	headErr := checkStatus(head, http.StatusOK)
	resp, err := r.do(ctx, http.MethodGet, "manifests/"+reference, acceptManifests...)
	if err != nil {
		return headErr
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return headErr
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxErrorBody), resp.Body}
	return checkStatus(resp, http.StatusOK)
}
