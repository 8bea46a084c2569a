package ocidoc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks over one JSON text. Its methods expect pos at the first byte
// of a value and leave it behind the last. encoding/json is not used because
// it has no spans of values, takes "MANIFESTS" for "manifests", and lets the
// last of two equal names win.
type scanner struct {
	s     string
	pos   int
	depth int
	names []string // of the objects that are open, the innermost last
	key   span     // the name of the member whose value is at pos, quotes included
}

func (sc *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s", sc.pos, fmt.Sprintf(format, args...))
}

func (sc *scanner) space() {
	for sc.pos < len(sc.s) {
		switch sc.s[sc.pos] {
		case ' ', '\t', '\n', '\r':
			sc.pos++
		default:
			return
		}
	}
}

// peek returns the byte at pos, 0 at the end. (A NUL begins no JSON value.)
func (sc *scanner) peek() byte {
	if sc.pos < len(sc.s) {
		return sc.s[sc.pos]
	}
	return 0
}

// accept consumes c if it comes next.
func (sc *scanner) accept(c byte) bool {
	if sc.peek() == c && c != 0 {
		sc.pos++
		return true
	}
	return false
}

// unexpected is the error for whatever is at pos.
func (sc *scanner) unexpected(want string) error {
	if sc.pos >= len(sc.s) {
		return sc.errorf("the JSON text ends where %s should be", want)
	}
	return sc.errorf("%q where %s should be", sc.s[sc.pos], want)
}

func (sc *scanner) enter() error {
	sc.depth++
	if sc.depth > MaxDepth {
		return sc.errorf("nested more than %d deep", MaxDepth)
	}
	return nil
}

// object reads an object. member is called with pos at each value, which it
// must consume. Names are compared after their escapes are decoded.
func (sc *scanner) object(member func(name string) error) error {
	if !sc.accept('{') {
		return sc.unexpected("an object")
	}
	if err := sc.enter(); err != nil {
		return err
	}
	mine := len(sc.names)
	sc.space()
	for more := !sc.accept('}'); more; {
		key := span{start: sc.pos}
		name, err := sc.text()
		if err != nil {
			return err
		}
		key.end = sc.pos
		sc.names = append(sc.names, name)
		sc.space()
		if !sc.accept(':') {
			return sc.unexpected("a colon")
		}
		sc.space()
		sc.key = key
		if err := member(name); err != nil {
			return err
		}
		sc.space()
		switch {
		case sc.accept(','):
			sc.space()
		case sc.accept('}'):
			more = false
		default:
			return sc.unexpected("a comma or closing brace")
		}
	}
	if name, twice := repeated(sc.names[mine:]); twice {
		return sc.errorf("the name %s is twice in one object", quote(name))
	}
	sc.names = sc.names[:mine]
	sc.depth--
	return nil
}

// repeated finds a string that is there twice. It may reorder names. Sorting
// instead of a map keeps an object of half a million members cheap.
func repeated(names []string) (string, bool) {
	if len(names) > 16 {
		slices.Sort(names)
		for i := 1; i < len(names); i++ {
			if names[i-1] == names[i] {
				return names[i], true
			}
		}
		return "", false
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return name, true
		}
	}
	return "", false
}

// array reads an array. element is called with pos at each value, which it
// must consume.
func (sc *scanner) array(element func(i int) error) error {
	if !sc.accept('[') {
		return sc.unexpected("an array")
	}
	if err := sc.enter(); err != nil {
		return err
	}
	sc.space()
	more := !sc.accept(']')
	for i := 0; more; i++ {
		if err := element(i); err != nil {
			return err
		}
		sc.space()
		switch {
		case sc.accept(','):
			sc.space()
		case sc.accept(']'):
			more = false
		default:
			return sc.unexpected("a comma or closing bracket")
		}
	}
	sc.depth--
	return nil
}

