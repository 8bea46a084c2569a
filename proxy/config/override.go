package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Override is a flag or an environment variable: it sets one value on top of
// the file. Later ones win.
type Override struct {
	Name  string // setting's name as a flag has it: listen, upstream, data, upstream-password, ...
	Value string
	From  string // for messages: --listen, SLUICE_LISTEN
}

// overrideTable maps a flag's name to what it sets. Passwords have no flag: a command
// line is visible to every process of the machine.
func overrideTable() map[string]func(*decoder, *Config, Override) {
	return map[string]func(*decoder, *Config, Override){
		"listen":                 key("listen", func(c *Config) *string { return &c.Listen }),
		"admin":                  key("admin", func(c *Config) *string { return &c.Admin }),
		"access":                 key("access.mode", func(c *Config) *AccessMode { return &c.Access.Mode }),
		"attestations":           key("attestations", func(c *Config) *string { return (*string)(&c.Attestations) }),
		"data":                   overrideData,
		"upstream":               overrideUpstream,
		"credentials":            onlyUpstream("credentials", func(u *Upstream, v string) { u.Credentials = Credentials(v) }),
		"upstream-username":      onlyUpstream("username", func(u *Upstream, v string) { u.Username = v }),
		"upstream-password":      onlyUpstream("password", func(u *Upstream, v string) { u.Password, u.PasswordFile = Secret(v), "" }),
		"upstream-password-file": onlyUpstream("password_file", func(u *Upstream, v string) { u.PasswordFile = v }),
		"seal-keys":              overrideSealKeys,
		"seal-keys-file":         overrideSealKeysFile,
	}
}

// OverrideNames are the settings that FromEnvironment looks for.
func OverrideNames() []string { return slices.Sorted(maps.Keys(overrideTable())) }

func (d *decoder) override(c *Config, overrides []Override) {
	table := overrideTable()
	// --upstream replaces the list that --credentials and the passwords then go into.
	slices.SortStableFunc(overrides, func(a, b Override) int {
		return boolInt(b.Name == "upstream") - boolInt(a.Name == "upstream")
	})
	for _, o := range overrides {
		set, ok := table[o.Name]
		if !ok {
			d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Problem: "sets nothing that is known"})
			continue
		}
		set(d, c, o)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func key[S ~string](path string, field func(*Config) *S) func(*decoder, *Config, Override) {
	return func(d *decoder, c *Config, o Override) {
		*field(c) = S(o.Value)
		d.source.keys[path] = place{origin: o.From}
	}
}

// overrideData sets the folder of the filesystem driver, and refuses to be ignored
// beside another one.
func overrideData(d *decoder, c *Config, o Override) {
	if c.Storage.Filesystem == nil {
		at := d.source.where("storage")
		d.mistakes = append(d.mistakes, Mistake{
			Origin: o.From, Key: "storage",
			Problem: "is the folder of the filesystem driver, but another one is configured: " + at + "; leave one of the two out",
		})
		return
	}
	c.Storage.Filesystem.RootDirectory = o.Value
	d.source.keys["storage.filesystem.rootdirectory"] = place{origin: o.From}
}

// overrideSealKeys replaces the list. Neither base64 nor hex has a comma or a space.
func overrideSealKeys(d *decoder, c *Config, o Override) {
	maps.DeleteFunc(d.source.keys, func(k string, _ place) bool { return under(k, "seal_keys") })
	d.source.keys["seal_keys"] = place{origin: o.From}
	c.SealKeys = nil
	for _, k := range strings.FieldsFunc(o.Value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		c.SealKeys = append(c.SealKeys, Secret(k))
	}
	if len(c.SealKeys) == 0 {
		d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Key: "seal_keys", Problem: "holds no key; make one with: openssl rand -base64 32"})
	}
}

// overrideSealKeysFile is for secrets that are mounted as files. Like a variable it is read once, at start.
func overrideSealKeysFile(d *decoder, c *Config, o Override) {
	if p, set := d.source.keys["seal_keys"]; set && p.origin == EnvironmentName("seal-keys") {
		d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Key: "seal_keys", Problem: "and " + p.origin + " are both set; keep one of them"})
		return
	}
	b, err := readBounded(o.Value, 64<<10)
	if err != nil {
		d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Key: "seal_keys", Problem: err.Error() + "; name a file with a key in each line"})
		return
	}
	overrideSealKeys(d, c, Override{Name: o.Name, Value: string(b), From: o.From})
}

// overrideUpstream replaces the whole list: credentials that the file has for one
// registry must not be sent to another.
func overrideUpstream(d *decoder, c *Config, o Override) {
	c.Upstreams = []Upstream{defaultUpstream(o.Value)}
	maps.DeleteFunc(d.source.keys, func(k string, _ place) bool { return under(k, "upstreams") })
	d.source.keys["upstreams"] = place{origin: o.From}
	d.source.keys["upstreams[0].url"] = place{origin: o.From}
}

func under(key, root string) bool {
	for k := key; k != ""; k = parent(k) {
		if k == root {
			return true
		}
	}
	return false
}

// onlyUpstream sets something of the only upstream; with several it would be a
// guess which registry a password is for.
func onlyUpstream(name string, set func(*Upstream, string)) func(*decoder, *Config, Override) {
	return func(d *decoder, c *Config, o Override) {
		if len(c.Upstreams) != 1 {
			d.mistakes = append(d.mistakes, Mistake{
				Origin: o.From, Key: "upstreams",
				Problem: fmt.Sprintf("would have to be for one of %d upstreams; set %s of each in the file (password_file for passwords)", len(c.Upstreams), name),
			})
			return
		}
		set(&c.Upstreams[0], o.Value)
		d.source.keys["upstreams[0]."+name] = place{origin: o.From}
	}
}

// Environment takes the overrides from SLUICE_<NAME> variables. Empty ones count as
// not set, since compose files pass variables through that nobody gave a value.
// Variables with other names are left alone: Kubernetes sets SLUICE_PORT and the
// like in every pod beside a service called sluice.
func Environment(lookup func(string) (string, bool)) []Override {
	var found []Override
	for _, name := range OverrideNames() {
		variable := EnvironmentName(name)
		if v, ok := lookup(variable); ok && v != "" {
			found = append(found, Override{Name: name, Value: v, From: variable})
		}
	}
	return found
}

// EnvironmentName is the variable for a flag: log-level -> SLUICE_LOG_LEVEL.
func EnvironmentName(flag string) string {
	b := []byte("SLUICE_" + flag)
	for i, c := range b {
		switch {
		case c == '-':
			b[i] = '_'
		case 'a' <= c && c <= 'z':
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
