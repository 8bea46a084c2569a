// Package session seals the state of an upload into the URL that the client is given, and opens it again.
//
// Between two requests of one upload Sluice keeps nothing in memory: where the bytes go, how many there were, which
// upstream session carries them, all of that travels inside the Location that the client follows next. Any replica
// that holds the key can serve the next request (invariant I10). What travels is encrypted, because the upstream's
// session URL is a capability, and authenticated together with the repository and the identity it was made for, so
// that a token is worth nothing elsewhere: not altered, not in another repository, not in another client's hands.
//
// A token is not bound to be used once. Replaying an older one of the same upload is what a client does after a lost
// answer; the offset inside then disagrees with the offset stored, and that is the caller's 416.
package session

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of a key in bytes.
const KeySize = chacha20poly1305.KeySize

// MaxToken bounds a token in characters. A Location of 400 characters makes one of less than 900; servers and
// proxies commonly refuse request lines over 8 KiB.
const MaxToken = 7 << 10

var (
	// ErrForged says that a token was not sealed by any of the keys for this repository and this identity.
	ErrForged = errors.New("upload session is not one of ours")

	// ErrUnknownKey is the ErrForged of a token that names a key which this Sealer does not have. Another replica may
	// have made that key a moment ago: read the keys again, Renew, and Open once more.
	ErrUnknownKey = fmt.Errorf("%w: its key is not known here", ErrForged)

	// ErrExpired says that the token is genuine and too old.
	ErrExpired = errors.New("upload session has expired, start the upload again")
)

// Mode says where the bytes of an upload go.
type Mode uint8

const (
	Undecided Mode = iota // not enough bytes seen yet
	Upstream              // streamed to the upstream session at Location
	Held                  // numbered parts in quarantine
)

