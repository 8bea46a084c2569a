// Package h1 is a client of HTTP/1.1 for requests that are all in memory: without a body, or with a small one.
//
// A push is mostly made of such requests, and http.Transport is built for all that a browser may want: two goroutines
// for every connection, and four channels, two contexts, a timer and some thirty other allocations for every request. A
// [Client] writes the request with one system call and reads its answer in the goroutine that asks, and allocates what
// the answer itself is made of.
//
// It is an http.RoundTripper, and what it does not do it leaves to another one: bodies that stream or are large, and
// hosts that are behind a proxy of the environment.
//
// # What it takes for an answer
//
// Less than net/http does, and never anything that net/http refuses or reads otherwise (FuzzAnswer holds it): nothing
// that two programs could understand differently. Transfer-Encoding together with Content-Length, several lengths, a
// chunked answer of HTTP/1.0, header lines that go on in the next line, control characters, a space in front of the
// colon: all are errors, and the connection is closed. So is one that was idle and has something to read: an answer to
// no question must not become that of the next.
//
// # When a request is sent a second time
//
// A server may close an idle connection at the moment in which a request is on its way. Whoever used it before for an
// answer, and gets no byte of another, is sent over a new connection, once and only if that cannot do something twice:
// GET, HEAD and PUT, and POST without a body, which in a registry opens an upload session at most. A DELETE would find what it
// has deleted itself missing, so that is for whoever sends it to repeat.
package h1
