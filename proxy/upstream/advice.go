package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"

	"sluice/proxy/internal/h1"
)

// advice is what to do about an error that no answer came for.
func advice(err error) string {
	var (
		proxy       *proxyRefusal
		dns         *net.DNSError
		unknown     x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		op          *net.OpError
	)
	ends := func(name string) bool { return errors.As(err, &op) && op.Op == name }
	switch {
	case errors.As(err, &proxy) && proxy.status == http.StatusProxyAuthRequired:
		return "write the proxy's user and password into HTTP_PROXY or HTTPS_PROXY (http://user:password@host:port)"
	case proxy != nil, ends("proxyconnect"):
		return "check the proxy that HTTP_PROXY or HTTPS_PROXY names, or except this host in NO_PROXY"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "check the host in the upstream's url"
	case dns != nil:
		return "check this machine's name server; if it finds other names, check the host in the upstream's url"
	case errors.As(err, &unknown):
		return "name the authority's certificate file in the upstream's `ca`"
	case errors.As(err, &hostname):
		return "the certificate is for another name: check the host in the upstream's url"
	case errors.As(err, &certificate):
		return "have its certificate renewed or mended, and check this machine's clock"
	case errors.As(err, &record):
		return "it does not speak TLS on this port: check http or https in the upstream's url"
	case ends("remote error"): // of TLS
		return "it refuses TLS as Sluice speaks it: version 1.2 or 1.3, HTTP/1.1, and no client certificate"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "check that it runs and the port in the upstream's url"
	case ends("dial") && op.Timeout():
		return "nothing answers at this address: check host and port in the upstream's url, and firewalls; behind a proxy set HTTPS_PROXY"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errHeaderTimeout), errors.Is(err, h1.ErrStalled):
		return "it accepted the connection and stopped answering"
	}
	return "check that it runs and can be reached from here"
}
