package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Errors of Do, for errors.Is. The text names the upstream's host and what to do; it holds no
// credential, no token and no session URL.
var (
	// ErrUnreachable is an upstream that gave no answer.
	ErrUnreachable = errors.New("upstream unreachable")
	// ErrCredentials are credentials that cannot be had (a failing helper, an unreadable password
	// file) or that the token service refuses.
	ErrCredentials = errors.New("no usable upstream credentials")
	// ErrHost is another host that upstream names (token realm, upload Location, redirect) and that is not allowed.
	ErrHost = errors.New("upstream names a host that is not allowed")
	// ErrRenewed is a request whose body was on its way when the registry refused the token. The next
	// one is sent with a new token.
	ErrRenewed = errors.New("upstream token expired while a body was sent")
	// ErrCreate is a missing repository that cannot be made: a right is missing, a setting is refused, or
	// there are no credentials for the registry's own API.
	ErrCreate = errors.New("repository cannot be made")
	// ErrThrottled is the registry's own API that takes no more requests now.
	ErrThrottled = errors.New("upstream throttles its API")
	// ErrBody is the request's own body that could not be read to its end: the client's fault or absence.
	ErrBody = errors.New("request body not readable to its end")
)

// Lost is true for an error of Do when the registry may have done what it was asked, and its answer was lost on the way.
func Lost(err error) bool { return errors.Is(err, ErrUnreachable) && !refused(err) }

// kind gives an error a sentinel without putting the sentinel's text in front of it.
type kind struct {
	sentinel error
	text     string
	cause    error
}

func (e *kind) Error() string { return e.text }

func (e *kind) Unwrap() []error {
	if e.cause == nil {
		return []error{e.sentinel}
	}
	return []error{e.sentinel, e.cause}
}

func errorf(sentinel, cause error, format string, args ...any) error {
	return &kind{sentinel: sentinel, cause: cause, text: fmt.Sprintf(format, args...)}
}

// unreachable explains why no answer came. The cause's own text is used only after a url.Error was
// taken off: that one prints the URL, and a session URL or a pre-signed one is a secret.
func unreachable(host string, err error) error {
	for {
		var ue *url.Error
		if !errors.As(err, &ue) {
			break
		}
		err = ue.Err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !refused(err) {
		return errorf(ErrUnreachable, err, "upstream %s: gave up waiting: %v", host, err)
	}
	return errorf(ErrUnreachable, err, "upstream %s: %s; %s", host, brief(err), advice(err))
}

// brief is the error on one line of bounded length: some carry a page of certificate text.
func brief(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}
