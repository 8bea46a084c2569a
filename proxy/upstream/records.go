package upstream

// records follows those of TLS over a connection: each says its length in its first five bytes (RFC 8446 section 5.1). What
// crypto/tls has read of one that has not come whole shows nowhere else.
type records struct {
	head [5]byte
	got  int // bytes of head
	left int // bytes of the rest
}

func (r *records) came(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left -= n
			b = b[n:]
			continue
		}
		n := copy(r.head[r.got:], b)
		b = b[n:]
		if r.got += n; r.got == len(r.head) {
			r.got, r.left = 0, int(r.head[3])<<8|int(r.head[4])
		}
	}
}

func (r *records) whole() bool { return r.got == 0 && r.left == 0 }
