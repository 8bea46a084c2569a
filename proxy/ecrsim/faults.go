package ecrsim

import (
	"context"
	"io"
	"net/http"
	"time"
)

// befall does what the faults say about a call, before it is looked at. The writer and the request that it returns are
// those to go on with.
func (s *Simulator) befall(w http.ResponseWriter, r *http.Request, sw *Switches, action, repo string) (http.ResponseWriter, *failure) {
	for i := range sw.Faults {
		f := &sw.Faults[i]
		if !f.strikes(action, repo) {
			continue
		}
		wait(r.Context(), f.Latency)
		if f.ExpireTokens {
			s.ExpireTokens()
		}
		switch {
		case f.Throttle:
			return w, throttled()
		case f.Answer.Status != 0:
			return w, (&failure{code: "UNKNOWN", message: "a fault of the double"}).or(f.Answer)
		case f.Cut && r.Method == http.MethodGet:
			w = &cutWriter{w, f.CutAfter}
		case f.Cut && (r.Body == http.NoBody || f.CutAfter == 0):
			return w, &failure{cut: true}
		case f.Cut:
			r.Body = &cutBody{r.Body, f.CutAfter}
		}
	}
	return w, nil
}

func (f *Fault) strikes(action, repo string) bool {
	if f.Action != "" && f.Action != action || f.Repository != "" && f.Repository != repo {
		return false
	}
	n := f.seen.Add(1) - int64(f.Skip)
	return n > 0 && (f.Times == 0 || n <= int64(f.Times))
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// cutBody ends the connection when so many bytes have been read, as ECR does in the middle of an upload to a repository
// that is missing. A shorter body ends it where it ends.
type cutBody struct {
	io.ReadCloser
	left int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); err != nil {
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	cut := int64(len(p)) > w.left
	if cut {
		p = p[:w.left]
	}
	n, err := w.ResponseWriter.Write(p)
	w.left -= int64(n)
	if cut {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
