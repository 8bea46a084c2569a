package main

import (
	"strings"
	"unicode"
)

// printable keeps what others wrote from steering the terminal it is shown on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
