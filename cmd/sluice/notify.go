package main

import (
	"log/slog"
	"net"
)

// What systemd is told of a unit of Type=notify, see sd_notify(3).
const (
	stateReady     = "READY=1" // also: reloading has ended
	stateReloading = "RELOADING=1"
	stateStopping  = "STOPPING=1"
)

// newNotify gives what tells the service manager whose socket is in NOTIFY_SOCKET; without one nothing is told.
func newNotify(env func(string) (string, bool), log *slog.Logger) func(state string) {
	socket, _ := env("NOTIFY_SOCKET")
	if socket == "" {
		return func(string) {}
	}
	return func(state string) {
		conn, err := net.Dial("unixgram", socket) // an abstract one begins with @, as systemd and Go write it
		if err == nil {
			defer conn.Close()
			_, err = conn.Write([]byte(state))
		}
		if err != nil {
			log.Warn("the service manager cannot be told of a change, see NOTIFY_SOCKET", "change", state, "reason", err)
		}
	}
}
