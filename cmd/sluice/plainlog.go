package main

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// plainLines keeps what clients wrote into a User-Agent, a name or a document from steering the terminal that shows the log.
// slog quotes and escapes most of it. Each record is one Write, so no character is cut in two.
type plainLines struct {
	io.Writer
	plain func([]byte) []byte
}

func (p plainLines) Write(line []byte) (int, error) {
	if _, err := p.Writer.Write(p.plain(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// plainText escapes DEL, the one that slog leaves in a value without quotes.
func plainText(line []byte) []byte {
	if bytes.IndexByte(line, 0x7f) < 0 {
		return line
	}
	return bytes.ReplaceAll(line, []byte{0x7f}, []byte(`\x7f`))
}

// plainJSON escapes whatever does not print: slog leaves DEL, the C1 controls (U+0080 to U+009F) and marks that turn the
// direction of text as they are. They can only be inside of strings, since JSON has nothing but ASCII outside. It gives the line
// itself if all of it prints, as nearly always.
func plainJSON(line []byte) []byte {
	var out []byte
	done := 0 // of line, in out
	for i := 0; i < len(line); {
		if line[i] < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		if !unicode.IsPrint(r) || r == utf8.RuneError && n == 1 {
			out = append(out, line[done:i]...)
			if a, b := utf16.EncodeRune(r); a != unicode.ReplacementChar {
				out = fmt.Appendf(out, `\u%04x\u%04x`, a, b)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return line
	}
	return append(out, line[done:]...)
}
