package conformance

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
)

// Target is one registry, or one way to reach it.
type Target struct {
	Name    string       // for messages
	URL     string       // scheme and host, without /v2/
	Client  *http.Client // nil: http.DefaultClient. Carries credentials, if the registry wants any
	Profile Profile      // what it is known not to do
}

// Profile says which cases a registry is known to fail, and why. The keys are case paths (section, slash, name) or patterns of
// them as in [path.Match]; the values are reasons for a reader.
type Profile map[string]string

// Level is the specification's word for how binding a case is.
type Level string

const (
	Must   Level = "MUST"
	Should Level = "SHOULD"
	May    Level = "MAY" // optional, but bound to a form if it is done
)

// Result is what became of one case.
type Result struct {
	Path  string // section, slash, name
	Level Level
	Err   error // nil: passed
}

type testCase struct {
	section string // headings of spec.md, joined by slashes
	name    string // a sentence
	level   Level
	run     func(c *check)
}

func (tc testCase) path() string { return tc.section + "/" + tc.name }

// cases are all of them, in the order of the specification.
func cases() []testCase {
	return slices.Concat(
		pullManifestCases(), pullBlobCases(), existenceCases(),
		pushBlobCases(), contentCases(), chunkCases(), outOfOrderCases(), cancelCases(), mountCases(),
		pushManifestCases(), manifestRefusalCases(), nameCases(), subjectCases(),
		tagListCases(), referrerCases(), fallbackCases(),
		deleteCases(),
		apiCases(),
	)
}

// Run holds target to every case, each a subtest named after its section.
func Run(t *testing.T, target Target) {
	all := cases()
	target.Profile.known(t, all)
	each(t, all, func(t *testing.T, tc testCase) {
		report(t, target.Profile.judge(Result{tc.path(), tc.level, tc.try(t, target)}))
	})
}

// Compare runs every case against a registry directly and through proxies to it, and fails for those that only fail through a
// proxy. What a proxy loses on purpose is in its profile; that of direct is not read. It returns what it saw, per target, direct
// first, in the order of the specification.
func Compare(t *testing.T, direct Target, via ...Target) [][]Result {
	all := cases()
	results := make([][]Result, 1+len(via))
	for _, v := range via {
		v.Profile.known(t, all)
	}
	each(t, all, func(t *testing.T, tc testCase) {
		d := Result{tc.path(), tc.level, tc.try(t, direct)}
		results[0] = append(results[0], d)
		for i, target := range via {
			v := Result{tc.path(), tc.level, tc.try(t, target)}
			results[1+i] = append(results[1+i], v)
			report(t, target.Profile.judgeBoth(d, v).by(target.Name))
		}
	})
	for i, target := range append([]Target{direct}, via...) {
		passed := 0
		for _, r := range results[i] {
			if r.Err == nil {
				passed++
			}
		}
		t.Logf("%s: %d of %d cases pass", target.Name, passed, len(all))
	}
	return results
}

// verdict is what a result means; text is empty when there is nothing to say.
type verdict struct {
	bad  bool
	text string
}

// by names the target, where there are several.
func (v verdict) by(name string) verdict {
	if v.text != "" && name != "" {
		v.text = name + ": " + v.text
	}
	return v
}

func report(t *testing.T, v verdict) {
	switch {
	case v.bad:
		t.Error(v.text)
	case v.text != "":
		t.Log(v.text)
	}
}

func (p Profile) judge(r Result) verdict {
	reason, listed := p.reason(r.Path)
	switch {
	case listed && r.Err == nil:
		return verdict{true, fmt.Sprintf("passes, but the profile says that it cannot (%s): take it off the list", reason)}
	case listed:
		return verdict{false, fmt.Sprintf("known: %s (%v)", reason, r.Err)}
	case r.Err != nil:
		return verdict{true, fmt.Sprintf("%s: %v", r.Level, r.Err)}
	}
	return verdict{}
}

func (p Profile) judgeBoth(direct, via Result) verdict {
	reason, listed := p.reason(via.Path)
	switch {
	case listed && via.Err == nil:
		return verdict{true, fmt.Sprintf("passes through the proxy, but the profile says that it cannot (%s): take it off the list", reason)}
	case listed:
		return verdict{false, fmt.Sprintf("known: %s (%v)", reason, via.Err)}
	case direct.Err == nil && via.Err != nil:
		return verdict{true, fmt.Sprintf("%s: passes directly, fails through the proxy: %v", via.Level, via.Err)}
	case direct.Err != nil && via.Err == nil:
		return verdict{false, fmt.Sprintf("passes only through the proxy; directly: %v", direct.Err)}
	case direct.Err != nil:
		return verdict{false, fmt.Sprintf("fails both ways; directly: %v; through the proxy: %v", direct.Err, via.Err)}
	}
	return verdict{}
}

// each makes the tree of subtests: one level per heading, then the case.
func each(t *testing.T, all []testCase, f func(*testing.T, testCase)) {
	descend(t, all, 0, f)
}

func descend(t *testing.T, all []testCase, depth int, f func(*testing.T, testCase)) {
	heading := func(tc testCase, depth int) string {
		if hs := strings.Split(tc.section, "/"); depth < len(hs) {
			return hs[depth]
		}
		return ""
	}
	var seen []string
	for _, tc := range all {
		h := heading(tc, depth)
		if slices.Contains(seen, h) {
			continue
		}
		seen = append(seen, h)
		t.Run(h, func(t *testing.T) {
			var deeper []testCase
			for _, tc := range all {
				switch {
				case heading(tc, depth) != h:
				case heading(tc, depth+1) != "":
					deeper = append(deeper, tc)
				default:
					t.Run(tc.name, func(t *testing.T) { f(t, tc) })
				}
			}
			descend(t, deeper, depth+1, f)
		})
	}
}

func (p Profile) reason(casePath string) (string, bool) {
	for pattern, reason := range p {
		if matches(pattern, casePath) {
			return reason, true
		}
	}
	return "", false
}

// known fails when a pattern matches no case.
func (p Profile) known(t *testing.T, all []testCase) {
	for pattern := range p {
		if !slices.ContainsFunc(all, func(tc testCase) bool { return matches(pattern, tc.path()) }) {
			t.Errorf("the profile lists %q, and there is no such case", pattern)
		}
	}
}

func matches(pattern, casePath string) bool {
	ok, err := path.Match(pattern, casePath)
	return err == nil && ok || pattern == casePath
}
