package session

import (
	"encoding/binary"
	"errors"
	"time"
)

// The plain text of a token: integers as varints, strings with their length in front. JSON would need half as many
// bytes again, and base64 a third more of that, in a URL.

// encodedBound is an upper bound for the length of encode's result.
func encodedBound(st State) int {
	return 1 + 9*binary.MaxVarintLen64 + len(st.ID) + len(st.Generation) + len(st.Location) + len(st.Peeked)
}

func encode(b []byte, st State, expires time.Time) []byte {
	b = append(b, byte(st.Mode))
	b = binary.AppendVarint(b, expires.UnixMilli())
	b = binary.AppendVarint(b, st.Started.UnixMilli())
	b = binary.AppendUvarint(b, uint64(st.Offset))
	b = binary.AppendUvarint(b, uint64(st.Parts))
	b = appendString(b, st.ID)
	b = appendString(b, st.Generation)
	b = appendString(b, st.Location)
	b = appendString(b, string(st.Peeked))
	if st.Pending > 0 {
		// Behind the rest and only where there is any: replicas of the version before read all other tokens.
		b = binary.AppendUvarint(b, uint64(st.Pending))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads what encode wrote. It is reached only with an authentic plain text, so an error means that another
// version of Sluice wrote it with the same key.
func decode(b []byte) (st State, expires time.Time, err error) {
	r := reader{rest: b}
	st.Mode = Mode(r.byte())
	expires = r.time()
	st.Started = r.time()
	st.Offset = int64(r.uvarint())
	st.Parts = int(r.uvarint())
	st.ID = r.string()
	st.Generation = r.string()
	st.Location = r.string()
	if peeked := r.string(); peeked != "" {
		st.Peeked = []byte(peeked)
	}
	if len(r.rest) > 0 {
		st.Pending = int64(r.uvarint())
		r.bad = r.bad || st.Pending == 0
	}
	if r.bad || len(r.rest) > 0 || st.Pending < 0 || st.Pending > st.Offset || st.Mode > Held || st.Offset < 0 || st.Parts < 0 {
		return State{}, time.Time{}, errors.New("it was sealed by another version")
	}
	return st, expires, nil
}

// reader takes values from the front; after the first that is not there it returns zeros and stays bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) byte() byte {
	if r.bad || len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	return v * uint64(r.advance(n))
}

func (r *reader) time() time.Time {
	v, n := binary.Varint(r.rest)
	if r.advance(n) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

// advance is 1 after n bytes were consumed, 0 when a varint was missing or too long.
func (r *reader) advance(n int) int {
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return 1
}

func (r *reader) string() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
