package config

import "reflect"

// RestartKeys are the keys that have another value in next and that a running proxy cannot follow: it would
// have to listen anew, or to move its state. All others can change under it.
func (c *Config) RestartKeys(next *Config) []string {
	var keys []string
	for _, k := range []struct {
		key      string
		old, new any
	}{
		{"listen", c.Listen, next.Listen},
		{"tls.certificate", c.TLS.Certificate, next.TLS.Certificate},
		{"tls.key", c.TLS.Key, next.TLS.Key},
		{"tls.client_ca", c.TLS.ClientCA, next.TLS.ClientCA},
		{"admin", c.Admin, next.Admin},
		{"storage", c.Storage, next.Storage},
	} {
		if !reflect.DeepEqual(k.old, k.new) {
			keys = append(keys, k.key)
		}
	}
	return keys
}
