// Package upstream is one registry as a client sees it: the only place where Sluice holds
// credentials of a registry and opens connections to it.
//
// A [Registry] sends a [Request] with [Registry.Do] and hands back whatever the registry answers.
// What it adds to an http.Client:
//
//   - Credentials. Basic and Bearer challenges are answered from the Docker configuration, from a
//     name and a password, from AWS (Amazon ECR), or with the client's own header (passthrough). Tokens are kept per
//     repository and set of actions, renewed ahead of their end, and fetched once however many
//     requests wait for them. Only the registry's own host ever gets them, and the token service
//     only when its host is the registry's, a known pair, or listed in Options.Hosts.
//   - Streams. A body is read once. It is announced with Expect: 100-continue, and its first byte is
//     read only when the registry agrees (or stays silent), so that a 401, a 413 or a dead connection
//     still finds the body whole and the request can be sent again. Once a byte was read, nothing is
//     ever replayed.
//   - Retries of what can be repeated, with backoff, inside a budget.
//   - Rates. Requests keep under what a registry takes per second, counted as Amazon ECR counts them;
//     repositories take turns, inside the same budget (lane.go).
//   - Missing repositories of Amazon ECR, made when a push finds one (createrepo.go).
//   - An in-process registry ([NewEmbedded]) that is reached like any other, over connections in memory.
//
// Requests without a body, or with one of at most 32 KiB, which is read first, go over a client of our own (internal/h1);
// bodies that stream, and all that goes through a proxy of the environment, over http.Transport. Each has its connections.
//
// HTTP/2 is deliberately not negotiated: over it all uploads share one connection and its
// flow-control windows, bytes are cut into 16 KiB frames, and the body never reaches the connection's
// ReadFrom, which is what makes large layers cheap (see conn.go and BenchmarkUpload).
package upstream
