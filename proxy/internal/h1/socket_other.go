//go:build !unix

package h1

import "net"

// socket is nothing here: that a server has closed a connection shows when it is used.
type socket struct{}

func socketOf(net.Conn) *socket { return nil }

func (*socket) quiet() bool { return true }
