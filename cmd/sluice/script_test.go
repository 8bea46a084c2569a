package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"sluice/proxy/config"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": main})
}

// The scripts in testdata/script are the command line as users see it. UPDATE_GOLDEN=1
// rewrites what they compare with (cmp, not cmpenv); read the diff.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"same":   sameAsWire,
			"expand": expand,
		},
		Setup: func(env *testscript.Env) error {
			open, err := startRegistry(t, "")
			if err != nil {
				return err
			}
			closed, err := startRegistry(t, "bob:secret")
			if err != nil {
				return err
			}
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a process with the race detector waits a second to say something
			env.Setenv("REGISTRY", open.host)
			env.Setenv("LOCKED_REGISTRY", closed.host)
			env.Setenv("FORWARDED", open.forwarded)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
			return nil
		},
	})
}

// sameAsWire compares a file with one of testdata/wire, but for a final newline.
func sameAsWire(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same FILE DIGEST")
	}
	want, err := os.ReadFile(filepath.Join(wire, args[1]))
	ts.Check(err)
	if got := ts.ReadFile(args[0]); strings.TrimSuffix(got, "\n") != string(want) {
		ts.Fatalf("%s is not the statement %s:\n%s", args[0], args[1], got)
	}
}

// expand copies a file with its variables replaced.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: expand FROM TO")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

func TestTheExitCodeTellsWrongUseFromFailure(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"help", []string{"--help"}, 0},
		{"nothing prints the help", nil, 0},
		{"an unknown command", []string{"serv"}, exitUsage},
		{"an unknown command below another", []string{"attestations", "ls", "x"}, exitUsage},
		{"an unknown flag", []string{"serve", "--lisen", "x"}, exitUsage},
		{"a missing argument", []string{"resolve"}, exitUsage},
		{"an argument too many", []string{"version", "now"}, exitUsage},
		{"a bad choice", []string{"resolve", "a", "--output", "xml"}, exitUsage},
		{"a bad log level", []string{"serve", "--log-level", "loud"}, exitUsage},
		{"not an image", []string{"resolve", "UPPER/CASE"}, exitUsage},
		{"a missing file", []string{"check-config", "/nonexistent"}, exitFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs lines
			got := execute(context.Background(), tt.args, &out, &errs)
			if got != tt.want {
				t.Errorf("exit %d, want %d: %s", got, tt.want, errs)
			}
			if want := min(got, 1); len(errs) != want {
				t.Errorf("%d lines on stderr, want %d: %s", len(errs), want, errs)
			}
			if got != 0 && len(out) > 0 {
				t.Errorf("an error, and %q on stdout", out)
			}
		})
	}
}

// lines collects what is printed, split at writes, which are whole lines here.
type lines []string

func (l *lines) Write(p []byte) (int, error) {
	*l = append(*l, string(p))
	return len(p), nil
}

func TestEveryFlagOfServeNamesItsVariableAndItsDefault(t *testing.T) {
	flags := newServe().Flags()
	flags.VisitAll(func(f *pflag.Flag) {
		if want := "(" + config.EnvironmentName(f.Name) + ", default "; !strings.Contains(f.Usage, want) {
			t.Errorf("--%s: %q does not say %q", f.Name, f.Usage, want)
		}
	})
	for _, name := range config.OverrideNames() {
		// A command line can be read by others.
		if secret := strings.HasPrefix(name, "upstream-") || strings.HasPrefix(name, "seal-keys"); (flags.Lookup(name) == nil) != secret {
			t.Errorf("--%s: a flag is %v", name, !secret)
		}
	}
}
