package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// maxFile bounds what is read as configuration.
const maxFile = 1 << 20

// Load reads the file at path ("" = no file, the defaults), lays the overrides
// over it and validates the result. The error holds every mistake (Mistakes).
func Load(path string, overrides ...Override) (*Config, error) {
	if path == "" {
		return Parse("", nil, overrides...)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("configuration file %s: larger than 1 MiB; is it the right file?", path)
	}
	return Parse(path, b, overrides...)
}

// Parse is Load for bytes; name stands for the file in messages.
func Parse(name string, b []byte, overrides ...Override) (*Config, error) {
	c := Default()
	d := &decoder{source: source{file: name, keys: map[string]place{}}}
	if len(b) > 0 {
		d.document(c, b)
	}
	d.override(c, overrides)
	c.source = d.source

	// What did not decode has its default or zero value now, so Validate may see a
	// mistake there that is none: a key that has one already, or that stands below
	// one that has, gets no second.
	mistakes := slices.Clone(d.mistakes)
	broken := map[string]bool{}
	for _, m := range d.mistakes {
		broken[m.Key] = true
	}
	for _, m := range c.mistakes() {
		hidden := false
		for k := m.Key; k != "" && !hidden; k = parent(k) {
			hidden = broken[k]
		}
		if !hidden {
			mistakes = append(mistakes, m)
		}
	}
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Override is a flag or an environment variable: it sets one value on top of
// the file. Later ones win.
type Override struct {
	Name  string // setting's name as a flag has it: listen, upstream, data, upstream-password, ...
	Value string
	From  string // for messages: --listen, SLUICE_LISTEN
}

// overrides maps a flag's name to what it sets. Passwords have no flag: a command
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
		d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Key: "storage",
			Problem: "is the folder of the filesystem driver, but another one is configured: " + at + "; leave one of the two out"})
		return
	}
	c.Storage.Filesystem.RootDirectory = o.Value
	d.source.keys["storage.filesystem.rootdirectory"] = place{origin: o.From}
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
			d.mistakes = append(d.mistakes, Mistake{Origin: o.From, Key: "upstreams",
				Problem: fmt.Sprintf("would have to be for one of %d upstreams; set %s of each in the file (password_file for passwords)", len(c.Upstreams), name)})
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

// ReadPassword gives the password for credentials: basic, "" if there is none. The
// file is read each time, so that it can be rotated under a running proxy.
func (u *Upstream) ReadPassword() (string, error) {
	if u.PasswordFile == "" {
		return u.Password.Reveal(), nil
	}
	f, err := os.Open(u.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password of upstream %s: %w", u.URL, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10+1))
	if err != nil {
		return "", fmt.Errorf("password of upstream %s: %w", u.URL, err)
	}
	if len(b) > 64<<10 {
		return "", fmt.Errorf("password of upstream %s: %s is larger than 64 KiB", u.URL, u.PasswordFile)
	}
	password := trimNewline(string(b))
	if password == "" {
		return "", fmt.Errorf("password of upstream %s: %s is empty: %w", u.URL, u.PasswordFile, errNoPassword)
	}
	return password, nil
}

var errNoPassword = errors.New("no password")

// trimNewline removes the one line end that an editor or echo leaves.
func trimNewline(s string) string {
	if n := len(s); n > 0 && s[n-1] == '\n' {
		s = s[:n-1]
	}
	if n := len(s); n > 0 && s[n-1] == '\r' {
		s = s[:n-1]
	}
	return s
}
