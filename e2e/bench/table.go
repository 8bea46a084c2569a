//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// describe says what is compared with what.
func (b *bench) describe() error {
	fi, err := os.Stat(b.o.sluice)
	if err != nil {
		return err
	}
	var versions []string
	for _, v := range [][]string{{"usr/sbin/nginx", "-v"}, {"usr/sbin/haproxy", "-v"}, {"usr/bin/caddy", "version"}} {
		path := filepath.Join(debianRoot(), v[0])
		if !exists(path) {
			versions = append(versions, filepath.Base(path)+" (missing: make setup)")
			continue
		}
		cmd := exec.Command(path, v[1])
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(debianRoot(), "usr/lib", machine()+"-linux-gnu"))
		out, _ := cmd.CombinedOutput()
		line, _, _ := strings.Cut(string(out), "\n")
		line = strings.TrimPrefix(line, "nginx version: nginx/")
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "HAProxy version "), " ")
		versions = append(versions, filepath.Base(path)+" "+line)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("Peers: %s, httputil.ReverseProxy of %s. Sluice: %.1f MiB stripped, storage filesystem in %s.\n%d processors, load before: %s.\n",
		strings.Join(versions, ", "), runtime.Version(), float64(fi.Size())/mib, filepath.Dir(b.o.dir), runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:1], " "))
	return nil
}

func find(all []measured, name string) (measured, bool) {
	for _, m := range all {
		if m.name == name {
			return m, true
		}
	}
	return measured{}, false
}

// table prints one workload as Markdown.
func (b *bench) table(w workload, scheme string, all []measured) {
	where := map[string]string{"http": "http", "tls": "TLS"}[scheme]
	fmt.Printf("\n**%s**: %s, upstream over %s\n\n", w.name, w.says, where)
	unit := "CPU µs/request"
	if w.layers() {
		unit = "CPU s/GiB"
	}
	base, _ := find(all, "reverseproxy")
	direct := all[0]
	fmt.Printf("| | %s | of reverseproxy | wall s | of direct | requests upstream | allocations/request | KiB/%s | peak over idle MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
		unit, map[bool]string{true: "GiB", false: "request"}[w.layers()])
	for _, m := range all {
		per := m.requests / 1e6
		of := m.requests
		if w.layers() {
			per, of = w.gib(), w.gib()
		}
		cells := []string{m.name, "", "", fmt.Sprintf("%.2f", m.wall), fmt.Sprintf("%.2f", m.wall/direct.wall), fmt.Sprintf("%.1f", m.upstream/float64(w.job.Pushes)), "", "", ""}
		if m.name != "direct" {
			cells[1], cells[2] = number(m.cpu/per), fmt.Sprintf("%.2f", m.cpu/base.cpu)
			cells[8] = fmt.Sprintf("%.1f", m.rise)
		}
		if m.objects > 0 {
			cells[6], cells[7] = fmt.Sprintf("%.0f", m.objects/m.requests), fmt.Sprintf("%.1f", m.bytes/kib/of)
		}
		fmt.Printf("| %s |\n", strings.Join(cells, " | "))
	}
	fmt.Printf("\nClient %.2f s, registry %.2f s of processor time beside reverseproxy's %.2f s.\n", base.client, base.registry, base.cpu)
}

func number(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// verdict compares Sluice with what is asked of it.
func (b *bench) verdict() {
	fmt.Printf("\n**Targets**\n\n| | target | strip | store |\n|---|--:|--:|--:|\n")
	row := func(what string, target float64, unit string, value func(sluice, best measured, all []measured) float64, workload string) {
		all := b.got[workload]
		if all == nil {
			return
		}
		cells := []string{what, fmt.Sprintf("%s%s", number(target), unit)}
		for _, name := range []string{"sluice-strip", "sluice-store"} {
			m, ok := find(all, name)
			if !ok {
				return
			}
			v := value(m, bestGo(all), all)
			mark := ""
			if v > target {
				mark = " (missed)"
			}
			cells = append(cells, number(v)+mark)
		}
		fmt.Printf("| %s |\n", strings.Join(cells, " | "))
	}
	of := func(name string) func(measured, measured, []measured) float64 {
		return func(m, _ measured, all []measured) float64 {
			other, _ := find(all, name)
			return m.cpu / other.cpu
		}
	}
	for _, s := range []string{"http", "tls"} {
		row("requests upstream of a push of 52, "+s, 36, "", func(m, _ measured, all []measured) float64 { return m.upstream / (all[0].requests / 52) }, "small/"+s)
	}
	for _, w := range []string{"far/http", "far/tls", "far-few/http", "far-few/tls"} {
		row("wall time, registry 10 ms away, of direct, "+w, 0.70, "", func(m, _ measured, all []measured) float64 { return m.wall / all[0].wall }, w)
	}
	row("CPU of one layer over TLS, of reverseproxy", 0.65, "", of("reverseproxy"), "layer/tls")
	if _, ok := find(b.got["layer/tls"], "nginx"); ok {
		row("CPU of one layer over TLS, of nginx", 0.9, "", of("nginx"), "layer/tls")
	}
	for _, w := range []string{"small/http", "small/tls", "images/http", "images/tls"} {
		row("CPU per request, of the best Go peer, "+w, 0.8, "", func(m, best measured, _ []measured) float64 { return m.cpu / best.cpu }, w)
		row("allocations per request, "+w, 60, "", func(m, _ measured, _ []measured) float64 { return m.objects / m.requests }, w)
		row("allocated per request, "+w, 8, " KiB", func(m, _ measured, _ []measured) float64 { return m.bytes / m.requests / kib }, w)
	}
	for _, s := range []string{"http", "tls"} {
		row("allocated per GiB of layer, "+s, 1, " MiB", func(m, _ measured, _ []measured) float64 { return m.bytes / mib / b.gibOf("layer") }, "layer/"+s)
	}
	row("idle, 12 s after a warm-up", 30, " MiB", func(m, _ measured, _ []measured) float64 { return m.idle }, "slow/tls")
	row("64 slow uploads add, http", 32, " MiB", func(m, _ measured, _ []measured) float64 { return m.rise }, "slow/http")
	row("64 slow uploads add, TLS", 32, " MiB", func(m, _ measured, _ []measured) float64 { return m.rise }, "slow/tls")
	row("8 layers at once add, TLS", 64, " MiB", func(m, _ measured, _ []measured) float64 { return m.rise }, "eight/tls")
	row("start to first answer", 200, " ms", func(m, _ measured, _ []measured) float64 { return m.start }, "layer/http")
}

func (b *bench) gibOf(name string) float64 {
	for _, w := range workloads(b.o.quick) {
		if w.name == name {
			return w.gib()
		}
	}
	return 1
}

// bestGo is the cheapest of the peers that are written in Go.
func bestGo(all []measured) (best measured) {
	for _, name := range []string{"caddy", "reverseproxy", "reverseproxy-256k"} {
		if m, ok := find(all, name); ok && (best.name == "" || m.cpu < best.cpu) {
			best = m
		}
	}
	return best
}
