package proxy

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a body that comes in parts, with a pause before each.
type paced struct {
	length, part int
	pause        time.Duration
}

func (p *paced) Read(b []byte) (int, error) {
	if p.length == 0 {
		return 0, io.EOF
	}
	time.Sleep(p.pause)
	n := min(p.part, p.length, len(b))
	p.length -= n
	return n, nil
}

func (p *paced) Close() error { return nil }

func TestADocumentArrivesInItsTimeOrNotAtAll(t *testing.T) {
	for name, test := range map[string]struct {
		body  paced
		limit int64
		want  error
	}{
		"at once":                 {paced{1000, 100, 0}, 1000, nil},
		"in its time":             {paced{1000, 100, documentTime / 20}, 1000, nil},
		"large, and all the time": {paced{4 << 20, 400, time.Second}, 4 << 20, errSlowDocument}, // as fast as a layer must come
		"too large":               {paced{1001, 100, 0}, 1000, errLongDocument},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, length := time.Now(), test.body.length
				b, err := readDocument(&http.Response{Body: &test.body}, test.limit)
				if !errors.Is(err, test.want) || err == nil && len(b) != length {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				if took := time.Since(start); took > documentTime+time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}
