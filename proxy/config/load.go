package config

import (
	"errors"
	"fmt"
	"io"
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
	// one that has, gets no second. (Nor does storage miss the driver that was refused.)
	mistakes := slices.Clone(d.mistakes)
	broken := map[string]bool{}
	for _, m := range d.mistakes {
		broken[m.Key] = true
	}
	for _, m := range c.mistakes() {
		hidden := m.Key == "storage" && slices.ContainsFunc(d.mistakes, func(b Mistake) bool { return under(b.Key, "storage") })
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

// ReadPassword gives the password for credentials: basic, "" if there is none. The
// file is read each time, so that it can be rotated under a running proxy.
func (u *Upstream) ReadPassword() (string, error) {
	if u.PasswordFile == "" {
		return u.Password.Reveal(), nil
	}
	b, err := readBounded(u.PasswordFile, 64<<10)
	if err != nil {
		return "", fmt.Errorf("password of upstream %s: %w", u.URL, err)
	}
	password := trimNewline(string(b))
	if password == "" {
		return "", fmt.Errorf("password of upstream %s: %s is empty: %w", u.URL, u.PasswordFile, errNoPassword)
	}
	return password, nil
}

// readBounded reads a file that should be small.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d KiB", path, limit>>10)
	}
	return b, err
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
