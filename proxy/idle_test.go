//go:build unix

package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/proxytest"
)

// Ten thousand clients that keep a connection open and say nothing cost little memory and keep nobody else out.
func TestTenThousandIdleConnectionsCostLittle(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	raised := limit
	raised.Cur = min(limit.Max, 21_000) // both ends are in this process
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
	n := min(10_000, (int(raised.Cur)-1000)/2) // fewer where a process may have no more files
	r := run(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), inmemory.New(), nil)
	defer r.end()
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := used()
	conns := make([]net.Conn, n)
	var all sync.WaitGroup
	for part := range 8 {
		all.Go(func() {
			for i := part; i < n; i += 8 {
				c, err := net.Dial("tcp", r.config.Listen)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = c
				if i%2 == 0 {
					continue // never says anything
				}
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				_, _ = io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("connection %d: %v %v", i, resp, err)
					return
				}
			}
		})
	}
	all.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	each := (int64(used()) - int64(before)) / int64(n)
	t.Logf("%d KiB for each of %d idle connections, the client's end included", each>>10, n)
	if each > 32<<10 {
		t.Errorf("%d bytes for each idle connection, at most 32 KiB wanted", each)
	}
	if a := request(t, http.MethodGet, "http://"+r.config.Listen+"/v2/", nil, "Connection", "close"); a.StatusCode != http.StatusOK {
		t.Errorf("one more client gets %s", a.Status)
	}
}
