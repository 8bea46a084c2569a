package h1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// maxInformational is how many 1xx answers may come before the one that counts, as in net/http.
const maxInformational = 5

// malformed is an answer that is none. It never quotes: an answer may hold a session URL or a token.
func malformed(format string, args ...any) error {
	return fmt.Errorf("malformed HTTP answer: "+format, args...)
}

// head is the first part of an answer.
type head struct {
	status       int
	text         string // "202 Accepted"
	minor        int    // of HTTP/1.x
	header       http.Header
	length       int64 // of the body; -1: not known
	chunked      bool
	close        bool  // the connection ends with this answer
	announcement int64 // Content-Length as it stands in the header, for HEAD; -1: none
}

// readHead reads one. again is called before it reads another. scratch is for the lines, and given back.
func readHead(r *bufio.Reader, limit int, scratch []byte, again func()) (h head, _ []byte, err error) {
	for n := 0; ; n++ {
		if n > 0 {
			again()
		}
		var block string
		block, scratch, err = readBlock(r, limit, scratch)
		if err != nil {
			return h, scratch, err
		}
		h, err = parseHead(block)
		switch {
		case err != nil:
			return h, scratch, err
		case h.status == http.StatusSwitchingProtocols:
			return h, scratch, malformed("it switches to another protocol, which nobody asked for")
		case h.status >= 200:
			return h, scratch, nil
		case n == maxInformational:
			return h, scratch, malformed("more than %d informational ones before it", maxInformational)
		}
	}
}

// readBlock reads lines up to the empty one, which is not part of the result.
func readBlock(r *bufio.Reader, limit int, scratch []byte) (block string, _ []byte, err error) {
	b := scratch[:0]
	for start := 0; ; {
		part, err := r.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > limit {
			return "", b, malformed("its header has more than %d bytes", limit)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return "", b, io.ErrUnexpectedEOF
		case err != nil:
			return "", b, err
		}
		if line := b[start:]; len(line) == 1 || len(line) == 2 && line[0] == '\r' {
			return string(b[:start]), b, nil
		}
		start = len(b)
	}
}

// parseHead reads the status line and the header lines, each with its end.
func parseHead(block string) (h head, err error) {
	line, rest, _ := strings.Cut(block, "\n")
	line = strings.TrimSuffix(line, "\r")
	if err := h.statusLine(line); err != nil {
		return h, err
	}
	if h.header, err = parseHeader(rest); err != nil {
		return h, err
	}
	return h, h.framing()
}

// statusLine takes "HTTP/1.1 202 Accepted", and no text behind the number.
func (h *head) statusLine(line string) error {
	version, rest, found := strings.Cut(line, " ")
	switch {
	case !found:
		return malformed("no status line")
	case version == "HTTP/1.1":
		h.minor = 1
	case version != "HTTP/1.0":
		return malformed("not HTTP/1.0 or 1.1")
	}
	number, _, _ := strings.Cut(rest, " ")
	if len(number) != 3 || number[0] < '1' || number[0] > '9' || !isDigit(number[1]) || !isDigit(number[2]) {
		return malformed("no status of three digits")
	}
	if !visible(rest) {
		return malformed("control characters in the status line")
	}
	h.status = int(number[0]-'0')*100 + int(number[1]-'0')*10 + int(number[2]-'0')
	h.text = rest
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// visible is false for text with control characters other than tabs.
func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// parseHeader makes a Header whose values are parts of block.
func parseHeader(block string) (http.Header, error) {
	lines := strings.Count(block, "\n")
	h := make(http.Header, lines)
	values := make([]string, lines) // one for all, as in net/textproto
	for block != "" {
		var line string
		line, block, _ = strings.Cut(block, "\n")
		name, value, err := parseLine(strings.TrimSuffix(line, "\r"))
		if err != nil {
			return nil, err
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		if known, more := h[key]; more {
			h[key] = append(known, value)
			continue
		}
		values[0] = value
		h[key], values = values[:1:1], values[1:]
	}
	return h, nil
}

func parseLine(line string) (name, value string, err error) {
	name, value, found := strings.Cut(line, ":")
	if !found || !isToken(name) { // a line that goes on from the one before begins with a space
		return "", "", malformed("a header line without a name")
	}
	if value = strings.Trim(value, " \t"); !visible(value) {
		return "", "", malformed("control characters in a header line")
	}
	return name, value, nil
}

// isToken holds RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// framing finds out where the answer ends, and whether the connection does (RFC 9112 sections 6.3 and 9.3).
func (h *head) framing() error {
	h.length, h.announcement = -1, -1
	lengths, encodings := h.header["Content-Length"], h.header["Transfer-Encoding"]
	for i, v := range lengths {
		n, err := parseLength(v)
		if err != nil {
			return err
		}
		if i > 0 && v != lengths[0] { // 2 and 02 too, as for net/http: who writes a length in two ways is not to be trusted
			return malformed("several lengths")
		}
		h.announcement = n
	}
	if len(lengths) > 1 {
		h.header["Content-Length"] = lengths[:1]
	}
	switch {
	case len(encodings) == 0:
		h.length = h.announcement
	case len(lengths) > 0:
		return malformed("both Transfer-Encoding and Content-Length")
	case len(encodings) > 1 || !sameWord(encodings[0], "chunked"):
		return malformed("a Transfer-Encoding other than chunked")
	case h.minor == 0:
		return malformed("HTTP/1.0 with Transfer-Encoding")
	default:
		h.chunked = true
		delete(h.header, "Transfer-Encoding")
	}
	h.close = h.minor == 0 && !hasWord(h.header["Connection"], "keep-alive") || hasWord(h.header["Connection"], "close")
	return nil
}

func parseLength(s string) (int64, error) {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, malformed("a length that is no number")
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, malformed("a length that is no number")
	}
	return n, nil
}

// hasWord looks for a word in lists that are separated by commas.
func hasWord(lines []string, word string) bool {
	for _, line := range lines {
		for line != "" {
			var item string
			item, line, _ = strings.Cut(line, ",")
			if sameWord(strings.Trim(item, " \t"), word) {
				return true
			}
		}
	}
	return false
}

// sameWord ignores the case of ASCII letters: what else Unicode folds into one of them takes more bytes.
func sameWord(s, word string) bool { return len(s) == len(word) && strings.EqualFold(s, word) }

// bodiless answers have no body, whatever their header says (RFC 9112 section 6.3).
func bodiless(method string, status int) bool {
	return method == http.MethodHead || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}
