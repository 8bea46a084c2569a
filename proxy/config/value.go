package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 134217728, 128MiB or 128MB.
type Size int64

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	// Longest suffix first: "B" ends all of them.
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"B", 1},
}

func (s *Size) UnmarshalText(b []byte) error {
	text, factor := string(b), int64(1)
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = strings.TrimSpace(number), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size; write a number of bytes, or one with a unit, such as 128MiB (KiB, MiB, GiB, KB, MB, GB)", b)
	}
	*s = Size(n * factor)
	return nil
}

// String uses the largest binary unit that divides the size.
func (s Size) String() string {
	for i := 2; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.factor == 0 {
			return strconv.FormatInt(int64(s)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Days is a number of whole days, written as 2d, or Forever. Retention is never
// finer than that, because what expires is a whole generation: one UTC day.
type Days int

// Forever, written "forever", is allowed only where Validate says so.
const Forever Days = 0

func (d *Days) UnmarshalText(b []byte) error {
	if string(b) == "forever" {
		*d = Forever
		return nil
	}
	number, ok := strings.CutSuffix(string(b), "d")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || n > 36500 {
		return fmt.Errorf("%q is not a number of whole days; write it as 2d", b)
	}
	if n == 0 {
		return errors.New("0d keeps nothing; write at least 1d")
	}
	*d = Days(n)
	return nil
}

func (d Days) String() string {
	if d == Forever {
		return "forever"
	}
	return strconv.Itoa(int(d)) + "d"
}

// Duration is a time.Duration, written as Go does: 30s, 1m30s.
type Duration time.Duration

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it with a unit, such as 30s or 1m30s", b)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Secret is a string that does not print: fmt, slog, JSON and YAML all show
// <secret>, so that a whole Config may be logged. Reveal gives the value.
type Secret string

const hidden = "<secret>"

func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format covers every verb, %x and %#v included.
func (s Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, s.String()) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s Secret) MarshalYAML() (any, error)    { return s.String(), nil }

// key decodes a seal key: 32 bytes in hex or any of the base64 alphabets.
// The error never holds the text.
func (s Secret) key() ([]byte, error) {
	text := strings.TrimSpace(string(s))
	if len(text) == 64 {
		if b, err := hex.DecodeString(text); err == nil {
			return b, nil
		}
	}
	text = strings.TrimRight(text, "=")
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil && len(b) == 32 {
			return b, nil
		}
	}
	return nil, errors.New("not a key of 32 bytes in base64 or hex; make one with: openssl rand -base64 32")
}

// Keys are the seal keys as bytes, the one that seals first; empty when none is
// configured. Validate has refused what does not decode.
func (c *Config) Keys() [][]byte {
	var keys [][]byte
	for _, s := range c.SealKeys {
		if k, err := s.key(); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}
