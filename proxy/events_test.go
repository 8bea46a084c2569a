package proxy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/notifications"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// listener is a webhook that takes everything.
func listener(t *testing.T) (config.Endpoint, chan notifications.Event) {
	t.Helper()
	got := make(chan notifications.Event, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var envelope struct{ Events []notifications.Event }
		b, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(b, &envelope); err != nil {
			t.Errorf("%q: %v", b, err)
		}
		if r.Header.Get("Authorization") != "Bearer planted" || r.Header.Get("Content-Type") != notifications.EventsMediaType {
			t.Errorf("header %v", r.Header)
		}
		for _, e := range envelope.Events {
			got <- e
		}
	}))
	t.Cleanup(s.Close)
	return config.Endpoint{
		Name: "hook", URL: config.Secret(s.URL + "/planted"), Headers: map[string][]config.Secret{"authorization": {"Bearer planted"}},
		Timeout: config.Duration(5 * time.Second), Threshold: 2, Backoff: config.Duration(10 * time.Millisecond),
	}, got
}

func notify(e config.Endpoint) setting {
	return with(func(c *config.Config) { c.Notifications.Endpoints = []config.Endpoint{e} })
}

func TestAPushAndADeleteAreToldToWebhooks(t *testing.T) {
	hook, got := listener(t)
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Delete: true}), notify(hook))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	forwarded := r.upstreamDigest("app", "1")
	var pushes []notifications.Event
	for len(pushes) == 0 || pushes[len(pushes)-1].Target.Tag == "" {
		pushes = append(pushes, receive(t, "event", got))
	}
	if len(pushes) != 3 {
		t.Errorf("%d events, want those of two images and their index", len(pushes))
	}
	ids := map[string]bool{}
	for i, e := range pushes {
		if e.Action != "push" || e.Target.Repository != "app" || e.Actor.Name != "anonymous" || e.Request.Method != http.MethodPut ||
			e.Request.Addr == "" || e.Request.Host == "" || e.Request.UserAgent == "" || e.Source.Addr == "" || e.Source.InstanceID == "" || e.Timestamp.IsZero() {
			t.Errorf("event %d: %+v", i, e)
		}
		if ids[e.ID] {
			t.Errorf("id %s twice", e.ID)
		}
		ids[e.ID] = true
		if i < 2 && e.Target.Annotations != nil {
			t.Errorf("an image as received has annotations: %v", e.Target.Annotations)
		}
		a := request(t, http.MethodGet, e.Target.URL, nil, acceptAll...).want(t, http.StatusOK)
		if a.Header.Get("Docker-Content-Digest") != e.Target.Digest.String() || a.Header.Get("Content-Type") != e.Target.MediaType || int64(len(a.body)) != e.Target.Size {
			t.Errorf("target %+v is %v", e.Target, a.Header)
		}
	}
	last := pushes[len(pushes)-1].Target
	if last.Digest.String() != forwarded || last.Annotations["sluice.original.digest"] != tree.Digest() || last.Tag != "1" || last.Length != last.Size {
		t.Errorf("target %+v: upstream has %s, pushed was %s", last, forwarded, tree.Digest())
	}
	r.request(http.MethodDelete, "/v2/app/manifests/"+forwarded, nil).want(t, http.StatusAccepted)
	if e := receive(t, "event", got); e.Action != "delete" || e.Target.Digest.String() != forwarded || e.Target.Repository != "app" {
		t.Errorf("delete: %+v", e)
	}
	if strings.Contains(r.log.String(), "planted") {
		t.Error("the log shows a secret of the endpoint")
	}
}

func TestAnEndpointThatIsAwayFailsNoPush(t *testing.T) {
	hook, _ := listener(t)
	hook.URL = config.Secret("http://" + freeAddress(t) + "/planted")
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), notify(hook))
	r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
	if n := r.scrape()[`sluice_events_pending{endpoint="hook"}`]; n != 3 {
		t.Errorf("%v events wait, want 3", n)
	}
	if strings.Contains(r.log.String(), "planted") {
		t.Error("the log shows a secret of the endpoint")
	}
}
