//go:build unix

package h1

import (
	"net"
	"syscall"
)

// socket looks at a connection without taking anything from it.
type socket struct {
	raw  syscall.RawConn
	look func(fd uintptr) // made once
	err  error
	n    int
	one  [1]byte
}

func socketOf(nc net.Conn) *socket {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.look = func(fd uintptr) {
		s.n, _, s.err = syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
	return s
}

// quiet is true while there is nothing to read, not even an end.
func (s *socket) quiet() bool {
	if s.raw.Control(s.look) != nil {
		return false
	}
	return s.err == syscall.EAGAIN || s.err == syscall.EWOULDBLOCK || s.err == syscall.EINTR //nolint:errorlint // as the system gives it
}
