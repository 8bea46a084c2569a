//go:build linux

// Command bench pushes through Sluice, through other proxies and directly, in one run on one machine, and prints what
// each of them spent.
//
//	make bench                about ten minutes on two cores
//	BENCH=quick make bench    about two, smaller and less exact
//	go run ./e2e/bench -only layer/tls -rounds 9
//
// Every proxy, the client and the registry are processes of their own, so that processor time and memory are those of
// the proxy alone: user and system time of /proc/PID/stat, VmHWM of /proc/PID/status. The registry discards what it is
// sent without hashing it, and the client sends from a file with sendfile, so that both cost less than what stands
// between them. Only ratios within one run mean anything. Rounds are interleaved, and of several the cheapest counts:
// what else runs on the machine can only add.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	roles := map[string]func([]string) error{"sink": sink, "load": load, "reverseproxy": reverseProxy}
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			if err := role(os.Args[2:]); err != nil {
				log.Fatal(err)
			}
			return
		}
	}
	o := options{}
	flag.BoolVar(&o.quick, "quick", os.Getenv("BENCH") == "quick", "smaller workloads, one round")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each workload; 0: its own number")
	flag.StringVar(&o.only, "only", "", "run workloads that contain this: layer, parallel, small, far, slow, /http, /tls")
	flag.StringVar(&o.peers, "peers", "", "only these, separated by commas, besides reverseproxy")
	flag.StringVar(&o.sluice, "sluice", "", "measure this program; empty: build it")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of each Sluice into this folder")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

type options struct {
	quick                bool
	rounds               int
	only, peers          string
	sluice, profile, dir string
	self, certificate    string
}

func run(o options) (err error) {
	base := ""
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		base = "/dev/shm" // distribution's driver syncs every file: on a disk this would measure the disk
	}
	if o.dir, err = os.MkdirTemp(base, "sluice-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	if err := os.Chmod(o.dir, 0o755); err != nil { // nginx' workers are another user
		return err
	}
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	if o.sluice == "" {
		o.sluice = filepath.Join(o.dir, "sluice")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", o.sluice, "./cmd/sluice")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build sluice (in the root of the repository): %w", err)
		}
	}
	if o.certificate, err = writeCertificate(o.dir); err != nil {
		return err
	}
	began := time.Now()
	b := &bench{o: o}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		b.endAll()
		os.RemoveAll(o.dir)
		os.Exit(1)
	}()
	if err := b.describe(); err != nil {
		return err
	}
	for _, w := range workloads(o.quick) {
		for _, scheme := range []string{"http", "tls"} {
			if w.tlsOnly && scheme != "tls" || !strings.Contains(w.name+"/"+scheme, o.only) {
				continue
			}
			if err := b.workload(w, scheme); err != nil {
				return fmt.Errorf("%s over %s: %w", w.name, scheme, err)
			}
		}
	}
	b.verdict()
	fmt.Printf("\n%s in %s.\n", map[bool]string{true: "Quick run", false: "Run"}[o.quick], time.Since(began).Round(time.Second))
	return nil
}
