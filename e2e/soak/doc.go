// Package soak lets a real Sluice process stand what a bad week brings, all at once and for as long as one likes, and
// then looks whether anything of it is left: `make soak`, with SOAK=60s for a short one.
//
// Pushers that behave like eight real clients push through it to distribution's registry, while others hang up, send
// garbage and wrong digests and cut connections, the registry is restarted, and the configuration is read again,
// good and bad. Every good push must come to its end, if need be by retries, with the tag upstream that it promises.
// At the end the process has no more goroutines, open files and memory than it began with, upstream's storage is whole
// and clean, and quarantine empties itself.
package soak
