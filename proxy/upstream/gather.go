package upstream

import (
	"net"
	"sync"
	"sync/atomic"
)

// crypto/tls gives every record of 16 KiB to the connection by itself. Joined, one system call carries sixteen of
// them, the kernel makes fewer and larger packets of them, and whoever receives is woken less often. What the copy
// costs is less when it stays in the processor's cache: one of 256 KiB was better than one of the whole 2 MiB.
const (
	recordSize   = 16 << 10
	gatherBuffer = 16*recordSize + 1<<10 // and what TLS adds to sixteen records
)

var gatherPool = sync.Pool{New: func() any { b := make([]byte, 0, gatherBuffer); return &b }}

// gather is the connection below TLS. Between begin and end it joins what TLS writes.
type gather struct {
	net.Conn
	busy atomic.Bool // between begin and end

	mu   sync.Mutex
	buf  *[]byte // nil: not joining
	sent int     // since begin
	fail error   // TLS believes that earlier records were sent, so nothing may follow them

	in records // belongs to whoever reads
}

// Read notes where records end.
func (g *gather) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.in.came(b[:n])
	return n, err
}

// Write is called by TLS, for data and, from the reading side, for alerts and key updates. The order stays.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		return 0, g.fail
	}
	if g.buf == nil {
		return g.Conn.Write(b)
	}
	if len(*g.buf)+len(b) > cap(*g.buf) {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > cap(*g.buf) {
		return g.Conn.Write(b)
	}
	*g.buf = append(*g.buf, b...)
	return len(b), nil
}

func (g *gather) begin() {
	g.busy.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.buf, g.sent = gatherPool.Get().(*[]byte), 0
}

// end sends what was joined. With an error it was not sent, or not all of it: sent is how many bytes were, since begin.
func (g *gather) end() (sent int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	err = g.flush()
	*g.buf = (*g.buf)[:0]
	gatherPool.Put(g.buf)
	g.buf = nil
	g.busy.Store(false)
	return g.sent, err
}

func (g *gather) flush() error {
	if g.fail != nil || len(*g.buf) == 0 {
		return g.fail
	}
	n, err := g.Conn.Write(*g.buf)
	g.sent, g.fail = g.sent+n, err
	*g.buf = (*g.buf)[:0]
	return g.fail
}
