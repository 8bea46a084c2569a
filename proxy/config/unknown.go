package config

import (
	"fmt"
	"slices"
	"strings"
)

// foreignKeys are keys that people bring from elsewhere.
var foreignKeys = map[string]string{
	"storage.s3aws":       "the driver is called s3 here",
	"storage.s3-aws":      "the driver is called s3 here",
	"storage.delete":      "belongs to distribution's own configuration; storage takes one driver here and nothing else",
	"storage.cache":       "belongs to distribution's own configuration; storage takes one driver here and nothing else",
	"storage.maintenance": "belongs to distribution's own configuration; storage takes one driver here and nothing else",
	"storage.redirect":    "belongs to distribution's own configuration; storage takes one driver here and nothing else",
	"storage.tag":         "belongs to distribution's own configuration; storage takes one driver here and nothing else",
	"password":            "a password does not belong into this file; write it to a file of its own and name that as password_file, or set SLUICE_UPSTREAM_PASSWORD",
	"log":                 "logging is set by --log-level and --log-format, or SLUICE_LOG_LEVEL and SLUICE_LOG_FORMAT",
}

// unknownKey explains a key that is not there, with the nearest one that is.
func unknownKey(path, key string, known []string) string {
	for _, k := range []string{path, key} {
		if problem, ok := foreignKeys[k]; ok {
			return problem
		}
	}
	if key == "<<" {
		return "merge keys are not supported; write the settings out"
	}
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("unknown key; did you mean %q?", near)
	}
	return "unknown key; known here: " + strings.Join(known, ", ")
}

// Nearest is the known word closest to a mistyped one, or "" if none is close
// enough to be what was meant.
func Nearest(word string, known []string) string {
	best, distance := "", len(word)/3+1
	folded := fold(word)
	for _, k := range known {
		if len(folded) >= 4 && strings.HasPrefix(fold(k), folded) {
			return k
		}
	}
	for _, k := range known {
		if d := levenshtein(folded, fold(k)); d <= distance && (best == "" || d < distance) {
			best, distance = k, d
		}
	}
	return best
}

// fold makes logLevel, log-level and log_level the same word.
func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = slices.Min([]int{substitute, row[j] + 1, row[j+1] + 1})
		}
	}
	return row[len(b)]
}
