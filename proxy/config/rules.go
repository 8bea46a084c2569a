package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"sluice/filters"
)

// RuleSettings are the settings that hold for one repository.
type RuleSettings struct {
	Attestations    filters.Action
	Unwrap          filters.Unwrap
	View            View
	SignedOriginals SignedOriginals
	MediaTypes      filters.MediaTypes
	CacheIndex      filters.CacheIndex
	Name            string // the rule's globs, which stay the same when rules are reordered; DefaultRule if none matched
}

// DefaultRule is the Name of the settings at the top level. No glob looks like it.
const DefaultRule = "(default)"

// Policy is what the filters need of the settings. ecr tells whether the repository is in Amazon ECR.
func (s RuleSettings) Policy(ecr bool) filters.Policy {
	p := filters.Policy{Attestations: s.Attestations, Unwrap: s.Unwrap, MediaTypes: s.MediaTypes, CacheIndex: s.CacheIndex}
	if p.CacheIndex == CacheIndexAuto {
		p.CacheIndex = filters.CacheIndexKeep
		if ecr {
			p.CacheIndex = filters.CacheIndexManifest
		}
	}
	return p
}

// Rule gives the settings for a repository, by the name that clients use: the first
// rule with a glob that matches, and the top level for what that leaves out.
func (c *Config) Rule(repository string) RuleSettings {
	for _, r := range c.Rules {
		for _, g := range r.Repositories {
			if doublestar.MatchUnvalidated(g, repository) {
				return c.Effective(r)
			}
		}
	}
	return c.Effective(Rule{})
}

// Effective fills what a rule leaves out from the top level.
func (c *Config) Effective(r Rule) RuleSettings {
	return RuleSettings{
		Attestations:    cmp.Or(r.Attestations, c.Attestations),
		Unwrap:          cmp.Or(r.Unwrap, c.Unwrap),
		View:            cmp.Or(r.View, c.View),
		SignedOriginals: cmp.Or(r.SignedOriginals, c.SignedOriginals),
		MediaTypes:      cmp.Or(r.MediaTypes, c.MediaTypes),
		CacheIndex:      cmp.Or(r.CacheIndex, c.CacheIndex),
		Name:            cmp.Or(strings.Join(r.Repositories, ","), DefaultRule),
	}
}

// Upstream finds the registry for a repository: the longest prefix of whole path
// components wins and is removed from the name. ok is false when none matches, and
// for a name that is nothing but a prefix.
func (c *Config) Upstream(repository string) (u *Upstream, name string, ok bool) {
	for i := range c.Upstreams {
		candidate := &c.Upstreams[i]
		rest, matches := repository, repository != ""
		if candidate.Prefix != "" {
			rest, matches = strings.CutPrefix(repository, candidate.Prefix+"/")
		}
		if matches && rest != "" && (u == nil || len(candidate.Prefix) > len(u.Prefix)) {
			u, name, ok = candidate, rest, true
		}
	}
	return u, name, ok
}

func (v *validator) rules() {
	for i, r := range v.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if len(r.Repositories) == 0 {
			v.add(at+".repositories", "is missing; list the repositories that the rule is for as globs, such as [\"lambda/**\"]")
		}
		for j, g := range r.Repositories {
			key := fmt.Sprintf("%s.repositories[%d]", at, j)
			if v.glob(key, g, true) {
				v.dead(key, g, i)
			}
		}
		known := true
		if r.Attestations != "" {
			known = enum(v, at+".attestations", r.Attestations, actions())
		}
		if r.Unwrap != "" {
			enum(v, at+".unwrap", r.Unwrap, unwraps())
		}
		if r.View != "" {
			enum(v, at+".view", r.View, views())
		}
		if r.MediaTypes != "" {
			enum(v, at+".media_types", r.MediaTypes, mediaTypes())
		}
		if r.CacheIndex != "" {
			enum(v, at+".cache_index", r.CacheIndex, cacheIndexes())
		}
		if r.SignedOriginals != "" {
			enum(v, at+".signed_originals", r.SignedOriginals, signed())
		}
		// A rule that sets neither inherits the contradiction, which is reported there.
		s := v.Effective(r)
		if known && s.View == ViewOriginal && s.Attestations != filters.Store {
			switch {
			case r.View != "" && r.Attestations != "":
				v.contradictoryView(at+".view", at+".attestations", s.Attestations)
			case r.View != "":
				v.contradictoryView(at+".view", "attestations", s.Attestations)
			case r.Attestations != "":
				v.contradictoryView(at+".attestations", "view", s.Attestations)
			}
		}
		if s.MediaTypes == filters.MediaTypesDocker && s.Attestations == filters.Forward {
			switch {
			case r.MediaTypes != "" && r.Attestations != "":
				v.contradictoryTypes(at+".media_types", at+".attestations")
			case r.MediaTypes != "":
				v.contradictoryTypes(at+".media_types", "attestations")
			case r.Attestations != "":
				v.contradictoryTypes(at+".attestations", "media_types")
			}
		}
	}
}

