package ecrsim

import (
	"cmp"
	"slices"
)

const blobMounting = "BLOB_MOUNTING"

type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (q *request) putAccountSetting() (any, *failure) {
	in, f := read[setting](q)
	switch {
	case f != nil:
		return nil, f
	case in.Name != blobMounting:
		return nil, oneOf("name", blobMounting)
	case in.Value != "ENABLED" && in.Value != "DISABLED":
		return nil, oneOf("value", "ENABLED", "DISABLED")
	}
	q.Update(func(sw *Switches) { sw.BlobMounting = in.Value == "ENABLED" })
	return in, nil
}

func (q *request) getAccountSetting() (any, *failure) {
	in, f := read[setting](q)
	switch {
	case f != nil:
		return nil, f
	case in.Name != blobMounting:
		return nil, oneOf("name", blobMounting)
	}
	if in.Value = "DISABLED"; q.sw.BlobMounting {
		in.Value = "ENABLED"
	}
	return in, nil
}

// creationTemplate is a Template as the API has it.
type creationTemplate struct {
	Prefix                             string            `json:"prefix"`
	AppliedFor                         []string          `json:"appliedFor"`
	ImageTagMutability                 string            `json:"imageTagMutability,omitempty"`
	ImageTagMutabilityExclusionFilters []ExclusionFilter `json:"imageTagMutabilityExclusionFilters,omitempty"`
	EncryptionConfiguration            *Encryption       `json:"encryptionConfiguration,omitempty"`
	LifecyclePolicy                    string            `json:"lifecyclePolicy,omitempty"`
	RepositoryPolicy                   string            `json:"repositoryPolicy,omitempty"`
	ResourceTags                       []ResourceTag     `json:"resourceTags,omitempty"`
}

const createOnPush = "CREATE_ON_PUSH"

// createTemplate keeps a template if it is for pushes; those for pull-through caches and replication do nothing here.
func (q *request) createTemplate() (any, *failure) {
	in, f := read[creationTemplate](q)
	if f != nil {
		return nil, f
	}
	if f := new(repository).setMutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); f != nil {
		return nil, f
	}
	t := Template{
		Prefix: in.Prefix, Mutability: in.ImageTagMutability, Exclusions: in.ImageTagMutabilityExclusionFilters,
		Lifecycle: in.LifecyclePolicy, Policy: in.RepositoryPolicy, Tags: in.ResourceTags,
	}
	if in.EncryptionConfiguration != nil {
		t.Encryption = *in.EncryptionConfiguration
	}
	switch {
	case len(in.AppliedFor) == 0:
		return nil, oneOf("appliedFor", "REPLICATION", "PULL_THROUGH_CACHE", createOnPush)
	case slices.ContainsFunc(q.sw.Templates, func(o Template) bool { return o.Prefix == t.Prefix }):
		return nil, &failure{status: 400, exception: "TemplateAlreadyExistsException", message: "The repository creation template with prefix '" + t.Prefix + "' already exists"}
	case slices.Contains(in.AppliedFor, createOnPush):
		q.Update(func(sw *Switches) { sw.Templates = append(sw.Templates, t) })
	}
	return map[string]any{"registryId": q.account, "repositoryCreationTemplate": in}, nil
}

func (q *request) describeTemplates() (any, *failure) {
	all := []creationTemplate{}
	for _, t := range q.sw.Templates {
		d := creationTemplate{
			Prefix: t.Prefix, AppliedFor: []string{createOnPush}, ImageTagMutability: cmp.Or(t.Mutability, mutable),
			ImageTagMutabilityExclusionFilters: t.Exclusions, LifecyclePolicy: t.Lifecycle, RepositoryPolicy: t.Policy, ResourceTags: t.Tags,
		}
		if t.Encryption.EncryptionType != "" {
			d.EncryptionConfiguration = &t.Encryption
		}
		all = append(all, d)
	}
	return map[string]any{"registryId": q.account, "repositoryCreationTemplates": all}, nil
}
