package contain_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"sluice/proxy/internal/contain"
)

func fails(b []byte) byte { return b[3] }

func TestAPanicIsAnErrorThatSaysWhere(t *testing.T) {
	_, err := contain.Call(func() (byte, error) { return fails(nil), nil })
	if err == nil || !strings.HasPrefix(err.Error(), "bug: panic: runtime error: index out of range [3] with length 0, in contain_test.fails (contain_test.go:13) < contain_test.TestAPanic") {
		t.Errorf("got %v", err)
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "runtime.") {
		t.Errorf("more than one line, or what only the runtime did: %v", err)
	}
	if _, err := contain.Call(func() (int, error) { panic(io.EOF) }); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a bug is taken for an answer: %v", err)
	}
}

func TestWithoutAPanicNothingChanges(t *testing.T) {
	if n, err := contain.Call(func() (int, error) { return 7, io.EOF }); n != 7 || !errors.Is(err, io.EOF) {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestOnePanicEndsAGroupAsAnErrorDoes(t *testing.T) {
	g, ctx := contain.WithContext(context.Background())
	g.SetLimit(2)
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	g.Go(func() error { fails(nil); return nil })
	var bug *contain.Bug
	if err := g.Wait(); !errors.As(err, &bug) {
		t.Errorf("got %v", err)
	}
	other := contain.NewGroup()
	other.Go(func() error { fails(nil); return nil })
	if err := other.Wait(); !errors.As(err, &bug) {
		t.Errorf("got %v", err)
	}
}
