package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"sluice/proxy/access"
	"sluice/proxy/internal/contain"
	"sluice/proxy/upstream"
)

// asDigest is for digests that were checked where they came in.
func asDigest(s string) godigest.Digest { return godigest.Digest(s) }

// listTags passes upstream's list, page by page. Cursors are opaque (ECR): they go both ways as they are.
func (ex *exchange) listTags() error {
	q := upstream.Request{Method: http.MethodGet, Path: "tags/list", Query: ex.pageQuery()}
	var resp *http.Response
	var b []byte
	var err error
	if ex.repo == ex.upRepo {
		resp, err = ex.do(q)
	} else {
		resp, b, err = askWhole(ex.do, q, maxListing)
	}
	if resp == nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &passed{resp}
	}
	if l := ex.relink(resp.Header.Get("Link")); l != "" {
		ex.w.Header().Set("Link", l)
	}
	if ex.repo == ex.upRepo {
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") { // ECR's
			resp.Header.Set("Content-Type", "application/json")
		}
		ex.passResponse(resp)
		return nil
	}
	// The name in the body is the client's, with the prefix.
	if err != nil {
		return refuse(http.StatusBadGateway, codeUnavailable, "tags of repository %s could not be read from upstream: %v", ex.repo, err)
	}
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return refuse(http.StatusBadGateway, codeUnavailable, "tags of repository %s could not be read from upstream: %v", ex.repo, err)
	}
	list.Name = ex.repo
	return writeJSON(ex.w, list)
}

// maxPageOnECR is the largest page of a list: ECR refuses a larger n with 405, where the distribution spec
// lets a registry give fewer and a Link.
const maxPageOnECR = 1000

// pageQuery is the client's, within what upstream takes.
func (ex *exchange) pageQuery() url.Values {
	q := ex.r.URL.Query()
	if n, err := strconv.Atoi(q.Get("n")); err == nil && n > maxPageOnECR && ex.onECR() {
		q.Set("n", strconv.Itoa(maxPageOnECR))
	}
	return q
}

// maxListing bounds a page of tags or repositories: a thousand names of the longest kind fit.
const maxListing = 8 << 20

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, err = w.Write(b)
	return err
}

var linkForm = regexp.MustCompile(`<([^>]*)>\s*;\s*rel="?next"?`)

// relink points upstream's next page at Sluice, keeping the cursor.
func (ex *exchange) relink(link string) string {
	m := linkForm.FindStringSubmatch(link)
	if m == nil {
		return ""
	}
	u, err := url.Parse(m[1])
	if err != nil {
		return ""
	}
	path := ex.r.URL.EscapedPath()
	return "<" + path + "?" + u.RawQuery + `>; rel="next"`
}

// catalog lists the repositories of every upstream under the names that clients use, those left
// out that this client may not pull. With one upstream its pages are passed on as they are, to whom permissions hide nothing:
// the link to the next page has the last name of this one in it, and what is missing of a page is so much that is hidden.
func (p *Proxy) catalog(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.Method != http.MethodGet {
		methodNotAllowed(w, r)
		return
	}
	id, fail := p.admit(r, access.Scope{Catalog: true})
	watching(w).identity = id.Name
	if fail != nil {
		writeFailure(w, fail)
		return
	}
	var names []string
	own := len(p.upstreams) > 1 || p.upstreams[0].prefix != "" || !p.access.ListedWhole(id) // pages are made here, of all names
	n, cursor := pageOf(r.URL.Query())
	for _, u := range p.upstreams {
		ex := &exchange{p: p, w: w, seen: watching(w), r: r, up: u.registry, id: id, log: p.log}
		if u.registry.Passthrough() {
			ex.auth = r.Header.Get("Authorization")
		}
		var page []string
		var next string
		var err error
		if own {
			page, err = ex.wholeCatalog(u.prefix)
		} else {
			page, next, err = ex.catalogPage(ex.pageQuery(), false)
		}
		if err != nil {
			ex.finish(err, 0)
			return
		}
		for _, name := range page {
			full := u.clientName(name)
			if b, _ := p.owner(full); b == u && p.access.Listed(id, full) {
				names = append(names, full)
			}
		}
		if next != "" {
			if l := ex.relink(next); l != "" {
				w.Header().Set("Link", l)
			}
		}
	}
	if own {
		sort.Strings(names)
		names = pageAfter(names, n, cursor, w)
	}
	_ = writeJSON(w, struct {
		Repositories []string `json:"repositories"`
	}{append([]string{}, names...)})
}