func (m Mode) String() string {
	switch m {
	case Undecided:
		return "undecided"
	case Upstream:
		return "upstream"
	case Held:
		return "held"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// State is one upload between two requests.
type State struct {
	Repository string    // the client's name for it; bound, not carried
	Identity   string    // who may go on with it; bound, not carried
	ID         string    // random, names the parts in quarantine
	Mode       Mode      //
	Location   string    // upstream's session URL, "" when none was opened yet
	Offset     int64     // bytes accepted so far
	Peeked     []byte    // first bytes, held until there are enough to guess what the blob is
	Parts      int       // numbered parts in quarantine
	Pending    int64     // of Offset, the last bytes: they are in Parts and wait for more before they go upstream
	Generation string    // of the quarantine that holds the parts
	Started    time.Time // to the millisecond
}

// Sealer seals and opens. It may be used by many goroutines at once.
type Sealer struct {
	keys   atomic.Pointer[[]key]
	ttl    time.Duration
	now    func() time.Time
	random io.Reader // crypto/rand, except in the fuzz test, whose seeds must be the same in every process
}

type key struct {
	id   [4]byte
	aead cipher.AEAD
}

// version is the first byte of every token.
const version = 1

const (
	nonceAt   = 1 + 4
	sealedAt  = nonceAt + chacha20poly1305.NonceSizeX
	minLength = sealedAt + chacha20poly1305.Overhead
)

// New makes a Sealer. The first key seals, all of them open, so that a key can be replaced while uploads go on: put
// the new one behind the old one on every replica, then in front, then drop the old one after ttl. A token opens for
// ttl after it was sealed; every answer of an upload carries a new one.
func New(keys [][]byte, ttl time.Duration, now func() time.Time) (*Sealer, error) {
	if ttl < time.Second {
		return nil, fmt.Errorf("upload sessions would expire after %v, at least a second is needed", ttl)
	}
	if now == nil {
		now = time.Now
	}
	s := &Sealer{ttl: ttl, now: now, random: rand.Reader}
	if err := s.Renew(keys); err != nil {
		return nil, err
	}
	return s, nil
}

// Renew replaces the keys, for all calls that begin after it returned.
func (s *Sealer) Renew(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no key to seal upload sessions with")
	}
	made := make([]key, 0, len(keys))
	for i, k := range keys {
		// The extended nonce lets every token have a random one: AES-GCM's 96 bits would bound the number of
		// tokens per key (2^32, NIST SP 800-38D section 8.3), and a key that nobody configured is kept for good.
		aead, err := chacha20poly1305.NewX(k)
		if err != nil {
			return fmt.Errorf("key %d for upload sessions has %d bytes, it must have %d", i+1, len(k), KeySize)
		}
		sum := sha256.Sum256(append([]byte("sluice upload session key id\x00"), k...))
		made = append(made, key{id: [4]byte(sum[:4]), aead: aead})
	}
	s.keys.Store(&made)
	return nil
}

// Seal makes the token, [A-Za-z0-9_-]+, that Open turns back into st.
func (s *Sealer) Seal(st State) (string, error) {
	if st.Repository == "" {
		return "", errors.New("an upload session needs a repository")
	}
	if st.Mode > Held || st.Offset < 0 || st.Parts < 0 || st.Pending < 0 || st.Pending > st.Offset {
		return "", fmt.Errorf("upload session of repository %s is in an impossible state: %v, offset %d, %d parts",
			st.Repository, st.Mode, st.Offset, st.Parts)
	}
	k := (*s.keys.Load())[0]
	size := minLength + encodedBound(st)
	if base64.RawURLEncoding.EncodedLen(size) > MaxToken {
		return "", fmt.Errorf("upload session of repository %s does not fit into a URL: the upstream's location has %d characters",
			st.Repository, len(st.Location))
	}
	token := make([]byte, sealedAt, size)
	token[0] = version
	copy(token[1:], k.id[:])
	if _, err := io.ReadFull(s.random, token[nonceAt:sealedAt]); err != nil {
		return "", fmt.Errorf("no random bytes to seal the upload session of repository %s with: %w", st.Repository, err)
	}
	plain := encode(make([]byte, 0, size), st, s.now().Add(s.ttl))
	token = k.aead.Seal(token, token[nonceAt:sealedAt], plain, bound(k.id, st.Repository, st.Identity))
	return base64.RawURLEncoding.EncodeToString(token), nil
}

// Open returns what was sealed for this repository and this identity. Any other token is ErrForged, a genuine one
// that is too old is ErrExpired. Neither error contains the token.
func (s *Sealer) Open(token, repository, identity string) (State, error) {
	raw, err := decodeToken(token)
	if err != nil {
		return State{}, fmt.Errorf("repository %s: %w: %w", repository, ErrForged, err)
	}
	id := [4]byte(raw[1:nonceAt])
	known := false
	for _, k := range *s.keys.Load() {
		if k.id != id {
			continue
		}
		known = true
		plain, err := k.aead.Open(nil, raw[nonceAt:sealedAt], raw[sealedAt:], bound(id, repository, identity))
		if err != nil {
			continue // two keys may share an id, once in four billion pairs
		}
		st, expires, err := decode(plain)
		if err != nil {
			return State{}, fmt.Errorf("repository %s: %w: %w", repository, ErrForged, err)
		}
		if !s.now().Before(expires) {
			return State{}, fmt.Errorf("repository %s: %w (at %s)", repository, ErrExpired, expires.Format(time.RFC3339))
		}
		st.Repository, st.Identity = repository, identity
		return st, nil
	}
	if !known {
		return State{}, fmt.Errorf("repository %s: %w", repository, ErrUnknownKey)
	}
	return State{}, fmt.Errorf("repository %s: %w", repository, ErrForged)
}

// decodeToken accepts exactly one spelling of every token. encoding/base64 skips line breaks wherever they stand, and
// without Strict ignores the unused bits of the last character, so both would open after having been altered.
func decodeToken(token string) ([]byte, error) {
	if len(token) > MaxToken {
		return nil, fmt.Errorf("it has %d characters", len(token))
	}
	for i := range len(token) {
		if token[i] == '\n' || token[i] == '\r' {
			return nil, errors.New("it has a line break")
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return nil, errors.New("it is not base64url")
	}
	if len(raw) < minLength {
		return nil, errors.New("it is too short")
	}
	if raw[0] != version {
		return nil, fmt.Errorf("it has version %d, this is version %d", raw[0], version)
	}
	return raw, nil
}

// bound is what a token is authenticated with and does not carry. The lengths stand in front, or ("a", "b/c") and
// ("a/b", "c") could be made to agree.
func bound(id [4]byte, repository, identity string) []byte {
	b := make([]byte, 0, 1+len(id)+2*binary.MaxVarintLen64+len(repository)+len(identity))
	b = append(b, version)
	b = append(b, id[:]...)
	b = appendString(b, repository)
	return appendString(b, identity)
}
