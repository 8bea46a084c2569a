package h1

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// BenchmarkRequest is what one request costs, beside http.Transport.
//
//	go test -run - -bench Request -benchmem ./proxy/internal/h1
func BenchmarkRequest(b *testing.B) {
	s := &server{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	s.ln = ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 64<<10)
				for {
					if _, err := c.Read(buf); err != nil { // a request is one segment here
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 202 Accepted\r\nLocation: /v2/app/blobs/uploads/1\r\nRange: 0-0\r\nDocker-Upload-Uuid: 1\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	own := &Client{Dial: (&net.Dialer{}).DialContext, HeaderTimeout: time.Minute, IdleTimeout: time.Minute, MaxIdle: 4, MaxHeader: 64 << 10}
	for name, rt := range map[string]http.RoundTripper{"h1": own, "transport": &http.Transport{ResponseHeaderTimeout: time.Minute, DisableCompression: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			u, _ := url.Parse(s.url() + "/v2/app/blobs/uploads/")
			header := http.Header{"User-Agent": {"sluice"}}
			for b.Loop() {
				ctx, cancel := context.WithCancel(context.Background()) // two allocations, as a server's
				req := (&http.Request{Method: "POST", URL: u, Header: header}).WithContext(ctx)
				resp, err := rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
				cancel()
			}
		})
	}
}
