package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	tokenTimeout = 30 * time.Second
	tokenLife    = 60 * time.Second // when the service does not say (distribution's token specification)
	tokenMargin  = 30 * time.Second // renewed so long before its end, or after 3/4 of a shorter life
	clientID     = "sluice"
	maxToken     = 1 << 20 // bytes of an answer
)

// fetchToken gets a token from a token service: GET with Basic or without credentials
// (distribution docs/content/spec/auth/token.md), POST with an identity token (oauth.md there).
func (r *Registry) fetchToken(ctx context.Context, s service, scopes []string, c credential) (grant, error) {
	build := func() *http.Request {
		u := *s.realm
		q := u.Query()
		req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{"User-Agent": {userAgent}}}
		if c.identity != "" {
			form := url.Values{
				"grant_type": {"refresh_token"}, "refresh_token": {c.identity},
				"client_id": {clientID}, "service": {s.name}, "scope": {strings.Join(scopes, " ")},
			}.Encode()
			req.Method = http.MethodPost
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Body = io.NopCloser(strings.NewReader(form))
			req.ContentLength = int64(len(form))
			return req.WithContext(ctx)
		}
		if s.name != "" {
			q.Set("service", s.name)
		}
		for _, scope := range scopes {
			q.Add("scope", scope)
		}
		u.RawQuery = q.Encode()
		if c.username != "" || c.password != "" {
			q.Set("account", c.username)
			u.RawQuery = q.Encode()
			req.Header.Set("Authorization", c.basic())
		}
		return req.WithContext(ctx)
	}
	over := r.quick
	if over == nil {
		over = r.transport
	}
	resp, err := r.newRetry().repeated(ctx, s.realm.Host+" (token service of "+r.base.Host+")", func() (*http.Response, error) {
		resp, err := r.roundTrip(opToken, over, build())
		if err != nil || resp.StatusCode != http.StatusOK {
			return resp, err
		}
		if _, err := readAhead(resp, maxToken); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
		return resp, nil
	})
	if err != nil {
		return grant{}, err
	}
	defer Discard(resp)
	return r.readToken(resp, s, scopes, c)
}

func (r *Registry) readToken(resp *http.Response, s service, scopes []string, c credential) (grant, error) {
	for_ := "no repository"
	if len(scopes) > 0 {
		for_ = strings.Join(scopes, " and ")
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
	case code >= 300 && code < 400:
		// Distribution's client, go-containerregistry and containerd follow it, as net/http does: without the password where it leads to
		// another host, but a refresh token, which is in the body, goes along (307, 308).
		to := ""
		if u, err := s.realm.Parse(resp.Header.Get("Location")); err == nil && resp.Header.Get("Location") != "" {
			to = ", which leads to " + u.Scheme + "://" + u.Host
		}
		return grant{}, errorf(ErrHost, nil, "token service %s of upstream %s answers %s%s: a request for a token is not sent on, since there may be credentials in it; have the registry's token realm corrected, so that it names the place itself",
			s.realm.Host, r.base.Host, status(code), to)
	case code == http.StatusTooManyRequests || code >= 500:
		return grant{}, errorf(ErrUnreachable, nil, "token service %s of upstream %s answers %s; try again later", s.realm.Host, r.base.Host, status(code))
	case c.anonymous():
		return grant{}, errorf(ErrCredentials, nil, "token service %s of upstream %s answers %s to a request without credentials for %s; none are configured for this host: see the upstream's `credentials`",
			s.realm.Host, r.base.Host, status(code), for_)
	default:
		return grant{}, errorf(ErrCredentials, nil, "token service %s of upstream %s answers %s to the configured credentials for %s; check that they are valid and allow this",
			s.realm.Host, r.base.Host, status(code), for_)
	}
	var t struct {
		Token       string    `json:"token"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   float64   `json:"expires_in"`
		IssuedAt    time.Time `json:"issued_at"`
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return grant{}, unreachable(s.realm.Host, err)
	}
	if err := json.Unmarshal(b, &t); err != nil || t.Token == "" && t.AccessToken == "" {
		// The error is not shown: the answer may be a token.
		return grant{}, errorf(ErrCredentials, nil, "token service %s of upstream %s answers something that is no token", s.realm.Host, r.base.Host)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	for _, b := range []byte(t.Token) {
		if b <= ' ' || b == 0x7f {
			return grant{}, errorf(ErrCredentials, nil, "token service %s of upstream %s answers a token with characters that no header may hold", s.realm.Host, r.base.Host)
		}
	}
	life := tokenLife
	if t.ExpiresIn > 0 {
		life = time.Duration(min(t.ExpiresIn, 30*24*3600) * float64(time.Second))
	}
	left := life - age(resp.Header.Get("Date"), t.IssuedAt, r.now(), life)
	now := r.now()
	return grant{header: "Bearer " + t.Token, renewAt: now.Add(left - min(tokenMargin, left/4)), ends: now.Add(left)}, nil
}

// age is how much of its life a token has behind it: some services hand out a cached one. Clocks
// differ, so the service's own Date is asked before ours, and an age that makes no sense is none:
// a token that ends too early for us is fetched for every request, one that ends late costs one 401.
func age(date string, issued, now time.Time, life time.Duration) time.Duration {
	if issued.IsZero() {
		return 0
	}
	if d, err := http.ParseTime(date); err == nil {
		now = d
	}
	if a := now.Sub(issued); a > 0 && a < life {
		return a
	}
	return 0
}

func status(code int) string { return fmt.Sprintf("%d %s", code, http.StatusText(code)) }
