package config

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Notifications are webhooks, with the keys of distribution's configuration.
type Notifications struct {
	Endpoints []Endpoint `yaml:"endpoints"`
}

// Endpoint is one that events are posted to.
type Endpoint struct {
	Name      string              `yaml:"name"`
	URL       Secret              `yaml:"url"` // many webhooks have their password in it
	Headers   map[string][]Secret `yaml:"headers"`
	Timeout   Duration            `yaml:"timeout"`
	Threshold int                 `yaml:"threshold"`
	Backoff   Duration            `yaml:"backoff"`
}

// defaultEndpoint has distribution's defaults.
func defaultEndpoint() Endpoint {
	return Endpoint{Timeout: Duration(time.Second), Threshold: 10, Backoff: Duration(time.Second)}
}

var (
	endpointName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`) // it is a label of metrics
	headerName   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")     // RFC 9110 section 5.6.2
)

func (v *validator) notifications() {
	names := map[string]int{}
	for i, e := range v.Notifications.Endpoints {
		at := fmt.Sprintf("notifications.endpoints[%d]", i)
		if !endpointName.MatchString(e.Name) {
			v.add(at+".name", "%q is not a name of an endpoint: letters, digits, _ . - and at most 63 of them", e.Name)
		} else if j, twice := names[e.Name]; twice {
			v.add(at+".name", "%q is also the name of endpoints[%d]; give each its own", e.Name, j)
		}
		names[e.Name] = i
		u, err := url.Parse(e.URL.Reveal())
		switch {
		case e.URL == "":
			v.add(at+".url", "is missing; write https://host/path")
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !goodPort(u.Port()):
			v.add(at+".url", "is not the address of a webhook; write https://host/path")
		case u.User != nil:
			v.add(at+".url", "holds a user or password; send them in headers: {Authorization: [...]}")
		}
		for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
			if !headerName.MatchString(name) {
				v.add(at+".headers", "has a name that no header has; letters, digits and - are")
				continue
			}
			for _, value := range e.Headers[name] {
				if strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
					v.add(at+".headers."+name, "has a character that no header may hold, such as a line break")
				}
			}
		}
		if e.Timeout <= 0 {
			v.add(at+".timeout", "must be more than 0; an endpoint gets this long to answer")
		}
		if e.Threshold < 1 {
			v.add(at+".threshold", "must be at least 1: after so many failures in a row the next attempt waits for backoff")
		}
		if e.Backoff <= 0 {
			v.add(at+".backoff", "must be more than 0; so long is waited between attempts once the threshold is reached")
		}
	}
}