func pageOf(q url.Values) (n int, last string) {
	n, err := strconv.Atoi(q.Get("n"))
	if err != nil || n < 0 {
		n = 0
	}
	return n, q.Get("last")
}

// pageAfter cuts one page out of a whole sorted list.
func pageAfter(names []string, n int, last string, w http.ResponseWriter) []string {
	if last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	if n > 0 && len(names) > n {
		names = names[:n]
		w.Header().Set("Link", `</v2/_catalog?`+url.Values{"n": {strconv.Itoa(n)}, "last": {names[n-1]}}.Encode()+`>; rel="next"`)
	}
	return names
}

// catalogTime bounds the reading of all pages, whether or not somebody still waits for them.
const catalogTime = 5 * time.Minute

// wholeCatalog reads all pages of an upstream, of which there is one for a prefix. Who asks while they are being read,
// with the same credentials, gets the same: a request for one name costs upstream up to a thousand, and any number of
// them at once would cost as many times that.
func (ex *exchange) wholeCatalog(prefix string) (names []string, err error) {
	credentials := sha256.Sum256([]byte(ex.auth))
	ch := ex.p.catalogs.DoChan(prefix+"\n"+string(credentials[:]), func() (_ any, err error) {
		defer contain.Panic(&err)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ex.ctx()), catalogTime)
		defer cancel()
		defer context.AfterFunc(ex.p.life, cancel)()
		shared := *ex
		shared.r = ex.r.WithContext(ctx) // not this client's: others wait for the same
		names, _, err := shared.catalogPage(url.Values{}, true)
		if refused, is := errors.AsType[*passed](err); is {
			return keepAnswer(refused.resp), nil
		}
		return names, err
	})
	select {
	case <-ex.ctx().Done():
		ex.p.background.Go(func() { <-ch })
		return nil, ex.ctx().Err()
	case r := <-ch:
		if kept, is := r.Val.(*keptAnswer); is {
			return nil, &passed{kept.response()}
		}
		names, _ = r.Val.([]string)
		return names, r.Err
	}
}

// catalogPage reads one page, or all of them.
func (ex *exchange) catalogPage(query url.Values, all bool) (names []string, next string, err error) {
	for pages := 1; ; pages++ {
		resp, b, err := askWhole(ex.do, upstream.Request{Method: http.MethodGet, Path: "_catalog", Query: query}, maxListing)
		if resp == nil {
			return nil, "", err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, "", &passed{resp}
		}
		if err != nil {
			return nil, "", ex.badCatalog(err)
		}
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, "", ex.badCatalog(err)
		}
		if names = append(names, page.Repositories...); len(names) > maxCatalog {
			return nil, "", ex.badCatalog(fmt.Errorf("more than %d repositories", maxCatalog))
		}
		next = resp.Header.Get("Link")
		m := linkForm.FindStringSubmatch(next)
		if !all || m == nil {
			return names, next, nil
		}
		if pages >= maxCatalogPages { // they may be empty, and without end
			return nil, "", ex.badCatalog(fmt.Errorf("more than %d pages", maxCatalogPages))
		}
		_, raw, _ := strings.Cut(m[1], "?")
		if query, err = url.ParseQuery(raw); err != nil {
			return nil, "", ex.badCatalog(err)
		}
	}
}

// maxCatalog bounds the names that are held to make one page of several upstreams.
const maxCatalog = 100_000

// maxCatalogPages are as many at 100 names each, which is what registries put into a page.
const maxCatalogPages = maxCatalog / 100

func (ex *exchange) badCatalog(err error) error {
	return refuse(http.StatusBadGateway, codeUnavailable, "catalog could not be read from upstream %s: %v", ex.up.Host(), err).because(err)
}
