package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// checkStatus is transport.CheckError for people: without details that are not text, which would be printed as Go's maps,
// and with what to do where the registry wants to know who asks.
func checkStatus(resp *http.Response, codes ...int) error {
	return refused(transport.CheckError(resp, codes...))
}

func refused(err error) error {
	e, is := errors.AsType[*transport.Error](err)
	if !is {
		return err
	}
	for i := range e.Errors {
		if _, text := e.Errors[i].Detail.(string); !text {
			e.Errors[i].Detail = nil
		}
	}
	if e.StatusCode == http.StatusUnauthorized && e.Request != nil {
		return fmt.Errorf("%w; log in with: docker login %s", e, e.Request.URL.Host)
	}
	return e
}

// notARegistry says what to do when there is no registry to talk to, instead of repeating the page that a web server has
// answered with.
func notARegistry(err error) error {
	// On this machine go-containerregistry asks again in plain http, and what the server says to that is beside the point.
	if untrusted, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return fmt.Errorf("%w; %s", untrusted, certificateAdvice(untrusted))
	}
	var e *transport.Error
	if errors.As(err, &e) && len(e.Errors) == 0 && e.StatusCode >= 400 && e.StatusCode < 500 && e.Request != nil {
		return fmt.Errorf("%s %s: HTTP status %d, but no error of a registry: is this the address of one?", e.Request.Method, e.Request.URL.Redacted(), e.StatusCode)
	}
	// net/http has no value for it. --insecure lets go-containerregistry ask again in plain http.
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("%w; if it speaks plain http, and the network is yours, add --insecure", err)
	}
	if dns, is := errors.AsType[*net.DNSError](err); is && dns.IsNotFound {
		return fmt.Errorf("%w; check the host in IMAGE", err)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nobody listens at this address (connection refused); check that Sluice, or the registry, runs, and the port in IMAGE")
	}
	return refused(err)
}

func certificateAdvice(err error) string {
	if _, is := errors.AsType[x509.HostnameError](err); is {
		return "the certificate is for another name: write that one in IMAGE"
	}
	if invalid, is := errors.AsType[x509.CertificateInvalidError](err); is && invalid.Reason == x509.Expired {
		return "have it renewed, and check this machine's clock"
	}
	return "if the authority is your own, name the file of its certificate with SSL_CERT_FILE (on macOS and Windows the system has to trust it)"
}
