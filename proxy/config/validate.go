package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/filters"
)

// Validate finds every mistake and every contradiction (Mistakes). It looks at
// nothing but the configuration, so that check-config can run on another machine;
// CheckFiles looks at the files that it names.
func (c *Config) Validate() error { return c.mistakes().err() }

// validator collects mistakes about one configuration.
type validator struct {
	*Config
	found Mistakes
}

func (c *Config) mistakes() Mistakes {
	v := &validator{Config: c}
	v.server()
	v.access()
	v.tokenService()
	v.issuers()
	v.clientCertificates()
	v.permissions()
	v.upstreams()
	v.settings()
	v.rules()
	v.state()
	v.notifications()
	return v.found
}

func (v *validator) add(key, format string, args ...any) {
	v.found = append(v.found, v.source.mistake(key, fmt.Sprintf(format, args...)))
}

// enum checks a value against those allowed.
func enum[S ~string](v *validator, key string, value S, allowed []S) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	v.add(key, "%q is not a value of this key; allowed: %s", string(value), list(allowed))
	return false
}

func list[S ~string](values []S) string {
	s := make([]string, len(values))
	for i, x := range values {
		s[i] = string(x)
	}
	return strings.Join(s, ", ")
}

// The values of each enumeration, once.
func actions() []filters.Action {
	return []filters.Action{filters.Store, filters.Strip, filters.Forward}
}

func unwraps() []filters.Unwrap {
	return []filters.Unwrap{filters.UnwrapAuto, filters.UnwrapAlways, filters.UnwrapNever}
}
func views() []View { return []View{ViewUpstream, ViewOriginal} }
func mediaTypes() []filters.MediaTypes {
	return []filters.MediaTypes{filters.MediaTypesKeep, filters.MediaTypesDocker}
}

func cacheIndexes() []filters.CacheIndex {
	return []filters.CacheIndex{CacheIndexAuto, filters.CacheIndexKeep, filters.CacheIndexManifest}
}

func signed() []SignedOriginals {
	return []SignedOriginals{SignedRefuse, SignedWarn, SignedForward}
}

func (v *validator) server() {
	host, port, listens := v.address("listen", v.Listen)
	if v.Admin != "" {
		adminHost, adminPort, ok := v.address("admin", v.Admin)
		if ok && listens && port == adminPort && port != "0" && sameHost(host, adminHost) {
			v.add("admin", "is the same address as %s; give one of them another port, or switch admin off with \"\"", v.source.where("listen"))
		}
		if ok && v.Pprof && !loopback(adminHost) {
			v.add("pprof", "shows the process's memory, credentials included, to whoever reaches %s %s; let admin listen on 127.0.0.1, or leave pprof out",
				v.source.where("admin"), v.Admin)
		}
	} else if v.Pprof {
		v.add("pprof", "is served on the admin address, and %s is off; set admin, or leave pprof out", v.source.where("admin"))
	}

	switch cert, key := v.TLS.Certificate != "", v.TLS.Key != ""; {
	case key && !cert:
		v.add("tls.key", "has no certificate; set tls.certificate too")
	case cert && !key:
		v.add("tls.certificate", "has no key; set tls.key too")
	}
	if v.TLS.ClientCA != "" && v.TLS.Certificate == "" {
		v.add("tls.client_ca", "is for https, and there is no tls.certificate; set certificate and key too")
	}
}

// address checks a host:port to listen on.
func (v *validator) address(key, value string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		v.add(key, "%q is not an address; write host:port, such as 127.0.0.1:5000, or :5000 for all interfaces", value)
		return "", "", false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.add(key, "%q has no port between 0 and 65535; write host:port, such as 127.0.0.1:5000", value)
		return "", "", false
	}
	return host, port, true
}

// loopback is about what can be known without asking DNS.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// everywhere is true for an address that listens on all interfaces.
func everywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func sameHost(a, b string) bool {
	return a == b || everywhere(a) || everywhere(b) || loopback(a) && loopback(b) && (a == "localhost" || b == "localhost")
}

func (v *validator) settings() {
	enum(v, "attestations", v.Attestations, actions())
	enum(v, "unwrap", v.Unwrap, unwraps())
	enum(v, "view", v.View, views())
	enum(v, "media_types", v.MediaTypes, mediaTypes())
	enum(v, "cache_index", v.CacheIndex, cacheIndexes())
	enum(v, "signed_originals", v.SignedOriginals, signed())
	if v.View == ViewOriginal && v.Attestations != filters.Store && slices.Contains(actions(), v.Attestations) {
		v.contradictoryView("view", "attestations", v.Attestations)
	}
	if v.MediaTypes == filters.MediaTypesDocker && v.Attestations == filters.Forward {
		v.contradictoryTypes("media_types", "attestations")
	}
}

// contradictoryTypes is reported where one of the two was set, and names the other.
func (v *validator) contradictoryTypes(at, other string) {
	if strings.HasSuffix(at, "media_types") {
		v.add(at, "docker needs images without attestations, which Docker's media types cannot list, and %s is forward; set attestations: store or strip, or media_types: keep", v.source.where(other))
		return
	}
	v.add(at, "forward leaves attestations in the index, which Docker's media types cannot list, and %s is docker; set attestations: store or strip, or media_types: keep", v.source.where(other))
}

// contradictoryView is reported where one of the two was set, and names the other:
// pushed indexes can be shown only from what store keeps.
func (v *validator) contradictoryView(at, other string, action filters.Action) {
	if strings.HasSuffix(at, "view") {
		v.add(at, "original shows what attestations: store has kept, and %s is %s; set view: upstream, or attestations: store", v.source.where(other), action)
		return
	}
	v.add(at, "%s keeps nothing that could be shown, and %s is original; set view: upstream, or attestations: store", action, v.source.where(other))
}

func (v *validator) state() {
	v.store()
	v.storage()
	enum(v, "on_storage_error", v.OnStorageError, []OnStorageError{StorageErrorReject, StorageErrorForward, StorageErrorStrip})
	if v.StorageTimeout < Duration(time.Second) {
		v.add("storage_timeout", "must be at least 1s; a storage that only takes its time must not be taken for one that hangs")
	}
	if v.Retention < 1 {
		v.add("retention", "%s is not a number of days; write at least 1d: an upload must outlive the midnight it runs into", v.Retention)
	}
	if v.MaxHeldBlob < 1 {
		v.add("max_held_blob", "must be more than 0; BuildKit's statements have up to 80 MiB, so 128MiB is a good value")
	}
	if q := v.Access.MaxHeldPerIdentity; q != 0 && q < v.MaxHeldBlob {
		v.add("access.max_held_per_identity", "%s is less than %s %s, so that one blob could be too much; raise it, or set 0 for no bound", q, v.source.where("max_held_blob"), v.MaxHeldBlob)
	}
	for i, k := range v.SealKeys {
		at := fmt.Sprintf("seal_keys[%d]", i)
		if _, err := k.key(); err != nil {
			v.add(at, "%v", err)
		} else if j := slices.Index(v.SealKeys, k); j < i {
			v.add(at, "is the same key as seal_keys[%d]; take one of them out", j)
		}
	}
	if v.ShutdownTimeout <= 0 {
		v.add("shutdown_timeout", "must be more than 0; pushes that run when the process is told to stop get this long to finish")
	}
}
