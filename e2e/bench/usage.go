//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks is USER_HZ, in which /proc counts processor time: 100 on every architecture that Go runs on.
const ticks = 100

// family is a process and its children: nginx works in processes of its own.
func family(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

// cpu is the processor time of a process and its children in seconds.
func cpu(pid int) (float64, error) {
	sum := 0.0
	for _, p := range family(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			return 0, err
		}
		// The name may hold anything, but ends with the last parenthesis. utime and stime are fields 14 and 15.
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) < 13 {
			return 0, errors.New("unexpected /proc/PID/stat")
		}
		for _, f := range fields[11:13] {
			n, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return 0, err
			}
			sum += n / ticks
		}
	}
	return sum, nil
}

// status is a number of /proc/PID/status in MiB, summed over the family.
func status(pid int, name string) (float64, error) {
	sum := 0.0
	for _, p := range family(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if rest, found := strings.CutPrefix(line, name+":"); found {
				kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
				if err != nil {
					return 0, err
				}
				sum += kib / 1024
			}
		}
	}
	return sum, nil
}

// resetPeak makes VmHWM begin again at what is resident now (proc(5), clear_refs).
func resetPeak(pid int) {
	for _, p := range family(pid) {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p), []byte("5"), 0)
	}
}

// heap is what a Go program has allocated since it started: objects and bytes, from the last lines of its heap profile.
func heap(pprof string) (objects, bytes float64, err error) {
	if pprof == "" {
		return 0, 0, nil
	}
	resp, err := http.Get(pprof + "/debug/pprof/heap?debug=1")
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return objects, bytes, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if rest, found := strings.CutPrefix(line, "# Mallocs = "); found {
			objects, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
		} else if rest, found := strings.CutPrefix(line, "# TotalAlloc = "); found {
			bytes, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
}
