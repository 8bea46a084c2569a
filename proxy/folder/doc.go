// Package folder is distribution's filesystem driver with the operations that every push makes many times done with
// less: reading, writing and looking at a small object.
//
// What is on the disk is the same, so one may take the place of the other at any time. What is different is the way
// there. Distribution's driver makes a span, a timer and two attributes for every call, matches its path against a
// regular expression, and opens files so that they could be waited for; writing 200 bytes takes it eighteen system
// calls and 55 allocations, most of them for what has just been found out. Here it is eight, and the last two of them,
// which make the name of the file as durable as its content, are the dear ones on a disk either way.
package folder
