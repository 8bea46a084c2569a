// Package folder is distribution's filesystem driver with the operations that every push makes many times done with
// less: reading, writing and looking at a small object.
//
// What is on the disk is the same, so one may take the place of the other at any time. What is different is the way
// there. Distribution's driver makes a span, a timer and two attributes for every call, matches its path against a
// regular expression, and opens files so that they could be waited for; writing a small object takes it twice
// the system calls and 45 allocations (BenchmarkSmall). Here it is eight system calls, all but one of them relative to an
// open folder, and no allocation; the two that make content and name durable are the dear ones on a disk either way.
package folder
