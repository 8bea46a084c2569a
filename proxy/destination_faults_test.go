package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A placedCase is a push whose attestations go to a registry, tried with a fault at every place.
type placedCase struct {
	faultCase
	to       config.StoreTo
	upstream upstreamFunc
}

var placedCases = map[string]placedCase{
	"legacy to a repository":    {faultCase{push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Store}, config.StoreToRepository, proxytest.NewDistribution},
	"artifact to referrers":     {faultCase{push: proxytest.BuildKit, form: proxytest.FormArtifact, act: filters.Store}, config.StoreToReferrers, proxytest.NewDistribution},
	"legacy to a referrers API": {faultCase{push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Store}, config.StoreToReferrers, proxytest.NewOlareg},
}

// check is as for the storage, and a push that ended well has its attestations in the registry.
func (c placedCase) check(r *rig, tree, plain *proxytest.Tree, heal func()) {
	r.t.Helper()
	repo := inRegistry[c.to]
	holds := func() {
		r.t.Helper()
		proxytest.AssertComplete(r.t, r.upstream)
		if c.to == config.StoreToRepository {
			r.imagesOnly("app")
		}
		a := r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...)
		if a.StatusCode == http.StatusOK {
			if got := a.Header.Get("Docker-Content-Digest"); got != plain.Digest() {
				r.t.Errorf("upstream's tag is %s, the only right answer is %s (I6)", got, plain.Digest())
			}
			r.attestedUpstream(repo, tree, true) // they went before the tag
		}
	}
	first := c.try(r, tree)
	r.quiet(first)
	heal()
	holds()
	if first == nil {
		r.finished(tree, plain, c.act)
	}
	r.restart()
	if err := c.try(r, tree); err != nil {
		r.t.Fatalf("the retry fails too: %v (the first time: %v)", err, first)
	}
	r.quiet(nil)
	holds()
	r.finished(tree, plain, c.act)
	r.attestedHere("app", tree)
}

// I1, I6, I7 with attestations in a registry: upstream's n-th request fails, for every n.
func TestAPushToADestinationSurvivesEveryFaultOfTheRegistry(t *testing.T) {
	for name, c := range placedCases {
		kinds := []proxytest.Kind{proxytest.FaultError, proxytest.FaultCutAfter, proxytest.FaultDenied}
		if c.to == config.StoreToReferrers {
			kinds = kinds[1:] // they share all but their order
		}
		for _, kind := range kinds {
			t.Run(name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				tree, plain := c.trees()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					up := c.upstream(t, proxytest.UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
						f := proxytest.NewFailingUpstream(h)
						f.Fault = fault
						return f
					}})
					c.check(newRig(t, up, storeTo(c.to)), tree, plain, heal)
				})
			})
		}
	}
}

// The same for the storage's n-th call.
func TestAPushToADestinationSurvivesEveryFaultOfTheStorage(t *testing.T) {
	c := placedCases["legacy to a repository"]
	for _, kind := range []proxytest.Kind{proxytest.FaultError, proxytest.FaultDeadAfter} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			tree, plain := c.trees()
			fault := &proxytest.Fault{}
			proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
				driver := proxytest.NewFailingDriver(inmemory.New())
				r := newRig(t, c.upstream(t, proxytest.UpstreamOptions{}), storeTo(c.to), storage(driver))
				driver.Fault = fault
				c.check(r, tree, plain, heal)
			})
		})
	}
}

// closed answers writes to one repository with a status.
func closed(repo string, status int, code string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v2/"+repo+"/") && r.Method != http.MethodGet && r.Method != http.MethodHead {
				if status == http.StatusUnauthorized && code == "UNAUTHORIZED" {
					w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
				} else if status == http.StatusUnauthorized {
					w.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.example.com/token",service="registry",scope="repository:`+repo+`:pull,push"`)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"not for you"}]}`, code)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestADestinationThatFailsIsWhatOnStorageErrorSays(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		want   int
		says   string
	}{
		"denied":      {http.StatusForbidden, "DENIED", http.StatusForbidden, "allow the credentials that sluice uses there"},
		"logged out":  {http.StatusUnauthorized, "UNAUTHORIZED", http.StatusForbidden, "allow the credentials that sluice uses there"},
		"not there":   {http.StatusNotFound, "NAME_UNKNOWN", http.StatusNotFound, "create the repository"},
		"unavailable": {http.StatusInternalServerError, "UNKNOWN", http.StatusTooManyRequests, "push again"},
	} {
		for _, what := range []config.OnStorageError{config.StorageErrorReject, config.StorageErrorForward, config.StorageErrorStrip} {
			t.Run(name+" "+string(what), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
				up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: closed("app-attestations", c.status, c.code)})
				r := newRig(t, up, storeTo(config.StoreToRepository), with(func(c *config.Config) { c.OnStorageError = what }))
				err := tryPush(r, proxytest.BuildKit, tree)
				proxytest.AssertComplete(t, up)
				tag := r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).Header.Get("Docker-Content-Digest")
				switch what {
				case config.StorageErrorReject:
					a := r.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", ociIndex).want(t, c.want)
					for _, word := range []string{"app-attestations", c.says} {
						if !strings.Contains(string(a.body), word) {
							t.Errorf("the answer does not say %q: %s", word, a.body)
						}
					}
					if err == nil || tag != "" {
						t.Errorf("the push ended with %v, the tag is %q", err, tag)
					}
				case config.StorageErrorForward:
					if err != nil || tag != tree.Digest() {
						t.Errorf("the push ended with %v, the tag is %q, want the whole index", err, tag)
					}
				case config.StorageErrorStrip:
					if err != nil || tag != plain.Digest() {
						t.Errorf("the push ended with %v, the tag is %q, want the images", err, tag)
					}
					proxytest.AssertClean(t, up)
				}
			})
		}
	}
}

