package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
)

// lanes are where comparisons of passwords wait, one of each for its turn: a password takes some 50 ms to be compared,
// and whoever guesses brings as many as there are connections. One lane is for users that there are not, wherever they
// come from; the others are shared out by user and network, so that those who know a name hold up few but themselves. A
// table of all who wait would be theirs to fill.
type lanes [64]chan struct{}

func newLanes() (l lanes) {
	for i := range l {
		l[i] = make(chan struct{}, 1)
	}
	return l
}

// of is the lane of a user that is known, or not. mac keeps others from knowing with whom they share one.
func (l *lanes) of(known bool, mac []byte, user, remote string) chan struct{} {
	if !known {
		return l[0]
	}
	h := hmac.New(sha256.New, mac)
	h.Write([]byte(hash("lane", user, network(remote))))
	return l[1+int(h.Sum(nil)[0])%(len(l)-1)]
}

// network is what one client has of addresses: of IPv6 64 bits.
func network(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := at.Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // no error: it is shorter than the address
		a = p.Addr()
	}
	return a.String()
}
