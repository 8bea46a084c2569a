package proxy

import (
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines notes whether one was set.
type deadlines struct {
	*httptest.ResponseRecorder
	set bool
}

func (d *deadlines) SetReadDeadline(time.Time) error { d.set = true; return nil }

// A body that came late and whole is judged no more: its request may wait for the registry, and a deadline would end it.
func TestABodyThatIsOverIsNotCutOff(t *testing.T) {
	for _, over := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			b := &slowBody{w: d, r: readerFunc(func([]byte) (int, error) {
				time.Sleep(slowTime)
				if over {
					return 1, io.EOF
				}
				return 1, nil
			})}
			if _, err := b.Read(make([]byte, 1)); errors.Is(err, io.EOF) != over {
				t.Error(err)
			}
			if b.check(slowTime); d.set == over {
				t.Errorf("over: %v, cut off: %v", over, d.set)
			}
		})
	}
}
