package ecrsim_test

import (
	"strings"
	"testing"
	"time"

	"sluice/proxy/ecrsim"
)

// The quotas are those of the account, whatever the repository, and the clock fills them again.
func TestThrottling(t *testing.T) {
	r := newRig(t)
	m := r.image("app", "1", "x")
	r.Update(func(s *ecrsim.Switches) { s.NoThrottling = false })
	for i := range 10 {
		if p := r.put("app", "1", m); p.status != 201 {
			t.Fatalf("manifest %d of the second: %s", i+1, p)
		}
	}
	r.want("the eleventh", r.put("app", "1", m), 429, errorBody("TOOMANYREQUESTS", "Rate exceeded"))
	r.want("another action", r.do("GET", "/v2/app/manifests/1", nil), 200)
	r.clock.pass(100 * time.Millisecond)
	r.want("a tenth of a second later", r.put("app", "1", m), 201)
	r.want("and one more", r.put("app", "1", m), 429)
	r.Update(func(s *ecrsim.Switches) { s.Rates = map[string]float64{"BatchGetImage": 1} })
	r.want("a rate of one's own", r.do("GET", "/v2/app/manifests/1", nil), 200)
	r.want("is used up", r.do("GET", "/v2/app/manifests/1", nil), 429)
	if got := ecrsim.Quotas()["PutImage"]; got != 10 {
		t.Errorf("PutImage is %v per second", got)
	}
}

func TestFaults(t *testing.T) {
	get := func(r *rig) reply { return r.do("GET", "/v2/app/manifests/1", nil) }
	for _, c := range []struct {
		name  string
		fault ecrsim.Fault
		call  func(*rig) reply
		seen  []int // statuses of calls one after another; 0 is a cut connection
	}{
		{"throttling of some calls", ecrsim.Fault{Action: "BatchGetImage", Throttle: true, Skip: 1, Times: 2}, get, []int{200, 429, 429, 200}},
		{"an answer for ever", ecrsim.Fault{Answer: ecrsim.Answer{Status: 503, Code: "UNAVAILABLE"}}, get, []int{503, 503}},
		{"another action", ecrsim.Fault{Action: "PutImage", Throttle: true}, get, []int{200}},
		{"another repository", ecrsim.Fault{Repository: "other", Throttle: true}, get, []int{200}},
		{"an answer that is cut", ecrsim.Fault{Action: "BatchGetImage", Cut: true, CutAfter: 10, Times: 1}, get, []int{0, 200}},
		// Not a HEAD, which Go sends again.
		{"a connection that is cut at once", ecrsim.Fault{Cut: true, Times: 1}, func(r *rig) reply { return r.do("POST", "/v2/app/blobs/uploads/", nil) }, []int{0, 202}},
		{"a body that is cut", ecrsim.Fault{Action: "UploadLayerPart", Cut: true, CutAfter: 1 << 20, Times: 1}, nil, nil},
		{"latency", ecrsim.Fault{Latency: time.Millisecond}, get, []int{200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.image("app", "1", "x")
			if c.seen == nil {
				r.Update(func(s *ecrsim.Switches) { s.Faults = []ecrsim.Fault{c.fault} })
				r.wantCut("PATCH", r.do("PATCH", r.session("app"), strings.Repeat("x", 8<<20)))
				at := r.session("app")
				r.want("the next one", r.do("PATCH", at, "x"), 201)
				return
			}
			r.Update(func(s *ecrsim.Switches) { s.Faults = []ecrsim.Fault{c.fault} })
			for i, status := range c.seen {
				r.Update(func(*ecrsim.Switches) {}) // does not count from the start again
				p := c.call(r)
				if p.err == nil && p.status != status || p.err != nil && status != 0 {
					t.Errorf("call %d: %s, want %d", i+1, p, status)
				}
			}
		})
	}
}

func TestNamedSwitches(t *testing.T) {
	values := map[string]string{
		"": "", "STATUS": "404", "N": "7", "STATUS:CODE": "404:X", "DURATION": "1s", "ACTION:N": "PutImage:1", "ACTION:BYTES": "UploadLayerPart:9", "ACTION": "ecr:PutImage", "PREFIX": "ROOT",
	}
	for _, n := range ecrsim.AllNamed() {
		text := n.Name
		if v, ok := values[n.Value]; !ok {
			t.Errorf("%s takes %s, which this test does not know", n.Name, n.Value)
		} else if v != "" {
			text += "=" + v
		}
		var sw ecrsim.Switches
		if err := sw.Set(text); err != nil {
			t.Error(err)
		}
		if zero := (ecrsim.Switches{}); marshal(sw) == marshal(zero) {
			t.Errorf("%s changes nothing", text)
		}
	}
	for _, bad := range []string{"none", "no-referrers=1", "rate=x", "rate=PutImage:fast", "expired-token=x", "token-life=x", "missing-layer=404", "latency=x", "cut=PutImage"} {
		if err := new(ecrsim.Switches).Set(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
