package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/reread"
)

const (
	keysFresh  = time.Hour        // after which they are fetched again
	keysStale  = 24 * time.Hour   // how long they are used while the issuer cannot be reached
	keysPause  = 10 * time.Second // between two fetches: anybody can send a token that names an unknown key
	fetchTime  = 10 * time.Second
	fetchWait  = time.Second // for newer keys, by who has some that may be used
	maxFetched = 1 << 20     // of a discovery document or a key set
)

// errKeys is trouble in getting an issuer's keys: not the fault of whoever sent the token.
var errKeys = errors.New("the issuer's keys cannot be had")

// keySet is an issuer's keys. go-oidc has one too, which fetches for every token with an unknown key and reads
// whatever comes.
type keySet struct {
	issuer  source
	ca      *reread.Files[*x509.CertPool]    // nil: the system's
	file    *reread.Files[[]jose.JSONWebKey] // instead of fetching
	log     *slog.Logger
	now     func() time.Time
	flights singleflight.Group

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // when keys were
	tried   time.Time
	failure error // of the last try
}

// source is where the keys are. Entries for the same one share them.
type source struct{ Issuer, CA, JWKS string }

var _ oidc.KeySet = (*keySet)(nil)

func newKeySet(i source, log *slog.Logger, now func() time.Time) (*keySet, error) {
	s := &keySet{issuer: i, log: log, now: now}
	if i.JWKS != "" && !isURL(i.JWKS) {
		var err error
		s.file, err = reread.Open(log, func(c [][]byte) ([]jose.JSONWebKey, error) {
			keys, err := parseKeySet(c[0])
			if err != nil {
				return nil, fmt.Errorf("jwks %s: %w", i.JWKS, err)
			}
			return keys, nil
		}, i.JWKS)
		return s, err
	}
	if i.CA != "" {
		var err error
		if s.ca, err = systemAnd(i.CA, log); err != nil {
			return nil, fmt.Errorf("ca %s: %w", i.CA, err)
		}
	}
	return s, nil
}

// client is for one fetch, with the authorities as they are in their file now.
func (s *keySet) client() *http.Client {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.ca != nil {
		config.RootCAs = s.ca.Get()
	}
	return &http.Client{
		Timeout: fetchTime,
		Transport: &bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: fetchTime,
			DisableKeepAlives: true, // once an hour
		}},
		// An issuer is where it says it is (OpenID Connect Discovery 1.0, section 4.3).
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

func systemAnd(file string, log *slog.Logger) (*reread.Files[*x509.CertPool], error) {
	return reread.Open(log, func(c [][]byte) (*x509.CertPool, error) {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(c[0]) {
			return nil, errors.New("holds no PEM certificate")
		}
		return pool, nil
	}, file)
}

// bounded cuts answers off: go-oidc reads a discovery document whole.
type bounded struct{ next http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxFetched), resp.Body}
	}
	return resp, err
}

// VerifySignature gives the payload of a token that one of the keys has signed.
func (s *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	var algorithms []jose.SignatureAlgorithm
	for _, a := range idTokenAlgorithms() {
		algorithms = append(algorithms, jose.SignatureAlgorithm(a))
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, errors.New("not a signed token")
	}
	id := jws.Signatures[0].Header.KeyID
	keys, err := s.current(ctx, false)
	if err != nil {
		return nil, err
	}
	if payload, ok := verifyWith(jws, keys, id); ok {
		return payload, nil
	}
	// The issuer may have begun to sign with a new key.
	if keys, err = s.current(ctx, true); err != nil {
		return nil, err
	}
	if payload, ok := verifyWith(jws, keys, id); ok {
		return payload, nil
	}
	return nil, errors.New("no key of the issuer has signed it")
}

func verifyWith(jws *jose.JSONWebSignature, keys []jose.JSONWebKey, id string) ([]byte, bool) {
	for i := range keys {
		if id != "" && keys[i].KeyID != "" && keys[i].KeyID != id {
			continue
		}
		if payload, err := jws.Verify(&keys[i]); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// trouble is why there are no keys at all, nil when there are some.
func (s *keySet) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil || s.usable() {
		return nil
	}
	return s.failure
}

// usable needs mu.
func (s *keySet) usable() bool { return len(s.keys) > 0 && s.now().Sub(s.fetched) < keysStale }

// current is the keys, fetched again when they are old, or when a token names one that is not among them; neither
// more often than every ten seconds.
func (s *keySet) current(ctx context.Context, again bool) ([]jose.JSONWebKey, error) {
	if s.file != nil {
		return s.file.Get(), nil
	}
	s.mu.Lock()
	old := len(s.keys) == 0 || s.now().Sub(s.fetched) >= keysFresh
	due := s.tried.IsZero() || s.now().Sub(s.tried) >= keysPause
	usable := s.usable()
	s.mu.Unlock()
	if (old || again) && due {
		done := s.flights.DoChan("", func() (any, error) {
			s.refresh(context.WithoutCancel(ctx)) // others wait for the same keys
			return nil, nil
		})
		if usable && !again {
			select { // an issuer that hangs holds no login up; it ends by itself after fetchTime
			case <-done:
			case <-time.After(fetchWait):
			}
		} else {
			<-done
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.usable() {
		return nil, s.failure
	}
	return s.keys, nil
}

func (s *keySet) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	keys, err := contain.Call(func() ([]jose.JSONWebKey, error) { return s.fetch(ctx) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = s.now()
	if err != nil {
		s.failure = fmt.Errorf("%w: issuer %s: %w", errKeys, s.issuer.Issuer, err)
		s.log.Error("keys of an issuer cannot be fetched", "issuer", s.issuer.Issuer, "reason", err, "have", len(s.keys))
		return
	}
	s.keys, s.fetched, s.failure = keys, s.tried, nil
}

func (s *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	client, where := s.client(), s.issuer.JWKS
	if where == "" {
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), s.issuer.Issuer)
		if err != nil {
			return nil, err
		}
		var document struct {
			JWKS string `json:"jwks_uri"`
		}
		if err := provider.Claims(&document); err != nil {
			return nil, err
		}
		where = document.JWKS
		if strings.HasPrefix(s.issuer.Issuer, "https://") && !strings.HasPrefix(where, "https://") {
			return nil, fmt.Errorf("its discovery document names keys that are not fetched over https: %s", host(where))
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("keys at %s: %s", host(where), resp.Status)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeySet(b)
	if err != nil {
		return nil, fmt.Errorf("keys at %s: %w", host(where), err)
	}
	return keys, nil
}

func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "another place"
	}
	return u.Scheme + "://" + u.Host
}
