package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// impatient makes a registry that stands still one that is gone.
func impatient(t *testing.T) {
	before := stallTimeout
	stallTimeout = 500 * time.Millisecond
	t.Cleanup(func() { stallTimeout = before })
}

// A registry that agrees to a body and then takes nothing of it, in each way in which a body is sent.
func TestARegistryThatTakesNoMoreOfABodyIsGone(t *testing.T) {
	impatient(t)
	for name, length := range map[string]int64{"of known length": 1 << 30, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			u := raw(t, func(_ *http.Request, _ *bufio.Reader, c net.Conn, _ int) bool {
				fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
				<-over
				return false
			})
			defer close(over)
			r, _ := open(t, Options{URL: u, Credentials: Anonymous})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			q := upload(io.LimitReader(zeros{}, 1<<30))
			q.ContentLength = length
			if _, err := r.Do(ctx, q); !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
				t.Errorf("%v, %v", err, ctx.Err())
			}
		})
	}
}

// Who waits for a slow client keeps no deadline: the registry has taken all there was.
func TestABodyThatComesSlowlyIsNotTakenForARegistryThatIsGone(t *testing.T) {
	impatient(t)
	for name, length := range map[string]int64{"of known length": 3 * layerSize, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			var arrived int64
			f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
				arrived, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusCreated)
			}})
			r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
			parts := []io.Reader{io.LimitReader(zeros{}, layerSize), pause(2 * stallTimeout), io.LimitReader(zeros{}, layerSize), pause(2 * stallTimeout), io.LimitReader(zeros{}, layerSize)}
			q := upload(io.MultiReader(parts...))
			q.ContentLength = length
			do(t, r, http.StatusCreated, q)
			if arrived != 3*layerSize {
				t.Errorf("%d bytes arrived", arrived)
			}
		})
	}
}

// pause is a part of a body that takes its time and is empty.
type pause time.Duration

func (p pause) Read([]byte) (int, error) {
	time.Sleep(time.Duration(p))
	return 0, io.EOF
}
