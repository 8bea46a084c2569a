package proxytest

import (
	"crypto/subtle"
	"net/http"
)

// RequireBasic lets requests with one user's credentials through and answers all others 401 with a Basic challenge, as
// Amazon ECR does for any method and path.
func RequireBasic(next http.Handler, username, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if !ok || subtle.ConstantTimeCompare([]byte(u), []byte(username))&subtle.ConstantTimeCompare([]byte(p), []byte(password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="proxytest",service="registry"`)
			refuse(w, r, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		next.ServeHTTP(w, r)
	})
}
