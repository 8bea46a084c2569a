package main

import (
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	const pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise of a test that passes\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const skip = `{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:1: no root here\n"}
{"Action":"output","Package":"q","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"q","Test":"TestB"}
{"Action":"pass","Package":"q"}
`
	const fail = `{"Action":"output","Package":"r","Test":"TestC","Output":"    c_test.go:1: got 1, want 2\n"}
{"Action":"fail","Package":"r","Test":"TestC"}
{"Action":"output","Package":"r","Output":"FAIL\tr\t0.1s\n"}
{"Action":"fail","Package":"r"}
`
	const broken = `{"Action":"build-output","ImportPath":"s","Output":"s/s.go:1: undefined: x\n"}
{"Action":"fail","Package":"s"}
`
	const crashed = `{"Action":"output","Package":"u","Test":"TestD","Output":"panic: boom\n"}
{"Action":"fail","Package":"u"}
`
	for _, c := range []struct {
		name, input string
		strict, ok  bool
		want        []string
		never       string
	}{
		{name: "passed tests are counted and stay silent", input: pass, ok: true, want: []string{"ok  \tp\t0.1s\n", "1 passed, 0 failed, 0 skipped\n"}, never: "noise"},
		{name: "a skipped test is shown with its reason", input: pass + skip, ok: true, want: []string{"skipped: q TestB: b_test.go:1: no root here\n", "1 passed, 0 failed, 1 skipped\n"}},
		{name: "a skipped test is a failure when strict", input: pass + skip, strict: true, want: []string{"counts as failed"}},
		{name: "a failed test is shown with what it said", input: pass + fail, want: []string{"    c_test.go:1: got 1, want 2\n", "FAIL\tr", "failed:  r TestC\n         c_test.go:1: got 1, want 2\n", "1 passed, 1 failed, 0 skipped\n"}},
		{name: "a package that does not compile is a failure", input: pass + broken, want: []string{"undefined: x", "failed:  s as a whole", "1 passed, 1 failed, 0 skipped\n"}},
		{name: "a test that crashed the binary has its say", input: pass + crashed, want: []string{"panic: boom", "1 passed, 1 failed"}},
		{name: "no test at all is a failure", input: "", want: []string{"no test ran"}},
		{name: "lines outside the stream are shown", input: "go: no such module\n" + pass, ok: true, want: []string{"go: no such module"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			v := verdict{strict: c.strict, slow: 1 << 62, out: &out, output: map[test][]string{}}
			if err := v.read(strings.NewReader(c.input)); err != nil {
				t.Fatal(err)
			}
			if ok := v.conclude(); ok != c.ok {
				t.Errorf("verdict %t, want %t", ok, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q:\n%s", want, out.String())
				}
			}
			if c.never != "" && strings.Contains(out.String(), c.never) {
				t.Errorf("the output has %q:\n%s", c.never, out.String())
			}
		})
	}
}
