package proxy

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"sluice/proxy/config"
)

// keyPair reads the server's certificate and its key. crypto/tls says neither which of the two files it means, nor that
// a key has a passphrase.
func keyPair(c config.TLS, certificate, key []byte) (*tls.Certificate, error) {
	if encrypted(key) {
		return nil, fmt.Errorf("tls.key %s is encrypted with a passphrase, which nobody is there to type: write it without one (openssl pkey -in %s -out FILE)", c.Key, c.Key)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		err = errors.New(strings.TrimPrefix(err.Error(), "tls: "))
		return nil, fmt.Errorf("tls.certificate %s with tls.key %s: %w", c.Certificate, c.Key, err)
	}
	return &pair, nil
}

func encrypted(key []byte) bool {
	for block, rest := pem.Decode(key); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

// An expiryWarner says once of each certificate that clients will not take it. It is served all the same: there is no other.
type expiryWarner struct {
	log    *slog.Logger
	file   string
	warned time.Time // the end of the last one that was warned of
}

func (w *expiryWarner) look(pair *tls.Certificate, now time.Time) {
	if pair.Leaf == nil || pair.Leaf.NotAfter.Equal(w.warned) {
		return
	}
	if now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		w.warned = pair.Leaf.NotAfter
		w.log.Warn("the certificate has expired or is not valid yet, so clients will refuse it: renew it, or set this machine's clock",
			"file", w.file, "not_before", pair.Leaf.NotBefore, "not_after", pair.Leaf.NotAfter)
	}
}
