package upstream

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
)

// tokenUser is the user under which docker-credential-helpers keep an identity token.
const tokenUser = "<token>"

// helperLastWords is how long what a helper has left behind may hold its output.
const helperLastWords = time.Second

// runHelper asks a credential helper for one account; one that it does not know is empty. With the context the helper
// ends, and everything that it has started: many are scripts around another program.
func runHelper(ctx context.Context, name, key string) (credentials.Credentials, error) {
	var program helperProgram
	account, err := client.Get(func(args ...string) client.Program {
		cmd := exec.CommandContext(ctx, "docker-credential-"+name, args...)
		cmd.Stderr = os.Stderr
		cmd.WaitDelay = helperLastWords
		endWithAll(cmd)
		program.cmd = cmd
		return &program
	}, key)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return credentials.Credentials{}, nil
	case errors.Is(program.err, exec.ErrNotFound):
		return credentials.Credentials{}, program.err
	case err != nil:
		return credentials.Credentials{}, err
	}
	return *account, nil
}

// helperProgram is a helper as docker-credential-helpers run it.
type helperProgram struct {
	cmd *exec.Cmd
	err error // as it was; docker-credential-helpers keeps its text only
}

func (p *helperProgram) Input(in io.Reader) { p.cmd.Stdin = in }

func (p *helperProgram) Output() ([]byte, error) {
	out, err := p.cmd.Output()
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well, and an agent that it has started holds its output
		err = nil
	}
	p.err = err
	return out, err
}