// glob checks a pattern; one for repositories must also be able to match a name.
func (v *validator) glob(key, g string, repository bool) bool {
	if !doublestar.ValidatePattern(g) {
		v.add(key, "%q is not a glob; write *, **, ?, [a-z] or {a,b}, each bracket closed", g)
		return false
	}
	if !repository {
		return true
	}
	const literal = "abcdefghijklmnopqrstuvwxyz0123456789._-/"
	bad := strings.Trim(g, literal+"*?[]{}!^,\\")
	switch {
	case g == "":
		v.add(key, "is empty; write a glob, such as \"team/**\"")
	case strings.HasPrefix(g, "/") || strings.HasSuffix(g, "/"):
		v.add(key, "%q can never match: a repository's name neither begins nor ends with a slash", g)
	case bad != "":
		v.add(key, "%q can never match: a repository's name holds lower-case letters, digits and ._-/ only (no host, tag or digest)", g)
	default:
		return true
	}
	return false
}

// dead reports a glob that an earlier rule takes everything from.
func (v *validator) dead(key, g string, rule int) {
	for i, earlier := range v.Rules[:rule] {
		for j, other := range earlier.Repositories {
			if covers(other, g) {
				at := fmt.Sprintf("rules[%d].repositories[%d]", i, j)
				v.add(key, "%q can never match, because %q of %s comes first and takes all of it; move this rule up, or delete it", g, other, v.source.where(at))
				return
			}
		}
	}
}

// covers is true if wide matches everything that narrow does. It errs on the side
// of false: what it calls dead is dead.
func covers(wide, narrow string) bool {
	if wide == narrow || wide == "**" {
		return true
	}
	if strings.ContainsAny(wide, `[\`) || !doublestar.ValidatePattern(wide) {
		return false
	}
	// Names that narrow matches, made of characters that wide can match only by a
	// wildcard of its own, not by a literal.
	for _, name := range probes(narrow) {
		if !doublestar.MatchUnvalidated(wide, name) {
			return false
		}
	}
	return true
}

// probes replaces the wildcards of a glob by short, long and deep samples. The
// upper-case letters are in no repository glob.
func probes(glob string) []string {
	tokens := tokenize(glob)
	names := []string{""}
	for _, t := range tokens {
		var next []string
		for _, n := range names {
			for _, s := range t {
				next = append(next, n+s)
			}
		}
		if names = next; len(names) > 4096 {
			return []string{"\x00"} // too many to try: covered by nothing
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

func tokenize(glob string) (tokens [][]string) {
	anything := []string{"", "Q", "QWX", "Q/WX/Q", "QW/X/QWX"}
	for i := 0; i < len(glob); i++ {
		switch rest := glob[i:]; {
		case strings.HasPrefix(rest, "**/"): // no component, one, or more
			tokens = append(tokens, []string{"", "Q/", "QWX/", "Q/WX/Q/", "QW/X/QWX/"})
			i += 2
		case rest == "/**": // a/** matches a as well
			return append(tokens, []string{"", "/Q", "/QWX", "/Q/WX/Q", "/QW/X/QWX"})
		case strings.HasPrefix(rest, "**"):
			tokens = append(tokens, anything)
			i++
		case rest[0] == '*':
			tokens = append(tokens, []string{"", "Q", "QWX"})
		case rest[0] == '?':
			tokens = append(tokens, []string{"Q"})
		case strings.ContainsRune(`[]{}\,`, rune(rest[0])):
			// Classes and alternatives: covered only by a wildcard over all the rest.
			return append(tokens, anything)
		default:
			tokens = append(tokens, []string{rest[:1]})
		}
	}
	return tokens
}
