package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/api"
)

// What AWS takes, so that a mistake shows now and not at the first push: the API reference of
// CreateRepository and ImageTagMutabilityExclusionFilter, and the quota of a lifecycle policy.
var tagExclusion = regexp.MustCompile(`^[0-9a-zA-Z._*-]{1,128}$`)

const (
	maxTagExclusions = 5
	maxLifecycle     = 30_720
	maxPolicy        = 10_240
	maxResourceTags  = 50
)

// policy is one of the two JSON documents that a new repository may get.
type policy struct {
	key, text, file string
	most            int
}

func (c CreateRepositories) policies() []policy {
	return []policy{
		{"lifecycle_policy", c.LifecyclePolicy, c.LifecyclePolicyFile, maxLifecycle},
		{"repository_policy", c.RepositoryPolicy, c.RepositoryPolicyFile, maxPolicy},
	}
}

func (p policy) read() (string, error) {
	if p.file == "" {
		return p.text, nil
	}
	f, err := os.Open(p.file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

// check says what is wrong with a policy; what its rules mean is for AWS to judge.
func (p policy) check(text string) error {
	if len(text) > p.most {
		return fmt.Errorf("has %d characters, and AWS takes %d", len(text), p.most)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	var object map[string]json.RawMessage
	if err := dec.Decode(&object); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fmt.Errorf("is not JSON, at its byte %d: %w", syntax.Offset, err)
		}
		return errors.New("is not a JSON object ({...})")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("has something behind its JSON object")
	}
	need := map[string]string{"lifecycle_policy": "rules", "repository_policy": "Statement"}[p.key]
	if _, ok := object[need]; !ok {
		return fmt.Errorf("has no %q, so that it is no %s", need, strings.ReplaceAll(p.key, "_", " "))
	}
	return nil
}

// ReadPolicies gives the two policies, from their files where those are set; "" is none.
func (c CreateRepositories) ReadPolicies() (lifecycle, repository string, err error) {
	var texts [2]string
	for i, p := range c.policies() {
		if texts[i], err = p.read(); err != nil {
			return "", "", fmt.Errorf("create_repositories.%s_file: %w", p.key, err)
		}
		if texts[i] == "" {
			continue
		}
		if err := p.check(texts[i]); err != nil {
			return "", "", fmt.Errorf("create_repositories.%s: %w", p.key, err)
		}
	}
	return texts[0], texts[1], nil
}

func (v *validator) createRepositories(at string, u Upstream) {
	at += ".create_repositories"
	c := u.CreateRepositories
	if !c.Enabled {
		if c.isSet() {
			v.add(at+".enabled", "is not set, so that the rest has no effect; set it to true, or take the rest out")
		}
		return
	}
	v.creates(at+".enabled", u)
	if len(c.Repositories) == 0 && v.CredentialsOf(u) == CredentialsPassthrough {
		v.add(at+".repositories", "is missing: with credentials: passthrough whoever has a password for any account of ECR may reach this; name the repositories that may be made, such as [\"team/**\"]")
	}
	for i, g := range c.Repositories {
		v.glob(fmt.Sprintf("%s.repositories[%d]", at, i), g, true)
	}
	v.mutability(at, c)
	if c.Encryption != "" {
		enum(v, at+".encryption", c.Encryption, []Encryption{EncryptionAES256, EncryptionKMS, EncryptionKMSDSSE})
	}
	if c.KMSKey != "" && c.Encryption != EncryptionKMS && c.Encryption != EncryptionKMSDSSE {
		v.add(at+".kms_key", "is for encryption: KMS or KMS_DSSE; set that, or take the key out")
	}
	if len(c.Tags) > maxResourceTags {
		v.add(at+".tags", "are %d, and AWS takes %d", len(c.Tags), maxResourceTags)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Tags)) {
		switch {
		case k == "" || len(k) > 128 || len(c.Tags[k]) > 256:
			v.add(at+".tags."+k, "is not a tag that AWS takes: a key of 1 to 128 characters, and a value of at most 256")
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			v.add(at+".tags."+k, "begins with aws:, which is for AWS itself; choose another key")
		}
	}
	for _, p := range c.policies() {
		switch {
		case p.text != "" && p.file != "":
			v.add(at+"."+p.key+"_file", "and %s are both set; keep one of them", v.source.where(at+"."+p.key))
		case p.text != "":
			if err := p.check(p.text); err != nil {
				v.add(at+"."+p.key, "%v", err)
			}
		}
	}
}

func (c CreateRepositories) isSet() bool {
	return len(c.Repositories) > 0 || c.TagMutability != "" || len(c.TagExclusions) > 0 || c.Encryption != "" || c.KMSKey != "" || len(c.Tags) > 0 ||
		c.LifecyclePolicy != "" || c.LifecyclePolicyFile != "" || c.RepositoryPolicy != "" || c.RepositoryPolicyFile != ""
}

// creates checks that the registry is one where Sluice can make repositories: the API is that of a
// private registry, whose account and region are in its host name.
func (v *validator) creates(key string, u Upstream) {
	if u.URL == Embedded {
		v.add(key, "true is for Amazon ECR; the embedded registry makes repositories by itself, so take it out")
		return
	}
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return // said already
	}
	switch r, err := api.ExtractRegistry(strings.ToLower(parsed.Hostname())); {
	case err != nil:
		v.add(key, "true is for Amazon ECR, and %s is not the host of one, which tells its account and region; take it out, or write https://ACCOUNT.dkr.ecr.REGION.amazonaws.com", v.source.where(key[:strings.LastIndex(key, ".create_")]+".url"))
	case r.Service == api.ServiceECRPublic:
		v.add(key, "true is not available for ECR Public, only for private registries; make the repositories with aws ecr-public create-repository")
	}
}

func (v *validator) mutability(at string, c CreateRepositories) {
	with := c.TagMutability == MutableWithExclusion || c.TagMutability == ImmutableWithExclusion
	if c.TagMutability != "" && !enum(v, at+".tag_mutability", c.TagMutability, []TagMutability{Mutable, Immutable, MutableWithExclusion, ImmutableWithExclusion}) {
		return
	}
	switch {
	case with && len(c.TagExclusions) == 0:
		v.add(at+".tag_exclusions", "is missing for tag_mutability: %s; name the tags that are excluded, such as [latest, \"dev-*\"]", c.TagMutability)
	case !with && len(c.TagExclusions) > 0:
		v.add(at+".tag_exclusions", "is for tag_mutability: MUTABLE_WITH_EXCLUSION or IMMUTABLE_WITH_EXCLUSION; set one of them, or take it out")
	case len(c.TagExclusions) > maxTagExclusions:
		v.add(at+".tag_exclusions", "are %d, and AWS takes %d", len(c.TagExclusions), maxTagExclusions)
	}
	for i, e := range c.TagExclusions {
		if !tagExclusion.MatchString(e) || strings.Count(e, "*") > 2 {
			v.add(fmt.Sprintf("%s.tag_exclusions[%d]", at, i), "%q is not one that AWS takes: letters, digits, . _ - and at most two *", e)
		}
	}
}
