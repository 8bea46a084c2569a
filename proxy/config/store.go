package config

import (
	"strings"
)

// repositoryPlace in store.repository stands for the name of the image's repository.
const repositoryPlace = "{repository}"

// StoreIn is the repository that the attestations of a repository go to, both by the names that clients use; "" is the
// storage. A repository that attestations go to keeps its own, so that the names do not grow without end.
func (c *Config) StoreIn(repository string) string {
	switch c.Store.To {
	case StoreToReferrers:
		return repository
	case StoreToRepository:
		if c.Store.holds(repository) {
			return repository
		}
		return c.Store.of(repository)
	}
	return ""
}

// of fills the name of a repository in.
func (s Store) of(repository string) string {
	return strings.Replace(s.Repository, repositoryPlace, repository, 1)
}

// holds is true for a repository that attestations go to.
func (s Store) holds(repository string) bool {
	before, after, template := strings.Cut(s.Repository, repositoryPlace)
	if !template {
		return repository == s.Repository
	}
	inner, begins := strings.CutPrefix(repository, before)
	inner, ends := strings.CutSuffix(inner, after)
	return begins && ends && prefixGrammar.MatchString(inner)
}

func (v *validator) store() {
	enum(v, "store.to", v.Store.To, []StoreTo{StoreToStorage, StoreToRepository, StoreToReferrers})
	if v.Store.To == StoreToRepository {
		v.storeRepository()
	} else if v.Store.Repository != Default().Store.Repository {
		v.add("store.repository", "has no effect with %s: %s; set to: repository, or take it out", v.source.where("store.to"), v.Store.To)
	}
	if v.Store.Retention == Forever {
		return
	}
	switch {
	case v.Store.To == StoreToRepository || v.Store.To == StoreToReferrers:
		v.add("store.retention", "has no effect with %s: %s, since how long a registry keeps them is its own lifecycle policy; take it out",
			v.source.where("store.to"), v.Store.To)
	case v.Store.Retention < v.Retention:
		v.add("store.retention", "%s is less than %s %s, which says how long unfinished pushes wait; what is stored must live at least as long",
			v.Store.Retention, v.source.where("retention"), v.Retention)
	}
}

// storeRepository checks the template with a repository of every upstream.
func (v *validator) storeRepository() {
	const key, form = "store.repository", `write a name with {repository} in it, such as "{repository}-attestations", or one fixed name`
	template := v.Store.Repository
	literal := strings.Replace(template, repositoryPlace, "x", 1)
	switch {
	case template == "":
		v.add(key, "is missing; %s", form)
		return
	case template == repositoryPlace:
		v.add(key, "is the image's own repository; set store.to: referrers if they are to go there, or %s", form)
		return
	case !prefixGrammar.MatchString(literal):
		v.add(key, "%q is no name of a repository; %s, in lower-case path components without a host or tag", template, form)
		return
	}
	if !strings.Contains(template, repositoryPlace) {
		if _, _, ok := v.Config.Upstream(template); !ok {
			v.add(key, "no upstream is configured for %s: see upstreams[].prefix", template)
		}
		return
	}
	for _, u := range v.Upstreams {
		sample := strings.TrimPrefix(u.Prefix+"/app", "/")
		if _, _, ok := v.Config.Upstream(v.Store.of(sample)); !ok {
			v.add(key, "attestations of %s go to %s, for which no upstream is configured: see upstreams[].prefix", sample, v.Store.of(sample))
			return
		}
	}
}
