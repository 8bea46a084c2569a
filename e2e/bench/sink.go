//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// far is how long a distant registry takes for one round trip.
const far = 10 * time.Millisecond

// sink is a registry that has nothing and keeps nothing, near and far, over http and over TLS, until its standard input
// ends. It prints its four addresses; to a line it answers with the number of requests so far.
func sink(args []string) error {
	cert, err := tls.LoadX509KeyPair(args[0], args[0])
	if err != nil {
		return err
	}
	s := &registry{}
	for _, delay := range []time.Duration{0, far} {
		for _, secure := range []bool{false, true} {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			scheme, config := "http", (*tls.Config)(nil)
			if secure {
				scheme, config = "https", &tls.Config{Certificates: []tls.Certificate{cert}}
			}
			go s.accept(ln, config, delay)
			fmt.Println(scheme + "://" + ln.Addr().String())
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(s.requests.Load())
	}
	return nil
}

type registry struct{ requests atomic.Int64 }

func (s *registry) accept(ln net.Listener, config *tls.Config, delay time.Duration) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			time.Sleep(delay) // the handshake of TCP
			raw := c.(*net.TCPConn)
			r := &connection{raw: raw, in: bufio.NewReaderSize(raw, 16<<10), out: raw}
			if config != nil {
				// crypto/tls asks for one record at a time, which would be two system calls for 16 KiB.
				tc := tls.Server(buffered{Conn: raw, r: bufio.NewReaderSize(raw, 256<<10)}, config)
				r = &connection{in: bufio.NewReaderSize(tc, 16<<10), out: tc}
			}
			for s.serve(r, delay) == nil {
			}
		}()
	}
}

type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

type connection struct {
	raw *net.TCPConn // nil behind TLS
	in  *bufio.Reader
	out io.Writer
	buf []byte
}

// serve answers one request.
func (s *registry) serve(c *connection, delay time.Duration) error {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	method, target, _ := strings.Cut(string(line), " ")
	target, _, _ = strings.Cut(target, " ")
	length, chunked, expects := int64(0), false, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		switch line[0] | 0x20 {
		case 'c', 't', 'e':
			name, value, _ := strings.Cut(string(line), ":")
			value = strings.TrimSpace(value)
			switch strings.ToLower(name) {
			case "content-length":
				length, err = strconv.ParseInt(value, 10, 64)
			case "transfer-encoding":
				chunked = true
			case "expect":
				expects = true
			}
			if err != nil {
				return err
			}
		}
	}
	s.requests.Add(1)
	if expects {
		time.Sleep(delay)
		if _, err := io.WriteString(c.out, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return err
		}
	}
	if chunked {
		err = c.discardChunks()
	} else {
		err = c.discard(length)
	}
	if err != nil {
		return err
	}
	if delay > 0 {
		time.Sleep(delay)
	}
	_, err = io.WriteString(c.out, s.answer(method, target))
	return err
}

func (s *registry) answer(method, target string) string {
	const end = "Content-Length: 0\r\n\r\n"
	switch {
	case method == "POST":
		path, _, _ := strings.Cut(target, "?")
		return "HTTP/1.1 202 Accepted\r\nLocation: " + path + strconv.FormatInt(s.requests.Load(), 10) + "\r\nRange: 0-0\r\n" + end
	case method == "PUT":
		_, digest, found := strings.Cut(target, "digest=")
		if !found {
			digest = target[strings.LastIndexByte(target, '/')+1:]
		}
		digest = strings.ReplaceAll(digest, "%3A", ":")
		if strings.HasPrefix(digest, "sha256:") {
			return "HTTP/1.1 201 Created\r\nDocker-Content-Digest: " + digest + "\r\n" + end
		}
		return "HTTP/1.1 201 Created\r\n" + end
	case method == "PATCH":
		return "HTTP/1.1 202 Accepted\r\nLocation: " + target + "\r\n" + end
	case method == "HEAD":
		return "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
	}
	return "HTTP/1.1 404 Not Found\r\n" + end
}

// discard lets the kernel throw bytes away where it can: MSG_TRUNC does not copy them (tcp(7)).
func (c *connection) discard(n int64) error {
	if n == 0 {
		return nil
	}
	buffered := min(n, int64(c.in.Buffered()))
	if _, err := c.in.Discard(int(buffered)); err != nil {
		return err
	}
	if n -= buffered; n == 0 {
		return nil
	}
	if c.buf == nil {
		c.buf = make([]byte, 1<<20)
	}
	if c.raw == nil {
		for n > 0 {
			got, err := c.in.Read(c.buf[:min(n, int64(len(c.buf)))])
			if n -= int64(got); err != nil {
				return err
			}
		}
		return nil
	}
	rc, err := c.raw.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = rc.Read(func(fd uintptr) bool {
		for n > 0 {
			got, _, err := syscall.Recvfrom(int(fd), c.buf[:min(n, int64(len(c.buf)))], syscall.MSG_TRUNC)
			switch {
			case errors.Is(err, syscall.EAGAIN):
				return false
			case errors.Is(err, syscall.EINTR):
				continue
			case err == nil && got == 0:
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				failed = err
				return true
			}
			n -= int64(got)
		}
		return true
	})
	return errors.Join(err, failed)
}

func (c *connection) discardChunks() error {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 64)
		if err != nil {
			return err
		}
		if err := c.discard(n); err != nil {
			return err
		}
		if _, err := c.in.ReadSlice('\n'); err != nil || n == 0 {
			return err
		}
	}
}
