package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"
)

// addInsecure is the flag of every command that talks to a registry.
func addInsecure(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("insecure", false, "allow plain http to a host other than this one")
}

// parseImage reads HOST/NAME[:TAG|@DIGEST]. Docker takes a name without a host for one on Docker Hub; who leaves it out
// here forgot where Sluice is. A registry on this machine may speak plain http.
func parseImage(image string, insecure bool) (name.Reference, error) {
	ref, err := name.ParseReference(image)
	switch {
	case err == nil:
	case strings.Contains(image, "://"):
		return nil, usageError{fmt.Errorf("%q: write HOST/NAME:TAG, without http:// or https://", image)}
	case strings.ToLower(image) != image:
		return nil, usageError{fmt.Errorf("%w (names of repositories are lower case)", err)}
	case !strings.Contains(image, "/"):
		return nil, usageError{fmt.Errorf("%q: write HOST/NAME:TAG or HOST/NAME@DIGEST", image)}
	default:
		return nil, usageError{fmt.Errorf("%q: write HOST/NAME:TAG or HOST/NAME@DIGEST; a tag has at most 128 letters, digits, _ . and -, and a digest is sha256: with 64 hex digits", image)}
	}
	if host, _, isPort := strings.Cut(image, ":"); isPort && isLocal(host) && !strings.Contains(image, "/") {
		return nil, usageError{fmt.Errorf("%q is a host without the name of an image: write %s/NAME:TAG", image, image)}
	}
	if ref.Context().RegistryStr() == name.DefaultRegistry && !strings.HasPrefix(image, "docker.io/") && !strings.HasPrefix(image, name.DefaultRegistry+"/") {
		return nil, usageError{fmt.Errorf("%q has no host: write where Sluice is, as in localhost:5000/%s (an image of Docker Hub is docker.io/...)", image, image)}
	}
	if insecure || isLocal(ref.Context().RegistryStr()) {
		return name.ParseReference(image, name.Insecure)
	}
	return ref, nil
}

// isLocal is about what needs no DNS, and so cannot be made to point elsewhere.
func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// encrypted refuses plain http to other machines. go-containerregistry falls back to it
// for whole private networks, with the credentials.
type encrypted struct {
	http.RoundTripper
	insecure bool
}

var errPlain = errors.New("refusing plain http; --insecure allows it")

func (t encrypted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !t.insecure && !isLocal(r.URL.Host) {
		return nil, errPlain
	}
	return t.RoundTripper.RoundTrip(r)
}

// repository is one repository over the registry API, with the credentials of the
// Docker configuration.
type repository struct {
	name   name.Repository
	client *http.Client
}

// openRepository signs in. scope is one of package transport.
func openRepository(ctx context.Context, ref name.Reference, insecure bool, scope string) (*repository, error) {
	repo := ref.Context()
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = time.Minute
	agent := transport.NewUserAgent(encrypted{base, insecure}, "sluice/"+version())
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, agent, []string{repo.Scope(scope)})
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", repo.RegistryStr(), notARegistry(err))
	}
	return &repository{name: repo, client: &http.Client{Transport: rt}}, nil
}
