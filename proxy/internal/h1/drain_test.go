package h1

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// Whoever wants nothing of an answer waits for a short one that comes, and for no other.
func TestAnAnswerThatNobodyWantsIsWaitedForAMoment(t *testing.T) {
	const most, moment = 1000, time.Second
	for name, form := range forms {
		for way, test := range map[string]struct {
			parts, bytes int
			every        time.Duration
			keeps        bool // the connection
			took         time.Duration
		}{
			"at once":             {1, 10, 0, true, 0},
			"soon":                {3, 10, moment / 4, true, 3 * (moment / 4)},
			"too late":            {2, 10, moment * 3 / 4, false, moment},
			"byte by byte":        {100, 1, moment / 20, false, moment},
			"long":                {2, most, 0, false, 0},
			"long, after a while": {2, most, moment / 4, false, moment / 4},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				inOwnTime(t, func(c *peer) {
					c.say(fmt.Sprintf(form.head, test.parts*test.bytes))
					for range test.parts {
						time.Sleep(test.every)
						if _, err := io.WriteString(c, form.part(test.bytes)); err != nil {
							return
						}
					}
					c.say(form.end)
					c.request() // until the connection is closed
				}, func(t *testing.T, c *Client) {
					resp := answered(t, c)
					start := time.Now()
					resp.Body.(interface{ Drain(int64, time.Duration) }).Drain(most, moment)
					keeps, want := test.keeps, test.took
					if name == "until the connection ends" || name == "with a length" && test.parts*test.bytes > most { // there is nothing to be won
						keeps, want = false, 0
					}
					if took := time.Since(start); took != want {
						t.Errorf("it took %v, want %v", took, want)
					}
					if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
						t.Errorf("it can be read: %d, %v", n, err)
					}
					if kept := c.idle() == 1; kept != keeps {
						t.Errorf("the connection is kept: %v", kept)
					}
				})
			})
		}
	}
}
