package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// proxyRefusal is a proxy of the environment that lets nothing through to the registry.
type proxyRefusal struct {
	proxy  string // its host: the URL may hold a password
	asked  string
	status int
}

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy %s answers %s to %s", e.proxy, status(e.status), e.asked)
}

// connectAnswered gives the refusal of a proxy its name: net/http's error is nothing but "Forbidden".
func connectAnswered(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &dialError{&proxyRefusal{proxy.Host, "CONNECT " + req.Host, resp.StatusCode}} // nothing was sent to the registry
}

// refusedByProxy is the error for an answer that looks like the registry's and is a proxy's. With plain http there is no CONNECT,
// and 407 is what no registry says: its client would look for a proxy of its own.
func (r *Registry) refusedByProxy(req *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusProxyAuthRequired || req.URL.Scheme != "http" {
		return nil
	}
	t, ok := r.transport.(*http.Transport)
	if !ok || t.Proxy == nil {
		return nil
	}
	proxy, err := t.Proxy(req)
	if err != nil || proxy == nil {
		return nil
	}
	return &dialError{&proxyRefusal{proxy.Host, "a request for " + req.URL.Host, resp.StatusCode}}
}
