package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// I7, I8: whatever a client says of a layer, upstream has it whole or not at all, and the honest upload after it ends well.
func TestALayerThatIsNotWhatTheClientSaidIsNowhere(t *testing.T) {
	layer := proxytest.RandomLayer("layer", "", 1, 1, 256<<10)
	other := proxytest.RandomLayer("other", "", 2, 1, 256<<10)
	for name, send := range map[string]func(r *rig, location string){
		"another digest": func(r *rig, location string) {
			r.request(http.MethodPut, put(location, layer.Digest), other.Bytes()).want(r.t, http.StatusBadRequest, "DIGEST_INVALID")
		},
		"more announced than sent": func(r *rig, location string) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
			if err != nil {
				r.t.Fatal(err)
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", put(location, layer.Digest), 2*layer.Size)
			_, _ = conn.Write(layer.Bytes())
			_ = conn.(*net.TCPConn).CloseWrite()
			if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 2") {
				r.t.Errorf("half of what was announced is answered %.100s", answer)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
			send(r, r.upload("app"))
			r.direct(http.MethodHead, "/v2/app/blobs/"+layer.Digest, nil).want(t, http.StatusNotFound)
			r.request(http.MethodPut, put(r.upload("app"), layer.Digest), layer.Bytes()).want(t, http.StatusCreated)
			r.direct(http.MethodHead, "/v2/app/blobs/"+layer.Digest, nil).want(t, http.StatusOK)
			proxytest.AssertComplete(t, r.upstream)
		})
	}
}
