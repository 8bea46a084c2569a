package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// listed follows a listing page by page, as clients do, and gives the names under a key.
func (r *rig) listed(path, key string) (pages [][]string) {
	r.t.Helper()
	next := regexp.MustCompile(`^<([^>]+)>; rel="next"$`)
	for range 20 {
		a := r.request(http.MethodGet, path, nil).want(r.t, http.StatusOK)
		var page map[string]json.RawMessage
		if err := json.Unmarshal(a.body, &page); err != nil {
			r.t.Fatal(err)
		}
		var names []string
		if err := json.Unmarshal(page[key], &names); err != nil || names == nil {
			r.t.Fatalf("%s of %s: %v", key, a.body, err)
		}
		pages = append(pages, names)
		link := a.Header.Get("Link")
		if link == "" {
			return pages
		}
		m := next.FindStringSubmatch(link)
		if m == nil || !strings.HasPrefix(m[1], "/v2/") {
			r.t.Fatalf("Link %q of %s", link, path)
		}
		path = m[1]
	}
	r.t.Fatalf("%s has no last page", path)
	return nil
}

// pagedCatalog answers the catalog one name at a time, with cursors that only it understands.
func pagedCatalog(names ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/_catalog" {
				next.ServeHTTP(w, r)
				return
			}
			at := max(slices.Index(names, strings.TrimPrefix(r.URL.Query().Get("last"), "cursor+")), -1) + 1
			if at < len(names)-1 {
				w.Header().Set("Link", `</v2/_catalog?`+url.Values{"last": {"cursor+" + names[at]}, "n": {"1"}}.Encode()+`>; rel="next"`)
			}
			fmt.Fprintf(w, `{"repositories":[%q]}`, names[at])
		})
	}
}

func TestTheCatalogIsWholeUnderTheNamesThatClientsUse(t *testing.T) {
	names := []string{"one", "team/two", "three"}
	allow := func(repositories ...string) setting {
		return with(func(c *config.Config) {
			c.Access.Permissions = []config.Permission{{Identity: "*", Repositories: repositories, Actions: []string{"pull"}}}
		})
	}
	prefix := with(func(c *config.Config) { c.Upstreams[0].Prefix = "p" })
	for _, tt := range []struct {
		name, query string
		settings    []setting
		want        [][]string
	}{
		{"pages are upstream's", "", nil, [][]string{{"one"}, {"team/two"}, {"three"}}},
		{"permissions", "", []setting{allow("team/**", "three")}, [][]string{{"team/two", "three"}}},
		{"permissions, in pages", "?n=1", []setting{allow("one", "three")}, [][]string{{"one"}, {"three"}}},
		{"permission for everything", "", []setting{allow("team/**", "**")}, [][]string{{"one"}, {"team/two"}, {"three"}}},
		{"prefix", "", []setting{prefix}, [][]string{{"p/one", "p/team/two", "p/three"}}},
		{"prefix, in pages", "?n=2", []setting{prefix}, [][]string{{"p/one", "p/team/two"}, {"p/three"}}},
		{"prefix, from a name on", "?last=p/team/two", []setting{prefix}, [][]string{{"p/three"}}},
		{"prefix, from a name that is none on", "?last=p/p", []setting{prefix}, [][]string{{"p/team/two", "p/three"}}},
		{"prefix and permissions", "", []setting{prefix, allow("p/team/**")}, [][]string{{"p/team/two"}}},
		{"nothing that may be pulled", "", []setting{prefix, allow("q/**")}, [][]string{{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: pagedCatalog(names...)}), tt.settings...)
			if got := r.listed("/v2/_catalog"+tt.query, "repositories"); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("pages %v, want %v", got, tt.want)
			}
		})
	}
}

