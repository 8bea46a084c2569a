package ecrsim

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// repository is what one holds. Simulator.mu guards all of it.
type repository struct {
	name       string
	created    time.Time
	mutability string
	exclusions []ExclusionFilter
	encryption Encryption
	tags       []ResourceTag
	lifecycle  string
	policy     string

	images map[string]*image // by digest
	tagged map[string]string // digest by tag
	layers map[string]*layer // by digest; configs are layers too
}

type layer struct {
	size       int64
	references int // images that list it
}

// ExclusionFilter is a pattern of tags, in which * stands for any characters, that mutability does not hold for.
type ExclusionFilter struct {
	Filter     string `json:"filter"`
	FilterType string `json:"filterType"` // WILDCARD
}

// Encryption must be the same on both sides of a mount.
type Encryption struct {
	EncryptionType string `json:"encryptionType"`
	KmsKey         string `json:"kmsKey,omitempty"`
}

// ResourceTag is a tag of the repository, not of an image.
type ResourceTag struct {
	Key   string `json:"Key"`
	Value string `json:"Value"`
}

// Mutability of tags.
const (
	mutable                = "MUTABLE"
	immutableTags          = "IMMUTABLE"
	mutableWithExclusion   = "MUTABLE_WITH_EXCLUSION"
	immutableWithExclusion = "IMMUTABLE_WITH_EXCLUSION"
)

// The pattern of the API reference of CreateRepository, which also wants a letter first.
var repositoryPattern = regexp.MustCompile(`^[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*$`)

func checkRepository(name string) *failure {
	if len(name) < 2 || len(name) > 256 || !repositoryPattern.MatchString(name) {
		return invalid("repositoryName", `must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*'`)
	}
	return nil
}

func (s *Simulator) arn(repo string) string {
	return "arn:aws:ecr:" + s.region + ":" + s.account + ":repository/" + repo
}

// repository finds one; the caller holds the lock.
func (s *Simulator) repository(name string) (*repository, *failure) {
	if r := s.repositories[name]; r != nil {
		return r, nil
	}
	return nil, s.noRepository(name)
}

// pushed finds the repository of a push, or makes it where a creation template says so.
func (s *Simulator) pushed(name string, sw *Switches) (*repository, *failure) {
	if r := s.repositories[name]; r != nil {
		return r, nil
	}
	if f := checkRepository(name); f != nil {
		return nil, f
	}
	t, ok := template(sw.Templates, name)
	if !ok {
		return nil, s.noRepository(name)
	}
	r := s.newRepository(name)
	if t.Mutability != "" {
		r.mutability, r.exclusions = t.Mutability, slices.Clone(t.Exclusions)
	}
	if t.Encryption.EncryptionType != "" {
		r.encryption = t.Encryption
	}
	r.lifecycle, r.policy, r.tags = t.Lifecycle, t.Policy, slices.Clone(t.Tags)
	s.repositories[name] = r
	return r, nil
}

func (s *Simulator) newRepository(name string) *repository {
	return &repository{
		name: name, created: s.now(), mutability: mutable, encryption: Encryption{EncryptionType: "AES256"},
		images: map[string]*image{}, tagged: map[string]string{}, layers: map[string]*layer{},
	}
}

func template(all []Template, name string) (best Template, ok bool) {
	length := -1
	for _, t := range all {
		prefix := strings.TrimSuffix(t.Prefix, "/")
		switch {
		case t.Prefix == "ROOT":
			prefix = ""
		case name != prefix && !strings.HasPrefix(name, prefix+"/"):
			continue
		}
		if len(prefix) > length {
			best, ok, length = t, true, len(prefix)
		}
	}
	return best, ok
}

// isImmutable says whether a tag, once given, stays.
func (r *repository) isImmutable(tag string) bool {
	excluded := slices.ContainsFunc(r.exclusions, func(f ExclusionFilter) bool {
		ok, err := path.Match(f.Filter, tag) // a tag has no slash, so * is any characters
		return err == nil && ok
	})
	switch r.mutability {
	case immutableTags:
		return true
	case immutableWithExclusion:
		return !excluded
	case mutableWithExclusion:
		return excluded
	}
	return false
}

// tagsOf are the tags of an image, sorted.
func (r *repository) tagsOf(digest string) []string {
	var tags []string
	for t, d := range r.tagged {
		if d == digest {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	return tags
}

// CreateRepository makes an empty one with mutable tags, as the operation of that name does. One that exists is left alone.
func (s *Simulator) CreateRepository(name string) error {
	if f := checkRepository(name); f != nil {
		return f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repositories[name] == nil {
		s.repositories[name] = s.newRepository(name)
	}
	return nil
}
