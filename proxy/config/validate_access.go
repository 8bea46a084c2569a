package config

import (
	"fmt"
	"net"
	"slices"
)

func (v *validator) access() {
	a := v.Access
	modes := []AccessMode{AccessNone, AccessHtpasswd, AccessToken, AccessOIDC, AccessMTLS, AccessPassthrough}
	if !enum(v, "access.mode", a.Mode, modes) {
		return
	}
	host, _, err := net.SplitHostPort(v.Listen)
	reachable := err == nil && !loopback(host)
	if a.Mode == AccessNone && reachable && !a.Insecure {
		at := "listen"
		if _, set := v.source.keys["access.mode"]; set {
			at = "access.mode"
		}
		v.add(at, "with access mode none everybody who reaches %s %s can push with Sluice's own credentials; "+
			"listen on 127.0.0.1, choose another access.mode, or set access.insecure: true", v.source.where("listen"), v.Listen)
	}
	if a.Insecure && a.Mode != AccessNone {
		v.add("access.insecure", "has a meaning only with access.mode: none, and %s is %s; take it out", v.source.where("access.mode"), a.Mode)
	}
	switch {
	case a.Mode == AccessHtpasswd && a.Htpasswd == "":
		v.add("access.mode", "htpasswd needs a file; set access.htpasswd (make one with: htpasswd -cB FILE USER)")
	case a.Mode != AccessHtpasswd && a.Htpasswd != "":
		v.add("access.htpasswd", "is not used with %s: %s; set access.mode: htpasswd, or take it out", v.source.where("access.mode"), a.Mode)
	}
}

func (v *validator) permissions() {
	for i, p := range v.Access.Permissions {
		at := fmt.Sprintf("access.permissions[%d]", i)
		if p.Identity == "" {
			v.add(at+".identity", "is missing; name a user or a glob, such as \"ci-*\" (\"*\" for everybody)")
		} else {
			v.glob(at+".identity", p.Identity, false)
		}
		switch mode := v.Access.Mode; {
		case p.Identity == "" || p.Identity == "*" || p.Identity == "**":
		case mode == AccessNone && p.Identity != "anonymous":
			v.add(at+".identity", "with %s: none everybody is \"anonymous\"; write that or \"*\", or choose another access.mode", v.source.where("access.mode"))
		case mode == AccessPassthrough:
			// The name in credentials that are passed through is what the client wrote
			// there; some registries accept any user name beside a good token.
			v.add(at+".identity", "with %s: passthrough names are not checked by Sluice, so a permission cannot depend on one; write \"*\", and let upstream tell users apart",
				v.source.where("access.mode"))
		}
		if len(p.Repositories) == 0 {
			v.add(at+".repositories", "is missing; list the repositories as globs, such as [\"team/**\"]")
		}
		for j, g := range p.Repositories {
			v.glob(fmt.Sprintf("%s.repositories[%d]", at, j), g, true)
		}
		if len(p.Actions) == 0 {
			v.add(at+".actions", "is missing; list pull, push or both")
		}
		for j, a := range p.Actions {
			key := fmt.Sprintf("%s.actions[%d]", at, j)
			if enum(v, key, a, []string{"pull", "push"}) && slices.Index(p.Actions, a) < j {
				v.add(key, "names %s a second time; take it out", a)
			}
		}
	}
}
