package main

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

func TestOnlyReadOnlyPagesOfTheProgramAreLetGo(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-0166c000 r-xp 00000000 fe:00 10594898                           /usr/bin/sluice":     true,
		"0166c000-02c06000 r--p 0126c000 fe:00 10594898                           /usr/bin/sluice":     true,
		"02c06000-02cf1000 rw-p 02806000 fe:00 10594898                           /usr/bin/sluice":     false,
		"0166c000-02c06000 r--s 0126c000 fe:00 10594898                           /usr/bin/sluice":     false,
		"7f1c5c000000-7f1c5c021000 r--p 00000000 fe:00 1                          /usr/lib/libc.so.6":  false,
		"7f1c5c000000-7f1c5c021000 r--p 00000000 fe:00 1                          /usr/bin/sluice.old": false,
		"29ea07c00000-29ea08800000 r--p 00000000 00:00 0 ":                                             false,
		"7ffd6b9f4000-7ffd6b9f6000 r-xp 00000000 00:00 0                          [vdso]":              false,
		"": false,
	} {
		from, to, ok := programPages(line, "/usr/bin/sluice")
		if ok != want {
			t.Errorf("%q: %t", line, ok)
		}
		if ok && (to <= from || !strings.HasPrefix(line, fmt.Sprintf("%08x-%08x ", from, to))) {
			t.Errorf("%q: %x to %x", line, from, to)
		}
	}
}

// A program goes on as before, and is smaller.
func TestLettingGoOfStartMakesTheProcessSmaller(t *testing.T) {
	before := residentFile(t)
	letGoOfStart()
	if after := residentFile(t); after > before/2 {
		t.Errorf("%d KiB of the program are resident, before it were %d", after, before)
	}
}

func residentFile(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"RssFile:", "RssShmem:"} { // the second where the program is in memory itself
		_, rest, _ := strings.Cut(string(b), name)
		n := 0
		if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
			t.Fatal(err)
		}
		kib += n
	}
	return kib
}

// What is loaded anywhere has pages that were written before they became read-only.
func TestAProgramThatIsLoadedAnywhereKeepsItsPages(t *testing.T) {
	header := func(kind elf.Type) string {
		b := append([]byte(elf.ELFMAG), make([]byte, elf.EI_NIDENT-len(elf.ELFMAG))...)
		return proxytest.File(t, "program", binary.NativeEndian.AppendUint16(b, uint16(kind)))
	}
	for file, want := range map[string]bool{
		header(elf.ET_EXEC): true, header(elf.ET_DYN): false, proxytest.File(t, "short", []byte(elf.ELFMAG)): false,
		proxytest.File(t, "script", []byte("#!/bin/sh\necho a script\n")): false, "/nowhere": false,
	} {
		if got := loadedWhereItSays(file); got != want {
			t.Errorf("%s: %t, want %t", file, got, want)
		}
	}
}
