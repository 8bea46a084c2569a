package main

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
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
// The mappings are those that cannot be written, so that there is nothing in them but the file (a debugger's breakpoints
// in them are forgotten). That is not so where the program may be loaded anywhere (-buildmode=pie): there some were written, to
// say where it is, before they were made read-only, and all of it stays.
func letGoOfStart() {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	if !loadedWhereItSays(program) {
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

// loadedWhereItSays is true for an ELF file of the type ET_EXEC (elf(5)).
func loadedWhereItSays(program string) bool {
	f, err := os.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	var header [elf.EI_NIDENT + 2]byte
	if _, err := f.ReadAt(header[:], 0); err != nil || string(header[:4]) != elf.ELFMAG {
		return false
	}
	return elf.Type(binary.NativeEndian.Uint16(header[elf.EI_NIDENT:])) == elf.ET_EXEC
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
