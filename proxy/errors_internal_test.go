package proxy

import (
	"errors"
	"net/http"
	"testing"
)

// The log has the cause once, whether or not the message for the client has it.
func TestAReasonHasItsCauseOnce(t *testing.T) {
	cause := errors.New("dial tcp: connection refused")
	for _, c := range []struct {
		failure *Failure
		want    string
	}{
		{refuse(http.StatusBadGateway, codeUnavailable, "no answer: %v; check the port", cause).because(cause), "no answer: dial tcp: connection refused; check the port"},
		{refuse(http.StatusBadGateway, codeUnavailable, "no answer").because(cause), "no answer: dial tcp: connection refused"},
		{refuse(http.StatusNotFound, codeBlobUnknown, "not there"), "not there"},
	} {
		if got := c.failure.reason(); got != c.want {
			t.Errorf("the reason is %q, want %q", got, c.want)
		}
	}
}
