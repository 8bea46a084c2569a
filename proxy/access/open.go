package access

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// open lets everybody in, or with local whoever asks for this machine by a name that is not a web page's.
//
// Listening on loopback keeps other machines out, but not what they put into a browser here. A page of evil.example
// whose name its owner moves to 127.0.0.1 (DNS rebinding) is of one origin with whatever listens there: it reads every
// answer and sends every request. It cannot change the Host that its requests name. A page that keeps its own address
// reads no answers, but may send some requests; browsers say where these come from, and no registry client does.
type open struct{ local bool }

func (o open) authenticate(r *http.Request) (Identity, error) {
	if o.local {
		if !localName(r.Host) {
			return Identity{}, fmt.Errorf("%w: this registry has no users (access.mode: none) and is asked for as %q, which could be the name of a web page that a browser has open: "+
				"ask for it as localhost or by an IP address, choose another access.mode, or set access.insecure: true", ErrDenied, printable(r.Host))
		}
		if ofAPage(r) {
			return Identity{}, fmt.Errorf("%w: this registry has no users (access.mode: none), and the request is a web page's: "+
				"if that is meant to be, choose another access.mode, or set access.insecure: true", ErrDenied)
		}
	}
	return Identity{Name: anonymous, Key: anonymous}, nil
}

// ofAPage is true for a request that a browser says it makes for a page from elsewhere.
func ofAPage(r *http.Request) bool {
	return r.Header["Origin"] != nil || r.Header.Get("Sec-Fetch-Site") == "cross-site"
}

// OnlyLocal keeps the same pages away from a handler on a loopback address that asks nobody who they are.
func OnlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localName(r.Host) || ofAPage(r) {
			http.Error(w, "this address is for programs on this machine, and the request could be a web page's: ask for it as localhost or by an IP address", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (open) challenge(Scope, bool) []string { return nil }

// toTheHost are names by which virtual machines and containers on this machine reach its loopback address: of Docker
// Desktop, Podman and Lima. The domain .internal is reserved for private use (ICANN, 2024): nobody on the Internet has it.
var toTheHost = [...]string{"host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal"}

// localName is true for a Host that nobody else can lead here: an IP address, for which no name is asked, localhost and
// what is below it (RFC 6761, section 6.3), and names of this machine. For those it allocates nothing.
func localName(host string) bool {
	if strings.HasPrefix(host, "[") { // an IPv6 address
		host, _, _ = strings.Cut(host[1:], "]")
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	host = strings.TrimSuffix(host, ".")
	const below = ".localhost"
	if strings.EqualFold(host, below[1:]) || len(host) > len(below) && strings.EqualFold(host[len(host)-len(below):], below) {
		return true
	}
	for _, name := range toTheHost {
		if strings.EqualFold(host, name) {
			return true
		}
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
