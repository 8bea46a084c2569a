package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"sluice/proxy/session"
)

// renewEvery bounds how often the storage is asked for keys: a forged URL can name any key.
const renewEvery = 5 * time.Second

// keyRing is when the keys in the storage were last read.
type keyRing struct {
	mu   sync.Mutex
	read time.Time
}

// sealKeys are those of the configuration, or those in the storage if it has none. When a running process is given keys
// for the first time, those of the storage still open the URLs that they have sealed: uploads go on.
func (p *Proxy) sealKeys() ([][]byte, error) {
	keys := p.cfg.Keys()
	if len(keys) > 0 {
		return append(keys, p.storedKeys...), nil
	}
	keys, err := p.quarantine.SealKeys(context.Background())
	p.storedKeys = keys
	return keys, err
}

// openToken opens an upload URL. One sealed by a key that is not known here may be another
// replica's, which made the key in the shared storage a moment ago.
func (p *Proxy) openToken(ctx context.Context, token, repo, identity string) (session.State, error) {
	st, err := p.sealer.Open(token, repo, identity)
	if !errors.Is(err, session.ErrUnknownKey) || len(p.cfg.SealKeys) > 0 || !p.ring.due(p.now()) {
		return st, err
	}
	keys, keyErr := p.quarantine.SealKeys(ctx)
	if keyErr == nil {
		keyErr = p.sealer.Renew(keys)
	}
	if keyErr != nil {
		p.log.Error("seal keys could not be read again", "reason", keyErr)
		return st, err
	}
	return p.sealer.Open(token, repo, identity)
}

func (k *keyRing) due(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.read) < renewEvery {
		return false
	}
	k.read = now
	return true
}
