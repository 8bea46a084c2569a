package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Codes of the distribution spec that distribution's errcode does not export as a value with the
// status that is wanted here.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeBlobUploadInvalid   = "BLOB_UPLOAD_INVALID"
	codeBlobUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	codeDenied              = "DENIED"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeTooManyRequests     = "TOOMANYREQUESTS"
	codeUnauthorized        = "UNAUTHORIZED"
	codeUnavailable         = "UNAVAILABLE"
	codeUnsupported         = "UNSUPPORTED"
)

// A Failure is an answer that refuses a request in the words of the distribution spec.
// The message is for whoever reads the client's output: what failed, for which repository and
// digest, and what to do.
type Failure struct {
	Status  int
	Code    string
	Message string
	Header  http.Header
	cause   error
	passes  bool // the same request may succeed in a moment
}

func (f *Failure) Error() string { return f.Code + ": " + f.reason() }

// reason is the message and its cause, which many messages have in them already.
func (f *Failure) reason() string {
	if f.cause == nil || strings.Contains(f.Message, f.cause.Error()) {
		return f.Message
	}
	return fmt.Sprintf("%s: %v", f.Message, f.cause)
}

func (f *Failure) Unwrap() error { return f.cause }

func refuse(status int, code, format string, args ...any) *Failure {
	return &Failure{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// because keeps the cause for the log; the client sees only the message.
func (f *Failure) because(err error) *Failure {
	f.cause = err
	return f
}

func (f *Failure) with(key, value string) *Failure {
	if f.Header == nil {
		f.Header = http.Header{}
	}
	f.Header.Set(key, value)
	return f
}

// transient is trouble of Sluice's own that may pass. It is 429 and not 503, since nearly every
// client retries the one and hardly any the other (BuildKit, containerd, crane, regctl, oras).
func transient(err error, format string, args ...any) *Failure {
	f := refuse(http.StatusTooManyRequests, codeTooManyRequests, format, args...).because(err).with("Retry-After", "2")
	f.passes = true
	return f
}

// holdBack is how long the answer to what may pass is kept from the client: BuildKit and containerd do not look at
// Retry-After, and five answers are all that they ask for (core/remotes/docker/resolver.go, retryRequest). Together that is
// as long as the others wait.
const holdBack = 2 * time.Second

// outwait gives trouble that may pass its time, as long as the client is there.
func (ex *exchange) outwait(f *Failure) {
	if !f.passes || ex.p.holdBack == 0 {
		return
	}
	t := time.NewTimer(ex.p.holdBack)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ex.ctx().Done():
	case <-ex.p.life.Done():
	}
}

// passed is upstream's own answer on its way to the client.
type passed struct{ resp *http.Response }

func (p *passed) Error() string {
	return fmt.Sprintf("upstream answered %s to %s %s", p.resp.Status, p.resp.Request.Method, p.resp.Request.URL.Path)
}

// forgo is done with an error that goes to nobody.
func forgo(err error) {
	if p, is := errors.AsType[*passed](err); is {
		discard(p.resp)
	}
}

// writeFailure sends the error body of the distribution spec ("Error Codes").
func writeFailure(w http.ResponseWriter, f *Failure) {
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	body := f.body()
	w.Header()["Content-Type"] = jsonType
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.Status)
	_, _ = w.Write(body) // a client that is gone cannot be told
}

// body is what errcode.Errors makes of one error. That encodes it twice, and a push gets this answer for everything that it
// asks for and that only Sluice could have.
func (f *Failure) body() []byte {
	code := errorCode(f.Code)
	var all struct {
		Errors [1]struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	all.Errors[0].Code, all.Errors[0].Message = code.String(), f.Message
	if f.Message == "" {
		all.Errors[0].Message = code.Message()
	}
	body, err := json.Marshal(&all)
	if err != nil { // cannot happen: strings only
		return []byte(`{"errors":[{"code":"UNKNOWN","message":"internal error"}]}`)
	}
	return body
}

// jsonType is shared by all answers; nothing changes a header's values in place.
var jsonType = []string{"application/json"}

// errorCode finds distribution's registered code for its spec text.
func errorCode(text string) errcode.ErrorCode {
	if code, ok := errorCodes()[text]; ok {
		return code
	}
	return errcode.ErrorCodeUnknown
}

var errorCodes = sync.OnceValue(func() map[string]errcode.ErrorCode {
	codes := map[string]errcode.ErrorCode{}
	for _, d := range errcode.GetErrorAllDescriptors() {
		codes[d.Value] = d.Code
	}
	return codes
})

// How much of a body is still read after an early answer, and for how long. Go closes a connection
// whose request was not read to its end, and the client then prints "broken pipe" instead of the
// reason. Some registries take manifests of tens of MiB, so a refused one may be as large.
const (
	drainBytes = 64 << 20
	drainTime  = 5 * time.Second
)

// drain reads what a client still sends after it was answered, within bounds.
func drain(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	if rc.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	n, err := io.CopyN(io.Discard, r.Body, drainBytes)
	if errors.Is(err, io.EOF) && n < drainBytes {
		_ = rc.SetReadDeadline(time.Time{}) // whole request read: the connection stays usable
	}
}
