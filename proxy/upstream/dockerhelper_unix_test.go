//go:build unix

package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patienceOfTests only matters where a test fails.
const patienceOfTests = 20 * time.Second

// within fails the test when f does not come to its end.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patienceOfTests):
		t.Fatalf("%s: not after %v", what, patienceOfTests)
	}
}

// hangingHelper is a helper that starts another program, says "here" to the result, and waits for ever. The result ends when
// nothing of it is left.
func hangingHelper(t *testing.T) *bufio.Reader {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Without one that writes, a read is at its end.
	own, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); own.Close() })
	helper(t, fmt.Sprintf("exec 3>%s\necho here >&3\nsleep 1000\n", fifo))
	return bufio.NewReader(&firstLine{r: f, own: own})
}

// firstLine lets go of the test's own end of the pipe as soon as a helper holds another.
type firstLine struct {
	r   io.Reader
	own io.Closer
}

func (f *firstLine) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.own.Close()
	return n, err
}

func expectHere(t *testing.T, r *bufio.Reader) {
	t.Helper()
	within(t, "the helper starts", func() {
		if line, err := r.ReadString('\n'); line != "here\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
}

func expectGone(t *testing.T, r *bufio.Reader) {
	t.Helper()
	within(t, "the helper and what it has started end", func() {
		if more, err := io.ReadAll(r); len(more) > 0 || err != nil {
			t.Errorf("%q, %v: another one was started", more, err)
		}
	})
}

func TestAHelperThatHangsIsEndedWithAllThatItHasStarted(t *testing.T) {
	dockerConfig(t, `{"credsStore":"test"}`)
	r := hangingHelper(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan error, 1)
	go func() {
		_, err := newDockerSource("example.com").credential(ctx)
		got <- err
	}()
	expectHere(t, r)
	cancel()
	within(t, "an answer", func() {
		if err := <-got; !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), "docker-credential-test") || !strings.Contains(err.Error(), "example.com") {
			t.Errorf("error = %v", err)
		}
	})
	expectGone(t, r)
}

func TestAHelperThatHangsIsNotStartedASecondTime(t *testing.T) {
	dockerConfig(t, `{"credsStore":"test"}`)
	r := hangingHelper(t)
	source := newDockerSource("example.com")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan error, 1)
	go func() {
		_, err := source.credential(ctx)
		got <- err
	}()
	expectHere(t, r)
	soon, cancelSoon := context.WithTimeout(t.Context(), time.Second) // in which another one would say that it is here
	defer cancelSoon()
	if _, err := source.credential(soon); !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), "helper test is still busy") {
		t.Errorf("error = %v", err)
	}
	cancel()
	within(t, "an answer", func() { <-got })
	expectGone(t, r)
}

// The helper of one registry does not keep those of others waiting.
func TestAHelperThatHangsIsNotInTheWayOfAnother(t *testing.T) {
	dockerConfig(t, `{"credHelpers":{"slow.example.com":"test","example.com":"quick"}}`)
	helperNamed(t, "quick", `echo '{"Username":"u","Secret":"s"}'`)
	r := hangingHelper(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan error, 1)
	go func() {
		_, err := newDockerSource("slow.example.com").credential(ctx)
		got <- err
	}()
	expectHere(t, r)
	within(t, "an answer of the other", func() {
		if c, err := newDockerSource("example.com").credential(t.Context()); err != nil || c.username != "u" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	cancel()
	within(t, "an answer", func() { <-got })
}

func TestCloseEndsAHelperThatHangs(t *testing.T) {
	f := newFake(t, &fake{scheme: "basic", allow: only("never")})
	dockerConfig(t, `{"credsStore":"test"}`)
	h := hangingHelper(t)
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	got := make(chan error, 1)
	go func() {
		_, err := r.Do(t.Context(), Request{})
		got <- err
	}()
	expectHere(t, h)
	within(t, "Close", func() { r.Close() })
	within(t, "an answer", func() {
		if err := <-got; !errors.Is(err, ErrCredentials) {
			t.Errorf("error = %v", err)
		}
	})
	expectGone(t, h)
}

// gpg leaves its agent running, and so do others.
func TestAHelperMayLeaveAnAgentThatHoldsItsOutput(t *testing.T) {
	dockerConfig(t, `{"credsStore":"test"}`)
	helper(t, "sleep 30 2>/dev/null &\n"+`echo '{"Username":"u","Secret":"s"}'`)
	within(t, "an answer", func() {
		if c, err := newDockerSource("example.com").credential(t.Context()); err != nil || c.username != "u" || c.password != "s" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// Each repository has a token of its own, and for each the helper is asked: many are slow, and one that pushes to many
// repositories at once would wait for one after the other.
func TestThoseWhoWaitForAHelperShareItsAnswer(t *testing.T) {
	const many = 20
	for name, answer := range map[string]string{
		"an account": `echo '{"Username":"u","Secret":"'$(wc -l <%[1]s)'"}'`,
		"an error":   "echo >&2 no keyring; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, `{"credsStore":"test"}`)
			dir := t.TempDir()
			runs, goOn := filepath.Join(dir, "runs"), filepath.Join(dir, "go")
			helper(t, fmt.Sprintf("echo run >>%[1]s\nwhile ! [ -e %[2]s ]; do sleep 0.05; done\n"+strings.ReplaceAll(answer, "%[1]s", runs)+"\n", runs, goOn))
			source := newDockerSource("example.com")
			var all sync.WaitGroup
			ask := func() {
				all.Go(func() {
					c, err := source.credential(t.Context())
					if name == "an error" != errors.Is(err, ErrCredentials) || err == nil && c.username != "u" {
						t.Errorf("%+v, %v", c, err)
					}
				})
			}
			started := func() string { b, _ := os.ReadFile(runs); return string(b) }
			ask()
			within(t, "the helper starts", func() {
				for started() == "" {
					time.Sleep(time.Millisecond)
				}
			})
			for range many {
				ask()
			}
			within(t, "all wait", func() {
				for source.waiting.Load() < many {
					time.Sleep(time.Millisecond)
				}
			})
			if err := os.WriteFile(goOn, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			within(t, "all have an answer", all.Wait)
			// The first run may have looked before the others asked, who may know that its answer is out of date.
			if n := strings.Count(started(), "run"); n != 2 {
				t.Errorf("the helper ran %d times", n)
			}
		})
	}
}
