package main

import (
	"context"
	"crypto/tls"
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
	default:
		return nil, usageError{err}
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

// notARegistry says so, instead of repeating the page that a web server has answered with.
func notARegistry(err error) error {
	// On this machine go-containerregistry asks again in plain http, and what the server says to that is beside the point.
	if untrusted, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return fmt.Errorf("%w; if the authority is your own, name the file of its certificate with SSL_CERT_FILE (on macOS and Windows the system has to trust it)", untrusted)
	}
	var e *transport.Error
	if errors.As(err, &e) && len(e.Errors) == 0 && e.StatusCode >= 400 && e.StatusCode < 500 && e.Request != nil {
		return fmt.Errorf("%s %s: HTTP status %d, but no error of a registry: is this the address of one?", e.Request.Method, e.Request.URL.Redacted(), e.StatusCode)
	}
	// net/http has no value for it. --insecure lets go-containerregistry ask again in plain http.
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("%w; if it speaks plain http, and the network is yours, add --insecure", err)
	}
	return err
}
