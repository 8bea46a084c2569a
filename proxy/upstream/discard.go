package upstream

import (
	"io"
	"net/http"
	"time"
)

// What is read of an answer that nobody wants, and for how long: another connection costs less than whoever waits for more.
const (
	discardBytes = 64 << 10
	discardTime  = time.Second
)

// Discard closes an answer that nobody wants to read. What is left of a short one is read, so that its connection can be used
// again. resp may be nil.
func Discard(resp *http.Response) {
	if resp != nil && resp.Body != nil && resp.Body != http.NoBody {
		drain(resp.Body)
	}
}

// drainer is a body whose Close waits for a Read (internal/h1).
type drainer interface {
	Drain(most int64, patience time.Duration)
}

func drain(body io.ReadCloser) {
	if d, ok := body.(drainer); ok {
		d.Drain(discardBytes, discardTime)
		return
	}
	enough := time.AfterFunc(discardTime, func() { _ = body.Close() })
	_, _ = io.CopyN(io.Discard, body, discardBytes)
	enough.Stop()
	_ = body.Close()
}
