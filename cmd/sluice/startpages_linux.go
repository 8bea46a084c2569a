package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
)

// letGoOfStart gives back what only starting needed: garbage of initialisation, and the pages of the program itself, of
// which most hold the tables and init functions of SDKs that run once. Pages that are used come back from the page
// cache when they are. Nothing is lost when it fails.
//
// The mappings are those that cannot be written, so that there is nothing in them but the file. (A debugger's breakpoints
// in them are forgotten.)
func letGoOfStart() {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		from, to, ok := programPages(lines.Text(), program)
		if ok {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
		}
	}
}

// programPages reads a line of /proc/self/maps (proc_pid_maps(5)) and is true for a private mapping of program that
// cannot be written.
func programPages(line, program string) (from, to uintptr, ok bool) {
	var access, offset, device, inode string
	if n, err := fmt.Sscanf(line, "%x-%x %s %s %s %s", &from, &to, &access, &offset, &device, &inode); err != nil || n != 6 {
		return 0, 0, false
	}
	return from, to, strings.HasPrefix(access, "r-") && strings.HasSuffix(access, "p") && strings.HasSuffix(line, " "+program)
}
