package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/docker/docker-credential-helpers/credentials"
)

// dockerSource asks the Docker (or podman) configuration, with its credential helpers. A helper that
// fails is an error: taking it for "no credentials" would show as a riddle of 401s.
//
// It finds what authn.DefaultKeychain of go-containerregistry finds. That one knows no context: a helper that waits for a
// keyboard ran for ever, and kept a lock for which the helpers of all other registries waited.
//
// Each set of scopes asks on its own, and a helper takes its time. So it is asked by one at a time, and its answer is that of
// all who have asked before it began: one that began before may know less than they do, who were refused with it.
type dockerSource struct {
	host    string
	turn    chan struct{} // whose turn it is to run a helper
	begun   atomic.Int64  // how many runs have begun
	waiting atomic.Int64  // for their turn

	// Below turn.
	last struct {
		run     int64 // which it was
		helper  string
		account credentials.Credentials
		err     error
	}
}

func newDockerSource(host string) *dockerSource {
	return &dockerSource{host: host, turn: make(chan struct{}, 1)}
}

func (d *dockerSource) credential(ctx context.Context) (credential, error) {
	file, err := dockerFile()
	if err != nil {
		return credential{}, errorf(ErrCredentials, nil, "upstream %s: the Docker configuration cannot be read: %s; fix it, log in again, or set `credentials` to another mode",
			d.host, brief(err))
	}
	key := dockerKey(d.host)
	helper := helperOf(file, key)
	file.CredentialsStore, file.CredentialHelpers = "", nil
	cfg, err := file.GetAuthConfig(key) // DOCKER_AUTH_CONFIG, then the file
	if err != nil {
		return credential{}, errorf(ErrCredentials, nil, "upstream %s: the Docker configuration cannot be used: %s", d.host, brief(err))
	}
	if helper != "" && !inEnvironment(key) {
		if err := d.ask(ctx, helper, key, &cfg); err != nil {
			return credential{}, err
		}
	}
	c := credential{username: cfg.Username, password: cfg.Password, identity: cfg.IdentityToken, bearer: cfg.RegistryToken}
	if c.username == tokenUser {
		c.username = ""
	}
	return c, nil
}

// ask takes the account from a helper. What else the file says stays, as in Docker.
func (d *dockerSource) ask(ctx context.Context, helper, key string, cfg *types.AuthConfig) error {
	account, err := d.account(ctx, helper, key)
	if err != nil {
		return err
	}
	cfg.Username, cfg.Password, cfg.IdentityToken = account.Username, account.Secret, ""
	if account.Username == tokenUser {
		cfg.Username, cfg.Password, cfg.IdentityToken = "", "", account.Secret
	}
	return nil
}

// account runs the helper, or takes the answer of a run that has begun meanwhile.
func (d *dockerSource) account(ctx context.Context, helper, key string) (credentials.Credentials, error) {
	before := d.begun.Load()
	d.waiting.Add(1)
	select {
	case d.turn <- struct{}{}:
		d.waiting.Add(-1)
		defer func() { <-d.turn }()
	case <-ctx.Done():
		d.waiting.Add(-1)
		return credentials.Credentials{}, unanswered(ctx, d.host, helper, "is still busy with another question")
	}
	if d.last.run > before && d.last.helper == helper {
		return d.last.account, d.last.err
	}
	run := d.begun.Add(1)
	account, err := runHelper(ctx, helper, key)
	switch {
	case ctx.Err() != nil && err != nil: // which says nothing to the others
		return account, unanswered(ctx, d.host, helper, "did not answer in time, and was ended")
	case err != nil:
		err = errorf(ErrCredentials, nil, "upstream %s: the Docker credential helper %s failed: %s; fix it, log in again, or set `credentials` to another mode",
			d.host, helper, withoutSecret(err))
	}
	d.last.run, d.last.helper, d.last.account, d.last.err = run, helper, account, err
	return account, err
}

func unanswered(ctx context.Context, host, helper, what string) error {
	return errorf(ErrCredentials, ctx.Err(), "upstream %s: the Docker credential helper %s %s; it may wait for a keyboard: see what it does with `echo %s | docker-credential-%s get`, or set `credentials` to another mode",
		host, helper, what, dockerKey(host), helper)
}

// withoutSecret keeps a helper's output out of the error when it may hold what it should not: the
// helper protocol prints {"Username":..., "Secret":...}, and client.Get quotes the output.
func withoutSecret(err error) string {
	if missing, is := errors.AsType[*exec.Error](err); is && errors.Is(err, exec.ErrNotFound) {
		return missing.Name + " is not in the PATH of the user that runs Sluice"
	}
	// What docker-credential-helpers puts around the reason says nothing.
	s := strings.TrimSuffix(strings.TrimPrefix(brief(err), "error getting credentials - err: "), ", out: ``")
	if _, is := errors.AsType[*json.SyntaxError](err); is || errors.Is(err, io.EOF) {
		return "it answered something else than JSON with Username and Secret"
	}
	if i := strings.Index(s, ", out:"); i >= 0 && strings.ContainsAny(s[i:], `{"`) {
		return s[:i] + " (its output is not shown)"
	}
	return s
}

// dockerKey is the registry as the Docker configuration writes it.
func dockerKey(host string) string {
	switch host {
	case "registry-1.docker.io", "index.docker.io", "docker.io":
		return "https://index.docker.io/v1/"
	}
	return host
}

func helperOf(file *configfile.ConfigFile, key string) string {
	if h, found := file.CredentialHelpers[key]; found {
		return h
	}
	return file.CredentialsStore
}

// inEnvironment is true for an account that DOCKER_AUTH_CONFIG holds, before which no helper is asked.
func inEnvironment(key string) bool {
	cfg, err := configfile.New("").GetAuthConfig(key)
	cfg.ServerAddress = ""
	return err == nil && cfg != types.AuthConfig{}
}

// dockerFile reads Docker's configuration; where there is none podman's, which has the same form; else it is empty.
func dockerFile() (*configfile.ConfigFile, error) {
	home, _ := os.UserHomeDir() // "" where there is none
	docker := os.Getenv("DOCKER_CONFIG")
	if home != "" && isFile(home, ".docker/config.json") || docker != "" && isFile(docker, "config.json") {
		return config.Load(docker)
	}
	settings := os.Getenv("XDG_CONFIG_HOME")
	if settings == "" && home != "" {
		settings = filepath.Join(home, ".config")
	}
	for _, at := range []struct{ dir, name string }{
		{os.Getenv("REGISTRY_AUTH_FILE"), ""},
		{os.Getenv("XDG_RUNTIME_DIR"), "containers/auth.json"},
		{settings, "containers/auth.json"},
	} {
		if at.dir == "" || !isFile(at.dir, at.name) {
			continue
		}
		f, err := os.Open(filepath.Join(at.dir, at.name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return config.LoadFromReader(f)
	}
	return &configfile.ConfigFile{}, nil
}

func isFile(dir, name string) bool {
	fi, err := os.Stat(filepath.Join(dir, name))
	return err == nil && !fi.IsDir()
}
