package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A request for thousands of bytes one by one, the last first, would be thousands of calls to the storage: each part is
// read from where it begins.
func TestAListOfRangesCostsNoMoreThanTheBlob(t *testing.T) {
	driver := proxytest.NewFailingDriver(inmemory.New())
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(driver))
	b := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","x":"` + strings.Repeat("a", 20<<10) + `"}`)
	path := "/v2/app/blobs/" + ocidoc.DigestOf(b)
	r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(b)), b).want(t, http.StatusCreated)
	driver.Fail(0, proxytest.FaultError)
	r.request(http.MethodGet, path, nil, "Range", "bytes=7-").want(t, http.StatusPartialContent)
	one := driver.Calls()
	var ranges strings.Builder
	for i := 20 << 10; i > 0; i -= 4 {
		fmt.Fprintf(&ranges, ",%d-%d", i, i)
	}
	driver.Fail(0, proxytest.FaultError)
	a := r.request(http.MethodGet, path, nil, "Range", "bytes="+ranges.String()[1:])
	if n := driver.Calls(); n > 2*one {
		t.Errorf("%d calls to the storage, one range costs %d", n, one)
	}
	if a.StatusCode != http.StatusOK || !bytes.Equal(a.body, b) {
		t.Errorf("%s, %d bytes", a.Status, len(a.body))
	}
}
