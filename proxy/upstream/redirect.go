package upstream

import (
	"context"
	"net/http"
)

const maxRedirects = 5

// redirected follows the redirects of a read, with Range and without Authorization once they leave
// the registry's host: S3 refuses a pre-signed URL that comes with another credential ("Only one auth
// mechanism allowed"), and nobody else may have it. Only the operator's setting or Sluice itself asks for this.
func (r *Registry) redirected(ctx context.Context, p *plan, resp *http.Response) (*http.Response, error) {
	at, left, try := p.url, false, r.newRetry()
	for n := 0; ; n++ {
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		ref := resp.Header.Get("Location")
		next, err := at.Parse(ref)
		if ref == "" || err != nil {
			return resp, nil // no redirect that anybody could follow: the client may judge
		}
		Discard(resp)
		switch {
		case n == maxRedirects:
			return nil, errorf(ErrHost, nil, "upstream %s: more than %d redirects for repository %s", r.base.Host, maxRedirects, p.q.Repository)
		case next.Scheme != "http" && next.Scheme != "https" || next.Hostname() == "" || next.User != nil:
			return nil, errorf(ErrHost, nil, "upstream %s: redirects repository %s to something that is no http or https URL", r.base.Host, p.q.Repository)
		case at.Scheme == "https" && next.Scheme == "http" && !r.listed(next):
			return nil, errorf(ErrHost, nil, "upstream %s: redirects repository %s to http://%s: plain http is not used for an https registry; add %s to the upstream's `hosts` if that is right",
				r.base.Host, p.q.Repository, next.Host, next.Host)
		}
		next.Fragment, next.RawFragment = "", ""
		authorization := ""
		if left = left || !r.origin(next) || next.Scheme != r.base.Scheme; !left {
			if authorization = p.q.Authorization; r.mode != Passthrough {
				l, err := r.auth.lease(ctx, p)
				if err != nil {
					return nil, err
				}
				authorization = l.header
			}
		}
		to := ctx
		if left && !r.listed(next) && !r.besideUs() && direct(next) {
			to = away(ctx)
		}
		resp, err = try.repeated(to, next.Host, func() (*http.Response, error) {
			resp, _, err := r.attempt(to, p, next, authorization)
			return resp, err
		})
		if err != nil {
			return nil, r.tooNear(err, p.q.Repository, next.Host)
		}
		at = next
	}
}
