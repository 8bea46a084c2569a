package ecrsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// seconds is how AWS JSON writes a time.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (q *request) getAuthorizationToken() (any, *failure) {
	password, expires := q.issueToken(q.who)
	return map[string]any{"authorizationData": []any{map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte(tokenUser + ":" + password)),
		"expiresAt":          seconds(expires),
		"proxyEndpoint":      "https://" + q.host,
	}}}, nil
}

func (q *request) createRepository() (any, *failure) {
	in, f := read[struct {
		RepositoryName                     string            `json:"repositoryName"`
		ImageTagMutability                 string            `json:"imageTagMutability"`
		ImageTagMutabilityExclusionFilters []ExclusionFilter `json:"imageTagMutabilityExclusionFilters"`
		EncryptionConfiguration            *Encryption       `json:"encryptionConfiguration"`
		Tags                               []ResourceTag     `json:"tags"`
	}](q)
	if f != nil {
		return nil, f
	}
	if f := checkRepository(in.RepositoryName); f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.repositories[in.RepositoryName] != nil {
		return nil, &failure{status: 400, exception: "RepositoryAlreadyExistsException", message: fmt.Sprintf(
			"The repository with name '%s' already exists in the registry with id '%s'", in.RepositoryName, q.account)}
	}
	r := q.newRepository(in.RepositoryName)
	if f := r.setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); f != nil {
		return nil, f
	}
	if e := in.EncryptionConfiguration; e != nil {
		if !slices.Contains([]string{"AES256", "KMS", "KMS_DSSE"}, e.EncryptionType) {
			return nil, oneOf("encryptionConfiguration.encryptionType", "AES256", "KMS", "KMS_DSSE")
		}
		r.encryption = *e
	}
	r.tags = in.Tags
	q.repositories[r.name] = r
	return map[string]any{"repository": q.described(r)}, nil
}

func oneOf(parameter string, allowed ...string) *failure {
	return invalid(parameter, "Member must satisfy enum value set: ["+strings.Join(allowed, ", ")+"]")
}

func (r *repository) setMutability(value string, exclusions []ExclusionFilter) *failure {
	with := value == mutableWithExclusion || value == immutableWithExclusion
	switch {
	case value == "":
		value = mutable
	case !with && value != mutable && value != immutableTags:
		return oneOf("imageTagMutability", mutable, immutableTags, mutableWithExclusion, immutableWithExclusion)
	case with != (len(exclusions) > 0):
		return invalid("imageTagMutabilityExclusionFilters", "Exclusion filters are for MUTABLE_WITH_EXCLUSION and IMMUTABLE_WITH_EXCLUSION, which need them")
	}
	for _, f := range exclusions {
		if f.FilterType != "WILDCARD" {
			return oneOf("imageTagMutabilityExclusionFilters.filterType", "WILDCARD")
		}
	}
	r.mutability, r.exclusions = value, exclusions
	return nil
}

func (q *request) described(r *repository) map[string]any {
	d := map[string]any{
		"repositoryArn": q.arn(r.name), "registryId": q.account, "repositoryName": r.name,
		"repositoryUri": q.host + "/" + r.name, "createdAt": seconds(r.created), "imageTagMutability": r.mutability,
		"encryptionConfiguration":    r.encryption,
		"imageScanningConfiguration": map[string]any{"scanOnPush": false},
	}
	if len(r.exclusions) > 0 {
		d["imageTagMutabilityExclusionFilters"] = r.exclusions
	}
	return d
}

