package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	maxFile     = 8 << 20
	maxVerified = 4096 // passwords, certificates or tokens remembered, 32 bytes each
	// A file system may stamp two writes within this time alike: a file that was
	// changed less than this before it was read is read again. (git calls an index
	// entry like that racy.)
	stampGrain = 2 * time.Second
)

// nobody's hash is compared with when the file is empty, so that a wrong user takes
// as long as a wrong password. It is no password's: its digest part is all zero.
var nobody = []byte("$2a$10$......................................................")[:60]

// passwords are the users of an htpasswd file, which is read again when it changes.
//
// distribution's registry/auth/htpasswd is not used: it has no context of ours to log
// with, prints a malformed line (a hash, or a password in plain text) in its error,
// and runs bcrypt on every request, which at cost 10 is some 50 ms for each of a push's
// several dozen.
type passwords struct {
	path  string
	slots chan struct{} // bounds the bcrypts at once: guessing must not starve the streams
	lanes lanes         // nor who logs in
	mac   []byte        // keys the hashes in verified, random per process

	mu       sync.Mutex
	users    map[string][]byte
	dummy    []byte // the costliest hash of the file
	info     fs.FileInfo
	readAt   time.Time
	verified map[[sha256.Size]byte]struct{}
	running  map[[sha256.Size]byte]chan struct{} // closed when that bcrypt is done
}

func openPasswords(path string, log *slog.Logger) (*passwords, error) {
	p := &passwords{
		path:     path,
		slots:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		lanes:    newLanes(),
		mac:      make([]byte, sha256.Size),
		verified: map[[sha256.Size]byte]struct{}{},
		running:  map[[sha256.Size]byte]chan struct{}{},
	}
	rand.Read(p.mac) // never fails (Go 1.24)
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.refresh()
	if err == nil && len(p.users) == 0 {
		log.Warn("the htpasswd file has no users, so nobody can log in until one is added with: htpasswd -B FILE USER", "file", path)
	}
	return p, err
}

func (p *passwords) authenticate(r *http.Request) (Identity, error) {
	username, password, ok := r.BasicAuth()
	if !ok {
		return Identity{}, ErrUnauthenticated
	}
	if err := p.verify(r.Context(), r.RemoteAddr, username, password); err != nil {
		return Identity{}, err
	}
	// Only the name, so that a password may be changed while a push runs.
	return Identity{Name: username, Key: hash("user", username)}, nil
}

func (p *passwords) challenge(Scope, bool) []string { return basicChallenge() }

// refresh reads the file if it has changed. A file that cannot be read or parsed
// lets nobody in, rather than those of its last version: one of them may be the
// user that was taken out.
func (p *passwords) refresh() error {
	info, err := os.Stat(p.path)
	if err != nil {
		p.info = nil
		return fmt.Errorf("htpasswd file: %w", err)
	}
	if p.info != nil && os.SameFile(info, p.info) && info.Size() == p.info.Size() && info.ModTime().Equal(p.info.ModTime()) &&
		p.readAt.Sub(info.ModTime()) > stampGrain {
		return nil
	}
	p.info = nil
	now := time.Now()
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("htpasswd file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return fmt.Errorf("htpasswd file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("htpasswd file: %w", err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("htpasswd file %s: larger than 8 MiB", p.path)
	}
	users, dummy, err := parsePasswords(b)
	if err != nil {
		return fmt.Errorf("htpasswd file %s: %w", p.path, err)
	}
	p.users, p.dummy, p.info, p.readAt = users, dummy, info, now
	return nil
}

// parsePasswords never repeats a line in its errors.
func parsePasswords(b []byte) (users map[string][]byte, dummy []byte, err error) {
	users, dummy = map[string][]byte{}, nobody
	most := 0
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		user, stored, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, nil, fmt.Errorf("line %d is not USER:HASH", i+1)
		}
		cost, err := bcrypt.Cost([]byte(stored))
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: the password of %q is not a bcrypt hash; make one with htpasswd -B", i+1, user)
		}
		if _, twice := users[user]; twice {
			return nil, nil, fmt.Errorf("line %d: user %q is there a second time; take one out", i+1, user)
		}
		users[user] = []byte(stored)
		if cost > most {
			most, dummy = cost, []byte(stored)
		}
	}
	return users, dummy, nil
}

// verify is nil, ErrUnauthenticated, or trouble with the file. Of many requests
// with the same password at once (BuildKit sends eight) one runs bcrypt.
func (p *passwords) verify(ctx context.Context, from, username, password string) error {
	for {
		p.mu.Lock()
		if err := p.refresh(); err != nil {
			p.mu.Unlock()
			return err
		}
		stored, known := p.users[username]
		if !known {
			stored = p.dummy
		}
		key := p.key(username, password, stored)
		if _, ok := p.verified[key]; ok {
			p.mu.Unlock()
			return nil
		}
		done, busy := p.running[key]
		if !busy {
			done = make(chan struct{})
			p.running[key] = done
			p.mu.Unlock()
			return p.compare(ctx, comparison{key, done, p.lanes.of(known, p.mac, username, from), known, stored, password})
		}
		p.mu.Unlock()
		select {
		case <-done: // verified now, or wrong: then each finds out for itself
		case <-ctx.Done():
			return canceled(ctx)
		}
	}
}

// A comparison is one bcrypt.
type comparison struct {
	key      [sha256.Size]byte
	done     chan struct{} // closed when it has ended
	lane     chan struct{}
	known    bool // there is such a user
	stored   []byte
	password string
}

func (p *passwords) compare(ctx context.Context, c comparison) error {
	ok := false
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.running, c.key)
		close(c.done)
		if ok {
			if len(p.verified) >= maxVerified {
				clear(p.verified)
			}
			p.verified[c.key] = struct{}{}
		}
	}()
	for _, turn := range []chan struct{}{c.lane, p.slots} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return canceled(ctx)
		}
	}
	err := bcrypt.CompareHashAndPassword(c.stored, []byte(c.password))
	ok = err == nil && c.known
	if !ok {
		return errCredentials
	}
	return nil
}

// key stands for a password that was verified against one stored hash: when the file
// changes the user's hash, what was remembered no longer matches.
func (p *passwords) key(username, password string, stored []byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, p.mac)
	h.Write([]byte(hash(username, password)))
	h.Write(bytes.TrimSpace(stored))
	return [sha256.Size]byte(h.Sum(nil))
}
