//go:build unix

package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// benchPeer makes the test binary a client or a sink of the benchmark, in a process of its own: what is
// measured is then the processor time of the proxy in the middle alone.
const benchPeer = "SLUICE_BENCH_PEER"

func TestMain(m *testing.M) {
	switch peer := strings.Fields(os.Getenv(benchPeer)); {
	case len(peer) == 0:
		os.Exit(m.Run())
	case peer[0] == "sink":
		benchSink()
	default:
		benchClient(peer[1], peer[2], peer[3])
	}
}

// benchSink takes bodies, over http and over TLS, until its standard input ends.
func benchSink() {
	sink := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 1<<20)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
		}
		w.WriteHeader(201)
	})
	plain, secure := httptest.NewServer(sink), httptest.NewTLSServer(sink)
	fmt.Println(plain.URL)
	fmt.Println(secure.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func benchClient(u, length, times string) {
	size, _ := strconv.ParseInt(length, 10, 64)
	n, _ := strconv.Atoi(times)
	c := &http.Client{Transport: &http.Transport{WriteBufferSize: 1 << 20, DialContext: (&tlsDialer{dialer: &net.Dialer{}}).dial}}
	for range n {
		req, _ := http.NewRequest("PUT", u, io.LimitReader(zeros{}, benchSize))
		req.ContentLength = size
		resp, err := c.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 201 {
			log.Fatal(resp.Status)
		}
	}
}

const benchSize = 256 << 20

// BenchmarkUpload sends a layer through a proxy that does nothing else: Do, and ReverseProxy as the
// measure. cpu-s/GiB is the proxy's process alone.
//
//	go test -run - -bench Upload -benchtime 8x ./proxy/upstream
func BenchmarkUpload(b *testing.B) {
	sink := exec.Command(os.Args[0])
	sink.Env = append(os.Environ(), benchPeer+"=sink")
	sink.Stderr = os.Stderr
	in, _ := sink.StdinPipe()
	out, _ := sink.StdoutPipe()
	if err := sink.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = sink.Wait()
	}()
	lines := bufio.NewScanner(out)
	for _, name := range []string{"http", "tls"} {
		if !lines.Scan() {
			b.Fatal("the sink does not start")
		}
		u, _ := url.Parse(lines.Text())
		reg, err := New(Options{URL: u.String(), CA: benchCA(b, u), Credentials: Anonymous})
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
		for _, length := range []string{strconv.Itoa(benchSize), "-1"} {
			for _, p := range []struct {
				name string
				h    http.Handler
			}{{"do", ours}, {"reverseproxy", reverse}} {
				body := "length"
				if length == "-1" {
					body = "chunked"
				}
				b.Run(name+"/"+body+"/"+p.name, func(b *testing.B) {
					front := httptest.NewServer(p.h)
					defer front.Close()
					b.SetBytes(benchSize)
					b.ReportAllocs()
					client := exec.Command(os.Args[0])
					client.Env = append(os.Environ(), fmt.Sprintf("%s=client %s/v2/app/blobs/uploads/1 %s %d", benchPeer, front.URL, length, b.N))
					client.Stderr = os.Stderr
					before := cpu()
					b.ResetTimer()
					if err := client.Run(); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					b.ReportMetric((cpu()-before)/(float64(b.N)*benchSize/(1<<30)), "cpu-s/GiB")
				})
			}
		}
	}
}

// benchCA is a file with the certificate of a server; none for plain http.
func benchCA(b *testing.B, u *url.URL) string {
	if u.Scheme != "https" {
		return ""
	}
	c, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	file := filepath.Join(b.TempDir(), "ca.pem")
	if err := os.WriteFile(file, certificatePEM(c.ConnectionState().PeerCertificates[0].Raw), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

// cpu is the processor time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
