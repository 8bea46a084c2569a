package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	dnsServerFailure = 2
	dnsNameError     = 3 // NXDOMAIN
)

// nameServer answers every question with an error.
func nameServer(code byte) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return answering(func(query []byte, end int) []byte {
			answer := append([]byte{}, query[:end]...)      // RFC 1035 section 4.1
			answer[2], answer[3] = 0x80|query[2], 0x80|code // a response, and what went wrong
			copy(answer[6:12], make([]byte, 6))             // nothing but the question
			return answer
		}), nil
	}}
}

// answering is a connection to a name server. Each message has its length in front, as DNS over TCP; end is where the question
// of a query ends.
func answering(answer func(query []byte, end int) []byte) net.Conn {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		var length [2]byte
		for {
			if _, err := io.ReadFull(server, length[:]); err != nil {
				return
			}
			query := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(server, query); err != nil {
				return
			}
			answer := answer(query, 12+bytes.IndexByte(query[12:], 0)+5)
			binary.BigEndian.PutUint16(length[:], uint16(len(answer)))
			if _, err := server.Write(append(length[:], answer...)); err != nil {
				return
			}
		}
	}()
	return client
}

// A name that does not exist is a mistake in the configuration; a name server that fails is not, and is asked again.
func TestWhatIsSaidOfANameServerFitsItsAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		code byte
		want string
		not  string
	}{
		"not found":       {dnsNameError, "no such host; check the host in the upstream's url", "name server"},
		"a failure of it": {dnsServerFailure, "server misbehaving; check this machine's name server", "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			r, clock := open(t, Options{URL: "https://registry.example.com", Credentials: Anonymous, Resolver: nameServer(c.code)})
			_, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"})
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.not) {
				t.Errorf("%v", err)
			}
			if kind := errorKind(t.Context(), err); kind != "dns" {
				t.Errorf("it counts as %s", kind)
			}
			if len(clock.slept) != retryAttempts-1 {
				t.Errorf("tried again %d times", len(clock.slept))
			}
		})
	}
}

// One that says nothing holds a request up for as long as a connection may take, and is named.
func TestANameServerThatHangsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{URL: "https://registry.example.com", Credentials: Anonymous, Resolver: &net.Resolver{
			PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, server) }()
				return client, nil
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"})
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "check this machine's name server") {
			t.Errorf("%v", err)
		}
		if kind := errorKind(t.Context(), err); kind != "dns" {
			t.Errorf("it counts as %s", kind)
		}
		if took := time.Since(began); took > 2*retryBudget {
			t.Errorf("it took %s", took)
		}
		_ = r.Close()
	})
}
