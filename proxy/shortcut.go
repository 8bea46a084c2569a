package proxy

import (
	"net/http"
	"strings"

	"sluice/proxy/observe"
)

// shortcut finds the route of the requests that pushes and pulls are made of, without the router's regular
// expressions, contexts and maps, which cost more than all else that is done with the path. It takes only
// what is spelt as clients spell it; ok is false for everything else, of which the router decides. A test holds it
// equal to the router.
func shortcut(path string) (route observe.Route, name, ref string, ok bool) {
	rest, found := strings.CutPrefix(path, "/v2/")
	if !found {
		return 0, "", "", false
	}
	cut := strings.LastIndexByte(rest, '/')
	if cut < 0 {
		return 0, "", "", false
	}
	rest, ref = rest[:cut], rest[cut+1:]
	if name, found = strings.CutSuffix(rest, "/blobs/uploads"); found {
		switch {
		case ref == "":
			route = observe.RouteUploads
		case token(ref):
			route = observe.RouteUpload
		default:
			return 0, "", "", false
		}
	} else if name, found = strings.CutSuffix(rest, "/blobs"); found && sha256Digest(ref) {
		route = observe.RouteBlob
	} else if name, found = strings.CutSuffix(rest, "/manifests"); found && (sha256Digest(ref) || tag(ref)) {
		route = observe.RouteManifest
	} else {
		return 0, "", "", false
	}
	return route, name, ref, validRepository(name)
}

// token holds the router's grammar of upload URLs.
func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' && c != '=' {
			return false
		}
	}
	return s != ""
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// tag holds the grammar of the distribution spec: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
func tag(s string) bool {
	return len(s) <= 128 && token(s) && s[0] != '-' && s[0] != '.' && !strings.Contains(s, "=")
}

func sha256Digest(s string) bool {
	hex, found := strings.CutPrefix(s, "sha256:")
	if !found || len(hex) != 64 {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// longestPath is longer than any path that the router can have a use for: a repository's name, and a tag or a digest.
// An upload's URL may be longer, and is what shortcut knows. The router asks its regular expressions one after another
// before anybody is asked who they are, and 60 KiB of path keep them busy for up to 90 ms.
const longestPath = 1 << 10

// shortcuts answers what shortcut knows, and leaves the rest to the router.
func (p *Proxy) shortcuts(table map[observe.Route]methods, router http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route, name, ref, ok := shortcut(r.URL.Path); ok {
			p.serve(w, r, route, table[route], name, ref)
			return
		}
		if len(r.URL.Path) > longestPath {
			writeFailure(w, refuse(http.StatusRequestURITooLong, codeNameInvalid, "path of %d bytes is longer than any of the registry API", len(r.URL.Path)))
			drain(w, r)
			return
		}
		router.ServeHTTP(w, r)
	})
}
