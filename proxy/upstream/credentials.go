package upstream

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"
)

// Mode says where credentials come from.
type Mode string

// The modes. None is the default: what "auto" means is for the configuration to say.
const (
	Docker      Mode = "docker"      // the Docker configuration with its credential helpers
	Basic       Mode = "basic"       // username and password
	Passthrough Mode = "passthrough" // what the client sends, as it sends it
	Anonymous   Mode = "anonymous"   // none; a Bearer token is still fetched where the registry wants one
	ECR         Mode = "ecr"         // Amazon ECR, with what the AWS SDK finds
)

// credential is what is known of an account. The zero value is an anonymous one.
type credential struct {
	username, password string
	identity           string    // a refresh token, for POST at the token service
	bearer             string    // a registry token that is sent as it is
	renew              time.Time // zero: at its end
	expires            time.Time // zero: unknown, used until a 401
}

func (c credential) renewAt() time.Time {
	if c.renew.IsZero() {
		return c.expires
	}
	return c.renew
}

func (c credential) anonymous() bool {
	return c.username == "" && c.password == "" && c.identity == "" && c.bearer == ""
}

func (c credential) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// source gives credentials when a registry asks for them. It is asked again after a 401, so that a
// helper whose password lives for hours only can give a new one. Safe for concurrent use.
type source interface {
	credential(ctx context.Context) (credential, error)
}

type sourceFunc func(ctx context.Context) (credential, error)

func (f sourceFunc) credential(ctx context.Context) (credential, error) { return f(ctx) }

func (r *Registry) newSource(o Options) (source, error) {
	host := r.base.Host
	switch o.Credentials {
	case ECR:
		h, _ := ParseECRHost(host)
		return &ecrSource{host: host, ecr: h, now: func() time.Time { return r.now() }, jitter: func() float64 { return r.jitter() }}, nil
	case Docker:
		return newDockerSource(host), nil
	case Basic:
		if o.Username == "" {
			return nil, fmt.Errorf("upstream %s: credentials are basic but no username is set; set `username`, or SLUICE_UPSTREAM_USERNAME", host)
		}
		return basicSource(o, host), nil
	case Anonymous, Passthrough:
		return sourceFunc(func(context.Context) (credential, error) { return credential{}, nil }), nil
	}
	return nil, fmt.Errorf("upstream %s: credentials %q are unknown; use docker, basic, passthrough, ecr or anonymous", host, o.Credentials)
}

func basicSource(o Options, host string) source {
	return sourceFunc(func(context.Context) (credential, error) {
		c := credential{username: o.Username}
		if o.Password == nil {
			return c, nil
		}
		var err error
		if c.password, err = o.Password(); err != nil {
			return credential{}, errorf(ErrCredentials, err, "upstream %s: cannot read the password of user %s: %s", host, o.Username, brief(err))
		}
		return c, nil
	})
}