// Registries write the last name of a page into the link to the next one, and a page of nothing that may be pulled says how
// many there are.
func TestNoPageOfTheCatalogTellsOfWhatMayNotBePulled(t *testing.T) {
	names := []string{"hidden/a", "mine/app", "hidden/b", "mine/last", "hidden/c"}
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: pagedCatalog(names...)})
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Permissions = []config.Permission{
			{Identity: "*", Repositories: []string{"mine/**"}, Actions: []string{"pull"}},
			{Identity: "*", Repositories: []string{"**"}, Actions: []string{"push"}},
			{Identity: "somebody", Repositories: []string{"**"}, Actions: []string{"pull"}},
		}
	}))
	for path, link := range map[string]string{
		"/v2/_catalog": "", "/v2/_catalog?n=1": `</v2/_catalog?last=mine%2Fapp&n=1>; rel="next"`, "/v2/_catalog?n=1&last=mine%2Fapp": "",
		"/v2/_catalog?last=hidden%2Fa": "", "/v2/_catalog?last=cursor%2Bhidden%2Fa": "",
	} {
		a := r.request(http.MethodGet, path, nil).want(t, http.StatusOK)
		if got := a.Header.Get("Link"); got != link {
			t.Errorf("%s: Link %q, want %q", path, got, link)
		}
		var page struct{ Repositories []string }
		if err := json.Unmarshal(a.body, &page); err != nil || len(page.Repositories) == 0 || strings.Contains(string(a.body), "hidden") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

// An upstream that names a next page behind each is not followed for ever.
func TestACatalogWithoutAnEndIsAnError(t *testing.T) {
	pages := 0
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/_catalog" {
				next.ServeHTTP(w, r)
				return
			}
			if pages++; pages <= 3000 { // so that the test ends in any case
				w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?last=%d>; rel="next"`, pages))
			}
			fmt.Fprint(w, `{"repositories":[]}`)
		})
	}}), with(func(c *config.Config) { c.Upstreams[0].Prefix = "p" }))
	a := r.request(http.MethodGet, "/v2/_catalog", nil).want(t, http.StatusBadGateway, "UNAVAILABLE")
	if !strings.Contains(string(a.body), "more than 1000 pages") || pages > 1000 {
		t.Errorf("%d pages, and then %s", pages, a.body)
	}
}

// One page of ours is all of upstream's: those who ask at once share them, or each would cost upstream as much.
func TestWhoListsAtOnceCostsUpstreamOneList(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("app%02d", i))
	}
	var pages atomic.Int64
	asked, goOn := make(chan struct{}), make(chan struct{})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		paged := pagedCatalog(names...)(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if pages.Add(1) == 1 {
				close(asked)
				<-goOn
			}
			paged.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Permissions = []config.Permission{{Identity: "*", Repositories: []string{"app0*"}, Actions: []string{"pull"}}}
	}))
	const clients = 20
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			a := r.request(http.MethodGet, "/v2/_catalog?n=2&last=app07", nil)
			if want := `{"repositories":["app08","app09"]}`; a.StatusCode != http.StatusOK || string(a.body) != want {
				t.Errorf("%s %s, want %s", a.Status, a.body, want)
			}
		})
	}
	receive(t, "first page", asked)
	eventually(t, "all clients", func() bool { return r.scrapeNow()["sluice_requests_in_flight"] == clients })
	close(goOn)
	all.Wait()
	if n := pages.Load(); n > int64(clients/2*len(names)) { // one list, and some more where clients come late
		t.Errorf("%d pages for %d clients, the catalog has %d", n, clients, len(names))
	}
}

// What is about no repository says so too when its upstream is away: the catalog, and the first request of a login.
func TestWhatIsAboutNoRepositoryIsAnErrorWhenItsUpstreamIsAway(t *testing.T) {
	away := &proxytest.Upstream{URL: "http://" + freeAddress(t)}
	for _, tt := range []struct {
		name, path string
		setting    setting
	}{
		{"catalog", "/v2/_catalog", with(func(*config.Config) {})},
		{"catalog with a prefix", "/v2/_catalog", with(func(c *config.Config) { c.Upstreams[0].Prefix = "p" })},
		{"login with passthrough", "/v2/", with(func(c *config.Config) {
			c.Access.Mode, c.Upstreams[0].Credentials = config.AccessPassthrough, config.CredentialsPassthrough
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newRig(t, away, tt.setting).request(http.MethodGet, tt.path, nil).want(t, http.StatusBadGateway, "UNAVAILABLE")
			if !strings.Contains(string(a.body), strings.TrimPrefix(away.URL, "http://")) {
				t.Errorf("not about its upstream: %s", a.body)
			}
		})
	}
}

func TestTagsAreListedPageByPageUnderTheClientsName(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, prefix := range []string{"", "p/q"} {
			t.Run("prefix "+prefix, func(t *testing.T) {
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.Upstreams[0].Prefix = prefix }))
				repo := strings.TrimPrefix(prefix+"/team/app", "/")
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				for _, tag := range []string{"a", "b", "c"} {
					r.push(proxytest.BuildKit, repo, tag, tree)
				}
				path := "/v2/" + repo + "/tags/list"
				if got := r.listed(path+"?n=2", "tags"); fmt.Sprint(got) != "[[a b] [c]]" {
					t.Errorf("pages %v", got)
				}
				if got := r.listed(path+"?last=a", "tags"); fmt.Sprint(got) != "[[b c]]" {
					t.Errorf("after a: %v", got)
				}
				a := r.request(http.MethodGet, path+"?n=2", nil).want(t, http.StatusOK)
				if l := a.Header.Get("Link"); !strings.HasPrefix(l, "<"+path+"?") {
					t.Errorf("Link %q leads elsewhere than to %s", l, path)
				}
				var list struct{ Name string }
				if err := json.Unmarshal(a.body, &list); err != nil || list.Name != repo {
					t.Errorf("name %q, want %q", list.Name, repo)
				}
			})
		}
	})
}

// Several registries behind one Sluice: the longest prefix decides, what is sent where differs in
// nothing else, and no blob is mounted from one to the other.
func TestEachPrefixLeadsToItsUpstream(t *testing.T) {
	first, second, rest := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	r := newRig(t, rest, with(func(c *config.Config) {
		for prefix, u := range map[string]*proxytest.Upstream{"a": first, "a/b": second} {
			c.Upstreams = append(c.Upstreams, config.Upstream{Prefix: prefix, URL: u.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass})
		}
	}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	for _, tt := range []struct {
		repo, upstreamRepo string
		upstream           *proxytest.Upstream
	}{
		{"a/app", "app", first}, {"a/b/app", "app", second}, {"a/bc", "bc", first}, {"app", "app", rest}, {"ab/app", "ab/app", rest},
	} {
		r.push(proxytest.BuildKit, tt.repo, "1", tree)
		if got := tt.upstream.Inspect(t).Repository(tt.upstreamRepo).Tags["1"]; got != plain.Digest() {
			t.Errorf("%s is %q in %s of its upstream, want %s", tt.repo, got, tt.upstreamRepo, plain.Digest())
		}
		a := r.request(http.MethodHead, "/v2/"+tt.repo+"/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
		if got := a.Header.Get("Sluice-Forwarded-Digest"); got != plain.Digest() {
			t.Errorf("%s: forwarded as %q, want %s", tt.repo, got, plain.Digest())
		}
		if n := len(r.referrers(tt.repo, tree.Images()[0].Digest).Manifests); n != 1 {
			t.Errorf("%s: %d referrers, want 1", tt.repo, n)
		}
	}
	for _, u := range []*proxytest.Upstream{first, second, rest} {
		proxytest.AssertClean(t, u)
		proxytest.AssertComplete(t, u)
	}
	if got := fmt.Sprint(r.listed("/v2/_catalog?n=3", "repositories")); got != "[[a/app a/b/app a/bc] [ab/app app]]" {
		t.Errorf("catalog %s", got)
	}
	layer := tree.Images()[0].Layers[0].Digest
	for from, status := range map[string]int{"a/app": http.StatusAccepted, "app": http.StatusCreated} {
		r.request(http.MethodPost, "/v2/new/app/blobs/uploads/?from="+url.QueryEscape(from)+"&mount="+layer, nil).want(t, status)
	}
}

func TestACatalogThatUpstreamDoesNotAnswerIsAnError(t *testing.T) {
	for name, how := range map[string]http.HandlerFunc{
		"the connection is cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"it is not JSON":        func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler { return how }}))
			a := r.request(http.MethodGet, "/v2/_catalog", nil).want(t, http.StatusBadGateway)
			if !strings.Contains(string(a.body), "catalog") || strings.Contains(string(a.body), "repository ") {
				t.Errorf("it is said so: %s", a.body)
			}
			if log := r.log.String(); !strings.Contains(log, "request refused") || strings.Contains(log, "bug:") {
				t.Errorf("it is logged so: %s", log)
			}
		})
	}
}

// A part of a catalog does not pass for the whole.
func TestACatalogWhosePagesCannotBeFollowedIsNotCutShort(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/_catalog" {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Link", `</v2/_catalog?last=%zz>; rel="next"`)
			fmt.Fprint(w, `{"repositories":["app"]}`)
		})
	}}), with(func(c *config.Config) { c.Upstreams[0].Prefix = "team" }))
	a := r.request(http.MethodGet, "/v2/_catalog", nil).want(t, http.StatusBadGateway, "UNAVAILABLE")
	if !strings.Contains(string(a.body), "catalog could not be read from upstream") {
		t.Errorf("the answer is %s", a.body)
	}
}
