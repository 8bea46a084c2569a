package proxy

import (
	"net/http"

	"sluice/proxy/internal/objects"
)

// validRepository holds the name grammar of the distribution spec. The router's is wider: it allows a host name in front.
func validRepository(name string) bool { return objects.ValidRepository(name) }

func invalidName(name string) *Failure {
	return refuse(http.StatusBadRequest, codeNameInvalid, "repository name %q is not valid: lower-case letters, digits and single separators ., _, __, - in components divided by /", clip(name))
}
