package proxy_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// slowly is an upload whose layer has begun to arrive upstream and comes to its end only with finish.
type slowly struct {
	body   *io.PipeWriter
	layer  *proxytest.Blob
	answer chan *http.Response // nil: the connection was cut
}

// uploading starts one through r; arrived is closed when upstream has the beginning.
func (r *running) uploading(layer *proxytest.Blob, arrived <-chan struct{}) *slowly {
	r.t.Helper()
	base := "http://" + r.config.Listen
	location := request(r.t, http.MethodPost, base+"/v2/app/blobs/uploads/", nil).want(r.t, http.StatusAccepted).Header.Get("Location")
	rd, wr := io.Pipe()
	r.t.Cleanup(func() { wr.CloseWithError(io.ErrUnexpectedEOF) }) // whatever failed, nobody waits for the rest
	req, err := http.NewRequest(http.MethodPut, base+put(location, layer.Digest), rd)
	if err != nil {
		r.t.Fatal(err)
	}
	req.ContentLength = layer.Size
	s := &slowly{body: wr, layer: layer, answer: make(chan *http.Response, 1)}
	go func() {
		resp, err := r.client.Do(req)
		if err != nil {
			resp = nil
		} else {
			resp.Body.Close()
		}
		s.answer <- resp
	}()
	if _, err := wr.Write(layer.Bytes()[:layer.Size/2]); err != nil {
		r.t.Fatal(err)
	}
	receive(r.t, "half of the layer upstream", arrived)
	return s
}

// arriving tells when the first bytes of a layer reach the registry.
func arriving() (wrap func(http.Handler) http.Handler, arrived chan struct{}) {
	arrived = make(chan struct{}, 1)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if (r.Method == http.MethodPut || r.Method == http.MethodPatch) && strings.Contains(r.URL.Path, "/blobs/uploads/") {
				first := make([]byte, 1)
				if _, err := io.ReadFull(r.Body, first); err == nil {
					arrived <- struct{}{}
				}
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.MultiReader(bytes.NewReader(first), r.Body), r.Body}
			}
			next.ServeHTTP(w, r)
		})
	}, arrived
}

func TestShutdownLetsARunningUploadFinish(t *testing.T) {
	wrap, arrived := arriving()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: wrap})
	layer := proxytest.RandomLayer("layer", "", 1, 1, 512<<10)
	before := settled(t)
	r := run(t, up, inmemory.New(), nil)
	s := r.uploading(layer, arrived)
	r.stop()
	eventually(t, "not ready", func() bool {
		status, body := r.admin("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "shutting down")
	})
	eventually(t, "closed to new clients", func() bool {
		c, err := net.Dial("tcp", r.config.Listen)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := s.body.Write(layer.Bytes()[layer.Size/2:]); err != nil {
		t.Fatal(err)
	}
	s.body.Close()
	if resp := receive(t, "answer", s.answer); resp == nil || resp.StatusCode != http.StatusCreated {
		t.Errorf("the upload ends with %v", resp)
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	if got := up.Inspect(t).Repository("app").Blobs[layer.Digest].Size; got != layer.Size {
		t.Errorf("upstream has %d bytes of the layer, want %d", got, layer.Size)
	}
	r.noneLeft(before)
}

func TestShutdownCutsAnUploadAtItsTimeout(t *testing.T) {
	wrap, arrived := arriving()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: wrap})
	layer := proxytest.RandomLayer("layer", "", 1, 1, 512<<10)
	before := settled(t)
	const timeout = 200 * time.Millisecond
	r := run(t, up, inmemory.New(), func(c *config.Config) { c.ShutdownTimeout = config.Duration(timeout) })
	s := r.uploading(layer, arrived)
	start := time.Now()
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	if took := time.Since(start); took < timeout || took > timeout+5*time.Second {
		t.Errorf("Run returns after %s, shutdown_timeout is %s", took, timeout)
	}
	eventually(t, "cut off from the client", func() bool {
		_, err := s.body.Write(make([]byte, 1))
		return err != nil
	})
	s.body.CloseWithError(io.ErrUnexpectedEOF) // net/http waits for the reader of a body even when the connection has gone
	if resp := receive(t, "answer", s.answer); resp != nil && resp.StatusCode < 400 {
		t.Errorf("half a layer is answered %s", resp.Status)
	}
	r.noneLeft(before)
	if b, there := up.Inspect(t).Repository("app").Blobs[layer.Digest]; there {
		t.Errorf("upstream has %d bytes of a layer that was cut", b.Size)
	}
	if log := r.log.String(); !strings.Contains(log, "still running after shutdown_timeout") {
		t.Errorf("the log does not say that a request was cut:\n%s", log)
	}
}
