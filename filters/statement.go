package filters

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/filters/ocidoc"
)

// MaxStatement is the size of the largest statement or envelope that is
// decoded. BuildKit stops at 80 MiB.
const MaxStatement = 128 << 20

// ErrNotStatement is in the chain of every error of [ParseStatement].
var ErrNotStatement = errors.New("not an in-toto statement")

// StatementInfo is what a statement is about.
type StatementInfo struct {
	PredicateType string
	// Subjects are the valid digests ("sha256:<hex>", "sha512:<hex>") of what
	// the statement is about, in its order, each once.
	Subjects []string
}

// ParseStatement reads the head of an in-toto statement (v0.1 or v1), given as
// JSON or as a DSSE envelope around it. The predicate is not decoded and the
// envelope's signatures are not verified: the result is for finding a
// statement, not for trusting it. Memory is at most a few times len(b).
func ParseStatement(b []byte) (StatementInfo, error) {
	if len(b) > MaxStatement {
		return StatementInfo{}, fmt.Errorf("%w: %d bytes, at most %d are read", ErrNotStatement, len(b), MaxStatement)
	}
	doc, err := decodeStatement(b)
	if err == nil && doc.PayloadType != "" {
		if !strings.HasPrefix(doc.PayloadType, "application/vnd.in-toto") {
			return StatementInfo{}, fmt.Errorf("%w: an envelope around %.100q", ErrNotStatement, doc.PayloadType)
		}
		doc, err = decodeStatement(doc.Payload)
	}
	if err != nil {
		return StatementInfo{}, fmt.Errorf("%w: %w", ErrNotStatement, err)
	}
	if !strings.HasPrefix(doc.Type, "https://in-toto.io/Statement/") {
		return StatementInfo{}, fmt.Errorf("%w: its _type is %.100q", ErrNotStatement, doc.Type)
	}
	info := StatementInfo{PredicateType: doc.PredicateType}
	seen := map[string]bool{}
	for _, s := range doc.Subject {
		for _, algorithm := range [...]string{"sha256", "sha512"} {
			digest := algorithm + ":" + s.Digest[algorithm]
			if ocidoc.ValidDigest(digest) && !seen[digest] {
				seen[digest] = true
				info.Subjects = append(info.Subjects, digest)
			}
		}
	}
	info.Subjects = slices.Clip(info.Subjects)
	return info, nil
}

// statement has the fields of a statement and of a DSSE envelope that matter
// (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md).
type statement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Digest map[string]string `json:"digest"`
	} `json:"subject"`

	PayloadType string `json:"payloadType"`
	Payload     []byte `json:"payload"`
}

func decodeStatement(b []byte) (s statement, err error) {
	err = json.Unmarshal(b, &s)
	return s, err
}
