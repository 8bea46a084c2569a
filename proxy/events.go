package proxy

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/observe"
)

// Annotations of an event's target, where upstream has another document than the client pushed:
// distribution's format has no place for a second digest, and its readers leave unknown annotations alone.
const (
	annotationOriginalDigest    = "sluice.original.digest"
	annotationOriginalMediaType = "sluice.original.mediaType"
)

// newEvents is nil without endpoints.
func newEvents(p *Proxy, c config.Notifications) (*observe.Events, error) {
	var endpoints []observe.Endpoint
	for _, e := range c.Endpoints {
		headers := http.Header{}
		for name, values := range e.Headers {
			for _, v := range values {
				headers.Add(name, v.Reveal())
			}
		}
		endpoints = append(endpoints, observe.Endpoint{
			Name: e.Name, URL: e.URL.Reveal(), Headers: headers,
			Timeout: time.Duration(e.Timeout), Threshold: e.Threshold, Backoff: time.Duration(e.Backoff),
		})
	}
	if len(endpoints) == 0 {
		return nil, nil
	}
	events, err := p.observe.NewEvents(endpoints, p.log)
	if err != nil {
		return nil, fmt.Errorf("notifications: %w", err)
	}
	return events, nil
}

// pushedEvent tells of a document that is upstream now; original is what the client sent, "" if that is it.
func (ex *exchange) pushedEvent(ref, digest, mediaType string, size int64, original *ocidoc.Document) {
	if ex.p.events == nil {
		return
	}
	e := ex.event(notifications.EventActionPush, ref, digest)
	e.Target.MediaType, e.Target.Size, e.Target.Length = mediaType, size, size
	if original != nil {
		e.Target.Annotations = map[string]string{
			annotationOriginalDigest: received(ref, original), annotationOriginalMediaType: mediaTypeOf(original),
		}
	}
	ex.p.events.Send(e)
}

// deletedEvent tells of a delete that upstream has accepted; distribution says no more of it either.
func (ex *exchange) deletedEvent(ref string) {
	if ex.p.events == nil {
		return
	}
	digest := ""
	if digestRef(ref) {
		digest = ref
	}
	ex.p.events.Send(ex.event(notifications.EventActionDelete, ref, digest))
}

func (ex *exchange) event(action, ref, digest string) (e notifications.Event) {
	e.ID, e.Timestamp, e.Action = newID(), ex.p.now().UTC(), action
	e.Target.Descriptor = ocispec.Descriptor{Digest: godigest.Digest(digest)}
	e.Target.Repository = ex.repo
	if !digestRef(ref) {
		e.Target.Tag = ref
	}
	if digest != "" && action == notifications.EventActionPush {
		scheme := "http"
		if ex.r.TLS != nil {
			scheme = "https"
		}
		e.Target.URL = scheme + "://" + clip(ex.r.Host) + ex.here("/manifests/", digest)
	}
	e.Request = notifications.RequestRecord{
		ID: newID(), Addr: ex.r.RemoteAddr, Host: clip(ex.r.Host), Method: ex.r.Method, UserAgent: clip(ex.r.UserAgent()),
	}
	e.Actor.Name = ex.id.Name
	e.Source.Addr, e.Source.InstanceID = ex.p.source, ex.p.instance
	return e
}

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// sourceName is who events say they come from.
func sourceName(listen string) string {
	host, err := os.Hostname()
	if err != nil {
		return listen
	}
	return host
}
