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

// keyRing is when the keys in the storage were last read, without finding one more.
type keyRing struct {
	mu    sync.Mutex // held while they are read: who meets an unknown key meanwhile waits for what is found
	read  time.Time
	known int
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
// replica's, which made the key in the shared storage a moment ago. The requests of a push come several at once, and
// each to another replica.
func (p *Proxy) openToken(ctx context.Context, token, repo, identity string) (session.State, error) {
	st, err := p.sealer.Open(token, repo, identity)
	if !errors.Is(err, session.ErrUnknownKey) || len(p.cfg.SealKeys) > 0 {
		return st, err
	}
	p.ring.mu.Lock()
	defer p.ring.mu.Unlock()
	if st, err = p.sealer.Open(token, repo, identity); !errors.Is(err, session.ErrUnknownKey) || p.now().Sub(p.ring.read) < renewEvery {
		return st, err
	}
	keys, keyErr := p.quarantine.SealKeys(context.WithoutCancel(ctx)) // also for those who wait
	if keyErr == nil {
		keyErr = p.sealer.Renew(keys)
	}
	if len(keys) <= p.ring.known { // of replicas that started together another may be about to bring its own
		p.ring.read = p.now()
	}
	if keyErr != nil {
		p.log.Error("seal keys could not be read again", "reason", keyErr)
		return st, err
	}
	p.ring.known = len(keys)
	return p.sealer.Open(token, repo, identity)
}
