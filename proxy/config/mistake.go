package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	Origin  string // the file, or the flag or environment variable that set the key
	Line    int    // 0 when the origin is not a file, or the key is nowhere in it
	Key     string // e.g. rules[1].view
	Problem string // what is wrong and what to do
}

func (m Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.Origin)
	if m.Line > 0 {
		b.WriteString(":" + strconv.Itoa(m.Line))
	}
	if m.Key != "" {
		b.WriteString(": " + m.Key)
	}
	b.WriteString(": " + m.Problem)
	return b.String()
}

// Mistakes are all of them, in the order of the file, one per line.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

func (ms Mistakes) Unwrap() []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = m
	}
	return errs
}

// err is nil for no mistakes, so that callers do not return a typed nil.
func (ms Mistakes) err() error {
	if len(ms) == 0 {
		return nil
	}
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	return slices.Compact(ms)
}

// place is where a key was set.
type place struct {
	origin string
	line   int
}

// source remembers the place of every key. The zero value knows nothing and says
// "configuration", for one that was built in Go.
type source struct {
	file string
	keys map[string]place
}

// at finds a key's place: its own, or that of the nearest key around it.
func (s source) at(key string) place {
	for k := key; k != ""; k = parent(k) {
		if p, ok := s.keys[k]; ok {
			return p
		}
	}
	return place{origin: cmp.Or(s.file, "configuration")}
}

func (s source) mistake(key, problem string) Mistake {
	p := s.at(key)
	return Mistake{Origin: p.origin, Line: p.line, Key: key, Problem: problem}
}

// Mistake is what only the program knows to be wrong with a key, such as a driver that it was built without.
func (c *Config) Mistake(key, problem string) error {
	return Mistakes{c.source.mistake(key, problem)}
}

// where names a key for use inside another key's message.
func (s source) where(key string) string {
	p, set := s.keys[key]
	switch {
	case !set:
		return key + " (its default)"
	case p.line > 0:
		return key + " (line " + strconv.Itoa(p.line) + ")"
	}
	return key + " (" + p.origin + ")"
}

// parent of rules[1].view is rules[1], whose parent is rules.
func parent(key string) string {
	i := strings.LastIndexAny(key, ".[")
	if i < 0 {
		return ""
	}
	return key[:i]
}
