package upstream

import "net/http"

// NoReferrersAPI says of the status of an answer to "Listing Referrers" that the registry does not know that API. The spec
// says 404; distribution answers that from its router, others 405 or 400, ghcr.io a redirect to a web page
// (artifacthub/hub issue 4785), Artifactory 406 (go-containerregistry issue 1962).
func NoReferrersAPI(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest, http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return status >= 300 && status < 400
}
