package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Upstream's 401 is the operator's business, and the answer says which: there are no credentials, or they are refused.
func TestARegistryThatDoesNotLetSluiceInIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		credentials setting
		want        string
	}{
		"without credentials": {with(func(*config.Config) {}), "wants a login for repository app, and sluice has none for it"},
		"with others": {with(func(c *config.Config) {
			u := &c.Upstreams[0]
			u.Credentials, u.Username, u.Password = config.CredentialsBasic, "somebody", "planted"
		}), "refused the credentials that sluice sends for repository app"},
	} {
		t.Run(name, func(t *testing.T) {
			up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				})
			}})
			r := newRig(t, up, c.credentials)
			a := r.request(http.MethodGet, "/v2/app/manifests/1", nil).want(t, http.StatusForbidden, "DENIED")
			host := strings.TrimPrefix(up.URL, "http://")
			for place, text := range map[string]string{"the answer": string(a.body), "the log": r.log.String()} {
				if !strings.Contains(text, host) || !strings.Contains(text, c.want) || strings.Contains(text, "planted") {
					t.Errorf("%s: %s", place, text)
				}
			}
		})
	}
}