// With passthrough the client's own credentials must be allowed at the destination, whatever on_storage_error says: it
// is about failures, and a 401 is how clients learn for which repository they need a token.
func TestTheClientsOwnCredentialsMustAllowTheDestination(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
				return byTenant(closed("alice/app-attestations", status, "DENIED")(h))
			}})
			r := newRig(t, up, storeTo(config.StoreToRepository), with(passthrough), with(func(c *config.Config) { c.OnStorageError = config.StorageErrorStrip }))
			o := proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}
			if _, err := proxytest.BuildKit(context.Background(), o); err == nil {
				t.Error("the push ended well although its attestations were not stored")
			}
			a := r.request(http.MethodPut, "/v2/alice/app/manifests/1", tree.Root.Bytes(), "Content-Type", ociIndex, "Authorization", alice).want(t, status)
			if status == http.StatusForbidden && !strings.Contains(string(a.body), "these credentials must be allowed to push") {
				t.Errorf("the answer does not say what to do: %s", a.body)
			}
			if status == http.StatusUnauthorized && !strings.Contains(a.Header.Get("WWW-Authenticate"), "alice/app-attestations") {
				t.Errorf("the client is not told which token it needs: %v", a.Header)
			}
			r.direct(http.MethodHead, "/v2/alice/app/manifests/1", nil, "Authorization", alice).want(t, http.StatusNotFound)
		})
	}
}

// I9: what is stored in another repository is for whoever upstream lets read it there.
func TestAStrangerReadsNothingFromTheDestination(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: byTenant})
	r := newRig(t, up, storeTo(config.StoreToRepository), with(passthrough))
	o := proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}
	if _, err := proxytest.BuildKit(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/v2/alice/app/blobs/" + tree.Statements()[0].Digest, "/v2/alice/app/manifests/" + tree.Digest(), "/v2/alice/app/manifests/" + tree.Attestations()[0].Digest,
	} {
		r.request(http.MethodGet, path, nil, append([]string{"Authorization", alice}, acceptAll...)...).want(t, http.StatusOK)
		r.request(http.MethodGet, path, nil, append([]string{"Authorization", mallory}, acceptAll...)...).want(t, http.StatusNotFound)
	}
}

// A statement that its registry has and does not give now is worth another try, and nobody takes a part of it for the whole.
func TestAStatementThatItsRegistryDoesNotGiveIsWorthAnotherTry(t *testing.T) {
	m := &moody{}
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: m.wrap}), storeTo(config.StoreToRepository))
	r.push(proxytest.BuildKit, "app", "1", tree)
	digest := tree.Statements()[0].Digest
	r.request(http.MethodDelete, "/v2/app/blobs/"+digest, nil).want(t, http.StatusAccepted) // of what is still held here
	m.mood.Store(&mood{is(http.MethodGet, "/v2/app-attestations/blobs/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusInternalServerError)
	}})
	parts := []string{"bytes=1-", "bytes=1-2", "bytes= -3", "bytes=-3", "bytes=2-3,0-1"}
	for _, asked := range parts {
		a := r.request(http.MethodGet, "/v2/app/blobs/"+digest, nil, "Range", asked).want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
		if said := string(a.body); a.Header.Get("Content-Range") != "" || !strings.Contains(said, digest) {
			t.Errorf("the answer to %s is %v, %s", asked, a.Header, said)
		}
	}
	a := r.request(http.MethodGet, "/v2/app/blobs/"+digest, nil).want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	if said := string(a.body); a.Header.Get("Retry-After") == "" || !strings.Contains(said, digest) || !strings.Contains(said, "500 Internal Server Error") {
		t.Errorf("the answer is %v, %s", a.Header, said)
	}
	attestation := tree.Attestations()[0] // that is to be in the registry, and the statement before it
	a = r.request(http.MethodPut, "/v2/app/manifests/attestation", attestation.Bytes(), "Content-Type", ociManifest).want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	if said := string(a.body); !strings.Contains(said, digest) || !strings.Contains(said, "500 Internal Server Error") || strings.Contains(said, "storage of sluice") {
		t.Errorf("the answer is %s", said)
	}
	if n := r.scrape()["sluice_storage_errors_total"]; n != 0 {
		t.Errorf("%v errors are put down to the storage", n)
	}
	m.heal()
	whole := string(r.request(http.MethodGet, "/v2/app/blobs/"+digest, nil).want(t, http.StatusOK).body)
	for i, want := range []string{whole[1:], whole[1:3], whole[len(whole)-3:], whole[len(whole)-3:]} {
		a := r.request(http.MethodGet, "/v2/app/blobs/"+digest, nil, "Range", parts[i]).want(t, http.StatusPartialContent)
		if string(a.body) != want {
			t.Errorf("%s is %q, want %q", parts[i], a.body, want)
		}
	}
}
