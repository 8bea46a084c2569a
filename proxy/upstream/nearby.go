package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
)

// A redirect may lead anywhere, and what is there is for whoever reads the blob. This machine's own addresses and those
// of its link, where clouds tell a machine its credentials (169.254.169.254), are no object storage's: only who sits
// here reaches them, and a registry is not to, through Sluice. A name may stand for such an address, so it is looked at
// when the connection is made.

type awayKey struct{}

// away marks a request that has left for a place of the registry's choice.
func away(ctx context.Context) context.Context { return context.WithValue(ctx, awayKey{}, true) }

var errNearby = errorf(ErrHost, nil, "an address that only this machine reaches")

// keepAway is the ControlContext of a net.Dialer.
func keepAway(ctx context.Context, _, address string, _ syscall.RawConn) error {
	if ctx.Value(awayKey{}) == nil {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || nearby(at.Addr()) {
		return errNearby
	}
	return nil
}

func nearby(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast()
}

// direct is false for what a proxy of the environment reaches for us: the connection is the proxy's then, which may be
// nearby.
func direct(u *url.URL) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	return err == nil && proxy == nil
}

// besideUs is true for a registry at such an address itself, whose storage may be there too.
func (r *Registry) besideUs() bool {
	a, err := netip.ParseAddr(r.base.Hostname())
	return loopback(r.base) || err == nil && nearby(a)
}

// tooNear explains what keepAway has refused.
func (r *Registry) tooNear(err error, repo, host string) error {
	if !errors.Is(err, errNearby) {
		return err
	}
	return errorf(ErrHost, nil, "upstream %s: redirects repository %s to %s, which is an address that only this machine reaches; add %s to the upstream's `hosts` if that is right",
		r.base.Host, repo, host, host)
}
