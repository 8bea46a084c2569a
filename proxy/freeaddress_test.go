package proxy_test

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// freeAddress is one that nobody listens on: Run has no other way to be told of a port for admin. It is below those that the
// kernel gives to connections and listeners, one of which would otherwise have it now and then before Run listens, and no two
// get the same.
func freeAddress(t *testing.T) string {
	t.Helper()
	const first, ports = 20000, 12000
	for range ports {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+int(portsGiven.Add(1))%ports))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

var portsGiven = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(uint32(os.Getpid()) * 61) // where another run of the tests does not begin
	return &n
}()
