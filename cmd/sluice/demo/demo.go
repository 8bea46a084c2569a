// Package demo shows what Sluice is for: one image that BuildKit made, with provenance and SBOM, pushed to
// Amazon ECR twice, directly and through Sluice, and what ECR then lists.
package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// The repositories that the demo makes, and the tag it pushes.
const (
	direct  = "sluice-demo/direct"
	through = "sluice-demo/through"
	tag     = "1.0"
)

// Options say where to push.
type Options struct {
	Registry string // URL of an Amazon ECR registry
	Sluice   string // host:port of a Sluice in front of it, asked over plain http

	// Attestations prints what Sluice has taken out of an image.
	Attestations func(ctx context.Context, image string, w io.Writer) error
}

// Run pushes and prints.
func Run(ctx context.Context, o Options, w io.Writer) error {
	img, err := readLayout(layout)
	if err != nil {
		return err
	}
	a, err := openAccount(ctx, o.Registry)
	if err != nil {
		return err
	}
	auth, err := a.authenticator(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "The image: linux/amd64 and linux/arm64, built by BuildKit with provenance and SBOM.\n")
	for _, to := range []struct {
		how, host, repository string
		plain                 bool
		auth                  authn.Authenticator
	}{
		{"directly", a.host, direct, a.plain, auth},
		{"through Sluice", o.Sluice, through, true, authn.Anonymous},
	} {
		if err := a.create(ctx, to.repository); err != nil {
			return err
		}
		fmt.Fprintf(w, "\nPush %s: %s/%s:%s\n", to.how, to.host, to.repository, tag)
		ref, err := reference(to.host, to.repository, to.plain)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(ref, img, remote.WithContext(ctx), remote.WithAuth(to.auth), remote.WithTransport(http.DefaultTransport)); err != nil {
			return fmt.Errorf("push %s: %w", to.how, err)
		}
		images, err := a.images(ctx, to.repository)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "ECR lists in %s:\n", to.repository)
		if err := printTable(w, images); err != nil {
			return err
		}
		if n := untagged(images); n > 0 {
			fmt.Fprintf(w, "  %d untagged entries of 0.01 MB: the attestations.\n", n)
		} else {
			fmt.Fprintf(w, "  No attestations.\n")
		}
	}
	image := fmt.Sprintf("%s/%s:%s", o.Sluice, through, tag)
	fmt.Fprintf(w, "\nNothing is lost. This is what `sluice attestations list %s` prints:\n", image)
	return o.Attestations(ctx, image, w)
}

func reference(host, repository string, plain bool) (name.Reference, error) {
	var options []name.Option
	if plain {
		options = append(options, name.Insecure)
	}
	return name.NewTag(host+"/"+repository+":"+tag, options...)
}
