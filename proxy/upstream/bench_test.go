package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

const benchSize = 256 << 20

// BenchmarkUpload sends a layer through a proxy that does nothing else: Do, and ReverseProxy as the
// measure. cpu-s/GiB counts the whole process, so client and sink are in it on both sides.
//
//	go test -run - -bench Upload -benchtime 8x ./proxy/upstream
func BenchmarkUpload(b *testing.B) {
	sink := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 1<<20)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
		}
		w.WriteHeader(201)
	})
	cert, ca := authority(b, "bench")
	file := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		b.Fatal(err)
	}
	plain := httptest.NewServer(sink)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(sink)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	defer secure.Close()

	for _, up := range []struct{ name, url string }{{"http", plain.URL}, {"tls", secure.URL}} {
		u, _ := url.Parse(up.url)
		reg, err := New(Options{URL: up.url, CA: file, Credentials: Anonymous})
		if err != nil {
			b.Fatal(err)
		}
		defer reg.Close()
		ours := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := reg.Do(r.Context(), Request{Method: r.Method, Repository: "app", Path: "blobs/uploads/1", Body: r.Body, ContentLength: r.ContentLength, Push: true})
			if err != nil {
				b.Error(err)
				w.WriteHeader(502)
				return
			}
			resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
		})
		reverse := httputil.NewSingleHostReverseProxy(u)
		reverse.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		for _, p := range []struct {
			name string
			h    http.Handler
		}{{"do", ours}, {"reverseproxy", reverse}} {
			for _, c := range []struct {
				name   string
				length int64
			}{{"length", benchSize}, {"chunked", -1}} {
				b.Run(up.name+"/"+c.name+"/"+p.name, func(b *testing.B) {
					front := httptest.NewServer(p.h)
					defer front.Close()
					b.SetBytes(benchSize)
					b.ReportAllocs()
					before := cpu()
					b.ResetTimer()
					for range b.N {
						req, _ := http.NewRequestWithContext(context.Background(), "PUT", front.URL+"/v2/app/blobs/uploads/1", io.LimitReader(zeros{}, benchSize))
						req.ContentLength = c.length
						resp, err := http.DefaultClient.Do(req)
						if err != nil {
							b.Fatal(err)
						}
						resp.Body.Close()
						if resp.StatusCode != 201 {
							b.Fatal(resp.Status)
						}
					}
					b.ReportMetric((cpu()-before)/(float64(b.N)*benchSize/(1<<30)), "cpu-s/GiB")
				})
			}
		}
	}
}

// cpu is the processor time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
