// Package soak lets real Sluice processes stand what a bad week brings, all at once and for as long as one likes, and
// then looks whether anything of it is left: `make soak`, with SOAK=60s for a short one and SOAK_SEED to repeat the
// choices of an earlier one as well as timing allows. It needs `make setup`.
//
// Two processes are in front of one registry, distribution's: one keeps its state in a folder, one in a bucket (an S3
// gateway). A third, with a folder, is in front of a second registry, which gets attestations when they cannot be kept
// (on_storage_error: forward). What goes on, at random moments:
//
//   - the registry answers any step with 401, 403, 404, 429 or 5xx, resets, nonsense, halves of answers; hangs, dawdles,
//     trickles, loses its answer after doing what it was asked, closes connections, says it has a layer and then misses
//     it; and is restarted
//   - the folder is full (of bytes or of files), nearly full, or read-only; the bucket answers 403, 500 or 503, resets,
//     nonsense, hangs longer than storage_timeout, dawdles, trickles, loses answers; and is restarted
//   - clients push as eight real ones do, with little patience; others hang up, send garbage and wrong digests, cut
//     connections, lie about Content-Length, trickle, repeat a PATCH; and one tag is pushed from twenty places at once
//   - certificates are replaced, also by files that are none; SIGHUP comes with configurations that are good, that
//     say another on_storage_error, that are broken, and that need a restart
//   - the wall clock jumps by an hour, and by more than a day, and back. No way leads from outside to the clock of a
//     static Go program alone, so the program is built with one change to Go's own time.Now, see clock_test.go
//
// Every good push must come to its end by retries, with the tag upstream that it promises. At the end each process has no
// goroutine and no open file more than after the warm-up, and no more memory than a stated bit; upstream's storage is
// whole, and clean but for what was forwarded, what was pushed can be pulled by its own digest, and quarantine empties itself.
package soak
