package upstream

import (
	"net/http"
	"slices"
	"strings"
)

// scopes are what a request needs a token for, in the form of distribution's token specification
// ("repository:name:pull,push"). None for /v2/ itself.
func scopes(q Request) []string {
	if q.Repository == "" {
		if strings.HasPrefix(q.Path, "_catalog") {
			return []string{"registry:catalog:*"}
		}
		return nil
	}
	actions := "pull"
	switch {
	case q.Method == http.MethodDelete && q.Location == "" && !strings.HasPrefix(q.Path, "blobs/uploads/"):
		actions = "delete,pull" // distribution's registry wants "delete" here and nothing else
		if q.Push {
			actions = "delete,pull,push" // and others know no such action
		}
	case q.Push:
		actions = "pull,push"
	}
	out := []string{"repository:" + q.Repository + ":" + actions}
	if q.Mount != "" && q.Mount != q.Repository {
		out = append(out, "repository:"+q.Mount+":pull")
	}
	return out
}

// widen adds the scopes of a challenge to those of a request. Registries disagree about the actions
// that a method needs (distribution wants "delete" for cancelling an upload), so what a 401 asks for counts.
func widen(have []string, asked string) []string {
	out := slices.Clone(have)
	for _, s := range strings.Fields(asked) {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			continue
		}
		at := slices.IndexFunc(out, func(h string) bool { return strings.HasPrefix(h, s[:i+1]) })
		if at < 0 {
			out = append(out, s)
			continue
		}
		actions := strings.Split(out[at][i+1:], ",")
		for _, a := range strings.Split(s[i+1:], ",") {
			if !slices.Contains(actions, a) && !slices.Contains(actions, "*") {
				actions = append(actions, a)
			}
		}
		slices.Sort(actions)
		out[at] = s[:i+1] + strings.Join(actions, ",")
	}
	return out
}

// withPush is the scope of a token that allows more than scope does, if there is one to look for.
func withPush(scope []string) (string, bool) {
	if len(scope) == 1 && strings.HasSuffix(scope[0], ":pull") {
		return scope[0] + ",push", true
	}
	return "", false
}