func (q *request) describeRepositories() (any, *failure) {
	in, f := read[struct {
		RepositoryNames []string `json:"repositoryNames"`
		paging
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	names := in.RepositoryNames
	for _, n := range names {
		if _, f := q.repository(n); f != nil {
			return nil, f
		}
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(q.repositories))
	}
	return paged(q, in.paging, "repositories", names, 100, 1000, func(name string) any { return q.described(q.repositories[name]) })
}

// one is the input of operations on a repository, and text what most of them set.
type one struct {
	RepositoryName      string `json:"repositoryName"`
	Force               bool   `json:"force"`
	PolicyText          string `json:"policyText"`
	LifecyclePolicyText string `json:"lifecyclePolicyText"`
}

// on runs f on the repository that the request names, under the lock, and answers with what f adds.
func (q *request) on(f func(in one, r *repository, out map[string]any) *failure) (any, *failure) {
	in, bad := read[one](q)
	if bad != nil {
		return nil, bad
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, bad := q.repository(in.RepositoryName)
	if bad != nil {
		return nil, bad
	}
	out := map[string]any{"registryId": q.account, "repositoryName": r.name}
	if bad := f(in, r, out); bad != nil {
		return nil, bad
	}
	return out, nil
}

func (q *request) deleteRepository() (any, *failure) {
	out := map[string]any{}
	_, f := q.on(func(in one, r *repository, _ map[string]any) *failure {
		if len(r.images) > 0 && !in.Force {
			return &failure{status: 400, exception: "RepositoryNotEmptyException", message: fmt.Sprintf(
				"The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", r.name, q.account)}
		}
		delete(q.repositories, r.name)
		out["repository"] = q.described(r)
		return nil
	})
	return out, f
}

func (q *request) putImageTagMutability() (any, *failure) {
	in, f := read[struct {
		ImageTagMutability                 string            `json:"imageTagMutability"`
		ImageTagMutabilityExclusionFilters []ExclusionFilter `json:"imageTagMutabilityExclusionFilters"`
	}](q)
	if f != nil {
		return nil, f
	}
	return q.on(func(_ one, r *repository, out map[string]any) *failure {
		if f := r.setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); f != nil {
			return f
		}
		out["imageTagMutability"] = r.mutability
		if len(r.exclusions) > 0 {
			out["imageTagMutabilityExclusionFilters"] = r.exclusions
		}
		return nil
	})
}

func (q *request) putLifecyclePolicy() (any, *failure) {
	return q.on(func(in one, r *repository, out map[string]any) *failure {
		const limit = 30_720
		var policy struct {
			Rules []json.RawMessage `json:"rules"`
		}
		switch err := json.Unmarshal([]byte(in.LifecyclePolicyText), &policy); {
		case len(in.LifecyclePolicyText) > limit:
			return invalid("LifecyclePolicyText", fmt.Sprintf("Member must have length less than or equal to %d", limit))
		case err != nil || len(policy.Rules) == 0:
			return invalid("LifecyclePolicyText", "Lifecycle policy validation failure: a list of rules is needed")
		case len(policy.Rules) > 50:
			return invalid("LifecyclePolicyText", "Lifecycle policy validation failure: at most 50 rules")
		}
		r.lifecycle = in.LifecyclePolicyText
		out["lifecyclePolicyText"] = r.lifecycle
		return nil
	})
}

func (q *request) getLifecyclePolicy() (any, *failure) {
	return q.on(func(_ one, r *repository, out map[string]any) *failure {
		if r.lifecycle == "" {
			return &failure{status: 400, exception: "LifecyclePolicyNotFoundException", message: fmt.Sprintf(
				"Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", r.name, q.account)}
		}
		out["lifecyclePolicyText"] = r.lifecycle
		return nil
	})
}

func (q *request) setRepositoryPolicy() (any, *failure) {
	return q.on(func(in one, r *repository, out map[string]any) *failure {
		if !json.Valid([]byte(in.PolicyText)) {
			return invalid("PolicyText", "Invalid repository policy provided")
		}
		r.policy = in.PolicyText
		out["policyText"] = r.policy
		return nil
	})
}

func (q *request) getRepositoryPolicy() (any, *failure) {
	return q.on(func(_ one, r *repository, out map[string]any) *failure {
		if r.policy == "" {
			return &failure{status: 400, exception: "RepositoryPolicyNotFoundException", message: fmt.Sprintf(
				"Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", r.name, q.account)}
		}
		out["policyText"] = r.policy
		return nil
	})
}

// tagged finds a repository by its ARN; the caller holds the lock.
func (q *request) byARN(arn string) (*repository, *failure) {
	name, ok := strings.CutPrefix(arn, q.arn(""))
	if !ok {
		return nil, invalid("resourceArn", "must be the ARN of a repository of this registry")
	}
	return q.repository(name)
}

func (q *request) tagResource() (any, *failure) {
	in, f := read[struct {
		ResourceArn string        `json:"resourceArn"`
		Tags        []ResourceTag `json:"tags"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.byARN(in.ResourceArn)
	if f != nil {
		return nil, f
	}
	for _, t := range in.Tags {
		r.tags = append(slices.DeleteFunc(r.tags, func(o ResourceTag) bool { return o.Key == t.Key }), t)
	}
	return map[string]any{}, nil
}

func (q *request) listTagsForResource() (any, *failure) {
	in, f := read[struct {
		ResourceArn string `json:"resourceArn"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.byARN(in.ResourceArn)
	if f != nil {
		return nil, f
	}
	return map[string]any{"tags": append([]ResourceTag{}, r.tags...)}, nil
}