// skip reads a value of any type, and is as strict inside it as elsewhere.
func (sc *scanner) skip() error {
	switch c := sc.peek(); {
	case c == '{':
		return sc.object(func(string) error { return sc.skip() })
	case c == '[':
		return sc.array(func(int) error { return sc.skip() })
	case c == '"':
		_, _, err := sc.literal()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return sc.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(sc.s[sc.pos:], word) {
			sc.pos += len(word)
			return nil
		}
	}
	return sc.unexpected("a JSON value")
}

// null consumes a null if there is one.
func (sc *scanner) null() bool {
	if strings.HasPrefix(sc.s[sc.pos:], "null") {
		sc.pos += len("null")
		return true
	}
	return false
}

// literal reads a string with its quotes, and tells whether it has escapes.
func (sc *scanner) literal() (lit string, escaped bool, err error) {
	start := sc.pos
	if !sc.accept('"') {
		return "", false, sc.unexpected("a string")
	}
	for sc.pos < len(sc.s) {
		switch c := sc.s[sc.pos]; {
		case c == '"':
			sc.pos++
			return sc.s[start:sc.pos], escaped, nil
		case c < 0x20:
			return "", false, sc.errorf("control character %q in a string", c)
		case c == '\\':
			escaped = true
			if err := sc.escape(); err != nil {
				return "", false, err
			}
		default:
			sc.pos++
		}
	}
	return "", false, sc.unexpected("a closing quote")
}

func (sc *scanner) escape() error {
	sc.pos++ // the backslash
	switch sc.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		sc.pos++
		return nil
	case 'u':
		sc.pos++
		for range 4 {
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(sc.peek())) {
				return sc.unexpected("a hexadecimal digit")
			}
			sc.pos++
		}
		return nil
	}
	return sc.unexpected("an escape")
}

// text reads a string and returns its value.
func (sc *scanner) text() (string, error) {
	lit, escaped, err := sc.literal()
	if err != nil {
		return "", err
	}
	if !escaped {
		return lit[1 : len(lit)-1], nil
	}
	return unescape(lit[1 : len(lit)-1]), nil
}

// unescape decodes the escapes of a string that literal has checked. Half a
// surrogate pair becomes U+FFFD, as in encoding/json (whose decoder would cost
// several hundred bytes for each of perhaps a million strings).
func unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = after[1:]
		switch c := after[0]; c {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r := hex4(s)
			s = s[4:]
			if utf16.IsSurrogate(r) {
				low := rune(0)
				if strings.HasPrefix(s, `\u`) {
					low = hex4(s[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					s = s[6:]
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
		}
	}
}

func hex4(s string) rune {
	n, _ := strconv.ParseUint(s[:4], 16, 16) // literal has seen the digits
	return rune(n)
}

// number reads a number (RFC 8259, section 6).
func (sc *scanner) number() error {
	sc.accept('-')
	if !sc.accept('0') && !sc.digits() {
		return sc.unexpected("a digit")
	}
	if sc.accept('.') && !sc.digits() {
		return sc.unexpected("a digit")
	}
	if sc.accept('e') || sc.accept('E') {
		if !sc.accept('+') {
			sc.accept('-')
		}
		if !sc.digits() {
			return sc.unexpected("a digit")
		}
	}
	return nil
}

func (sc *scanner) digits() bool {
	start := sc.pos
	for c := sc.peek(); c >= '0' && c <= '9'; c = sc.peek() {
		sc.pos++
	}
	return sc.pos > start
}

// size reads a number of bytes: a non-negative int64 without fraction or
// exponent, as encoding/json demands for an int64.
func (sc *scanner) size() (int64, error) {
	start := sc.pos
	if c := sc.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, sc.unexpected("a number of bytes")
	}
	if err := sc.number(); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(sc.s[start:sc.pos], 10, 64)
	if err != nil || sc.s[start] == '-' {
		return 0, sc.errorf("%s is not a number of bytes", quote(sc.s[start:sc.pos]))
	}
	return n, nil
}

// quote makes a part of a document fit for an error message.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
